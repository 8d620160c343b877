/* Sends what the event loop hands over, in a thread that never needs the GIL. kpy/net/sender.py says when and why.
 *
 * Entries lie in a ring and go through it in one order: the loop hands them over, publishes them together, the thread
 * sends one after another without ever waiting for a socket, and the loop takes them back. So four counts, which only
 * grow, say whose an entry is: taken_back <= sent <= published <= handed_over. The loop touches what is sent or not
 * published, the thread what lies between; `published` is passed on under the lock, `sent` as an atomic.
 *
 * References are counted by the loop alone: the thread reads bytes that the ring keeps.
 */

#include "native.h"

#ifdef __linux__

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CAPACITY = 512, /* Two of the largest rounds of the poller. */
    BATCH = 8,
};

typedef struct {
    int fd;
    int error; /* an errno, or 0; a full socket is none */
    PyObject *data;
    const char *bytes;
    size_t size;
    size_t sent;
} Entry;

typedef struct {
    PyObject_HEAD
    Entry ring[CAPACITY];
    uint64_t handed_over;
    uint64_t published;
    uint64_t taken_back;
    _Atomic uint64_t sent;
    _Atomic uint64_t cut_short; /* entries that did not go out whole and are not taken back */
    _Atomic int awaited;
    int alarm_fd;
    int is_running;
    int is_ending;
    int sleeps;
    pthread_mutex_t lock;
    pthread_cond_t published_more;
    pthread_cond_t sent_more;
    pthread_t thread;
} Sender;

