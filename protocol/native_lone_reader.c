/* Sends a region of a file to a client that reads, as its socket takes it, while nothing else is to be done. In Python
 * each time that the socket has room is a round of the event loop; here it is two system calls more. kpy/net/poller.py
 * says when.
 */

#include "native.h"

#ifdef __linux__

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <time.h>

enum { MAX_EVENTS = 64 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

typedef struct {
    int both; /* an epoll in which there are `own` and another one */
    int own;
    int sock;
    int file;
    off_t position;
    off_t end;
    double deadline_s;
    struct epoll_event events[MAX_EVENTS];
} Task;

/* How many events there are to be served. A last one of the socket's own says that there is nothing left that could be
 * done here: all is sent, or sending meets what the event loop will meet too. None: it is the turn of the other epoll, or
 * of a signal, or time is up. */
static int send_while_alone(Task *task)
{
    struct epoll_event ready[2];
    for (;;) {
        double left_s = task->deadline_s - now_s();
        int timeout_ms = left_s > 0 ? (int)ceil(left_s * 1e3) : 0;
        if (epoll_wait(task->both, ready, 2, timeout_ms) != 1 || ready[0].data.fd != task->own)
            return 0;
        int count = epoll_wait(task->own, task->events, MAX_EVENTS, 0);
        if (count != 1 || task->events[0].data.fd != task->sock || task->events[0].events != EPOLLOUT)
            return count < 0 ? 0 : count;
        ssize_t sent = sendfile(task->sock, task->file, &task->position, (size_t)(task->end - task->position));
        if (sent == 0 || (sent < 0 && errno != EAGAIN && errno != EINTR) || task->position == task->end)
            return count;
    }
}

static PyObject *as_list(const struct epoll_event *events, int count)
{
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *event = Py_BuildValue("iI", events[i].data.fd, events[i].events);
        if (event == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, event);
    }
    return list;
}

static PyObject *py_send_while_alone(PyObject *module, PyObject *arguments)
{
    Task task;
    long long position, size;
    double seconds;
    if (!PyArg_ParseTuple(arguments, "iiiiLLd:send_while_alone", &task.both, &task.own, &task.sock, &task.file,
                          &position, &size, &seconds))
        return NULL;
    task.position = (off_t)position;
    task.end = (off_t)(position + size);
    int count;
    Py_BEGIN_ALLOW_THREADS
    task.deadline_s = now_s() + seconds;
    count = send_while_alone(&task);
    Py_END_ALLOW_THREADS
    PyObject *events = as_list(task.events, count);
    return events == NULL ? NULL : Py_BuildValue("LN", (long long)task.position - position, events);
}

static PyMethodDef functions[] = {
    {"send_while_alone", py_send_while_alone, METH_VARARGS,
     "(both, own, sock, file, position, size, seconds) -> (bytes sent, events of `own` that are to be served now)"},
    {NULL},
};

int add_send_while_alone(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}

#else

int add_send_while_alone(PyObject *module)
{
    return 0;
}

#endif