static void send_entry(Sender *self, Entry *entry)
{
    ssize_t count;
    do
        count = send(entry->fd, entry->bytes, entry->size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (count < 0 && errno == EINTR);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        entry->error = errno;
    entry->sent = count < 0 ? 0 : (size_t)count;
    if (entry->sent < entry->size || entry->error) {
        uint64_t one = 1;
        atomic_fetch_add(&self->cut_short, 1);
        /* It fails only when so much is written there already that the loop is told in any case. */
        if (write(self->alarm_fd, &one, sizeof one) < 0)
            return;
    }
}

/* The thread. The lock is held while it looks for work and not while it sends. */
static void *send_all(void *argument)
{
    Sender *self = argument;
    uint64_t sent = atomic_load(&self->sent);
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (self->published == sent && !self->is_ending) {
            self->sleeps = 1;
            pthread_cond_wait(&self->published_more, &self->lock);
            self->sleeps = 0;
        }
        if (self->published == sent)
            break;
        uint64_t published = self->published;
        pthread_mutex_unlock(&self->lock);
        while (sent != published) {
            send_entry(self, &self->ring[sent % CAPACITY]);
            atomic_store(&self->sent, ++sent);
            if (atomic_load(&self->awaited)) {
                pthread_mutex_lock(&self->lock);
                pthread_cond_signal(&self->sent_more);
                pthread_mutex_unlock(&self->lock);
            }
        }
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

/* Signals are Python's affair: none is delivered to the thread. 0 if the system gives no thread. */
static int start(Sender *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    self->is_running = pthread_create(&self->thread, NULL, send_all, self) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return self->is_running;
}

static void publish(Sender *self)
{
    pthread_mutex_lock(&self->lock);
    self->published = self->handed_over;
    int sleeps = self->sleeps;
    pthread_mutex_unlock(&self->lock);
    if (sleeps)
        pthread_cond_signal(&self->published_more);
}

/* Everything that was handed over is sent, or has met its error, before the thread ends. */
static void stop(Sender *self)
{
    if (!self->is_running)
        return;
    pthread_mutex_lock(&self->lock);
    self->published = self->handed_over;
    self->is_ending = 1;
    pthread_cond_signal(&self->published_more);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
    self->is_running = 0;
}

static PyObject *Sender_hand_over(Sender *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "hand_over(fd: int, data: bytes)");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(arguments[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (self->handed_over - self->taken_back == CAPACITY || self->is_ending || (!self->is_running && !start(self)))
        return PyLong_FromLong(0);
    self->ring[self->handed_over++ % CAPACITY] = (Entry){
        .fd = fd,
        .data = Py_NewRef(arguments[1]),
        .bytes = PyBytes_AS_STRING(arguments[1]),
        .size = (size_t)PyBytes_GET_SIZE(arguments[1]),
    };
    if (self->handed_over - self->published >= BATCH)
        publish(self);
    return PyLong_FromUnsignedLongLong(self->handed_over);
}

static PyObject *Sender_publish(Sender *self, PyObject *unused)
{
    if (self->is_running)
        publish(self);
    Py_RETURN_NONE;
}

static PyObject *Sender_wait(Sender *self, PyObject *argument)
{
    uint64_t ticket = PyLong_AsUnsignedLongLong(argument);
    if (PyErr_Occurred())
        return NULL;
    if (ticket > self->handed_over) {
        PyErr_SetString(PyExc_ValueError, "nothing of this number has been handed over");
        return NULL;
    }
    if (atomic_load(&self->sent) < ticket) {
        Py_BEGIN_ALLOW_THREADS
        publish(self);
        pthread_mutex_lock(&self->lock);
        atomic_store(&self->awaited, 1);
        while (atomic_load(&self->sent) < ticket)
            pthread_cond_wait(&self->sent_more, &self->lock);
        atomic_store(&self->awaited, 0);
        pthread_mutex_unlock(&self->lock);
        Py_END_ALLOW_THREADS
    }
    return PyBool_FromLong(atomic_load(&self->cut_short) != 0);
}

static PyObject *Sender_take_back(Sender *self, PyObject *unused)
{
    uint64_t sent = atomic_load(&self->sent);
    while (self->taken_back != sent) {
        Entry *entry = &self->ring[self->taken_back++ % CAPACITY];
        PyObject *data = entry->data;
        entry->data = NULL;
        if (entry->sent < entry->size || entry->error) {
            atomic_fetch_sub(&self->cut_short, 1);
            return Py_BuildValue("iNni", entry->fd, data, (Py_ssize_t)entry->sent, entry->error);
        }
        Py_DECREF(data);
    }
    Py_RETURN_NONE;
}

static PyObject *Sender_close(Sender *self, PyObject *unused)
{
    Py_BEGIN_ALLOW_THREADS
    stop(self);
    Py_END_ALLOW_THREADS
    self->is_ending = 1;
    Py_RETURN_NONE;
}

static PyObject *Sender_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
    Sender *self = (Sender *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->published_more, NULL);
    pthread_cond_init(&self->sent_more, NULL);
    self->alarm_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->alarm_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void Sender_dealloc(Sender *self)
{
    stop(self);
    for (; self->taken_back != self->handed_over; self->taken_back++)
        Py_CLEAR(self->ring[self->taken_back % CAPACITY].data);
    if (self->alarm_fd >= 0)
        close(self->alarm_fd);
    pthread_mutex_destroy(&self->lock);
    pthread_cond_destroy(&self->published_more);
    pthread_cond_destroy(&self->sent_more);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef Sender_methods[] = {
    {"hand_over", (PyCFunction)(void (*)(void))Sender_hand_over, METH_FASTCALL,
     "(fd, bytes) -> its number, from 1, or 0 if the ring is full, it is closed or there is no thread to be had. Each "
     "eighth publishes."},
    {"publish", (PyCFunction)Sender_publish, METH_NOARGS, "What is handed over may be sent now."},
    {"wait", (PyCFunction)Sender_wait, METH_O,
     "(number) -> when this and all before it are tried: whether there is something to take back"},
    {"take_back", (PyCFunction)Sender_take_back, METH_NOARGS,
     "Forgets what has been tried, up to the next that did not go out whole -> (fd, bytes, how many are sent, errno or "
     "0), or None if all did"},
    {"close", (PyCFunction)Sender_close, METH_NOARGS, "Tries what is left and ends the thread."},
    {NULL},
};

static PyMemberDef Sender_members[] = {
    {"alarm_fd", T_INT, offsetof(Sender, alarm_fd), READONLY, "An eventfd: something did not go out whole."},
    {NULL},
};

static PyTypeObject Sender_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.Sender",
    .tp_doc = "Sends bytes on non-blocking sockets, each as far as it goes, in a thread of its own.",
    .tp_basicsize = sizeof(Sender),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = Sender_methods,
    .tp_members = Sender_members,
    .tp_new = Sender_new,
    .tp_dealloc = (destructor)Sender_dealloc,
};

int add_sender(PyObject *module)
{
    return PyModule_AddType(module, &Sender_Type);
}

#else

int add_sender(PyObject *module)
{
    return 0;
}

#endif
