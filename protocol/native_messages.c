/* Reads and writes messages by the layouts that the generated codecs carry, in C.
 *
 * This is an accelerator and never the authority. It knows the well-formed case only: at anything else (bytes that end
 * too early, a value of a type that it does not expect) it drops what it has and calls the generated Python function
 * for the same message, which raises the error that says what is wrong, or copes. So errors have one source, and a
 * layout that C cannot handle costs time and nothing else.
 *
 * A Layout is one version of one struct: a list of Ops, each a type and the slot of the object that it fills. Objects are
 * made without calling their constructor, by storing into their slots at the offsets that the class's member
 * descriptors give. Reader and Writer are what stands in the tables of a codec in the place of the Python functions.
 *
 * What is read is not tracked by the garbage collector: a message is a tree, so counting references is enough for it, and
 * a large one would otherwise be traversed again and again while it is being made. (Who hangs an object into a message
 * that leads back to the message has to cut that tie.)
 *
 * What it has to be careful about: every read is preceded by a comparison with the end; the buffer stays exported while
 * it is read; a list or item is owned while a `len()` written in Python could run. */

#include "native.h"
#include <stddef.h>
#include <structmember.h>

#define MAX_STRING_BYTES 32767
#define UUID_BYTES 16
#define STACK_BYTES 2048
#define CACHED_BYTES 256

typedef struct Layout Layout;

typedef struct {
    char code;        /* of the value, or of the elements: one of zbhHiqdusyr, or T for a struct */
    char array;       /* whether it is an array of them */
    char nullable;
    char compact;     /* whether lengths are varints */
    int size;         /* of a value of fixed size */
    uint32_t tag;     /* of a tagged field */
    Py_ssize_t slot;  /* offset in the object */
    Layout *layout;   /* of a struct */
    PyObject *unsent; /* what the field holds if it is not sent; a type is called for a fresh one */
    PyObject *last;   /* the number or string read last, because the next one is often the same */
    int64_t number;   /* of which this is the value */
} Op;

struct Layout {
    PyObject_HEAD
    PyTypeObject *type;
    Py_ssize_t smallest; /* least number of bytes of one */
    int flexible;
    int sent;            /* ops[0:sent] are always sent, in order, */
    int tagged;          /* ops[sent:tagged] if they differ from their default, by tag, */
    int count;           /* and ops[tagged:count] are not in this version */
    Op *ops;
};

typedef struct {
    const uint8_t *begin, *at, *end;
    PyObject *view;      /* the memoryview, for records */
} In;

typedef struct {
    char *data;
    Py_ssize_t used, room;
    PyObject *chunks;    /* what is complete, or NULL if that is nothing */
    char stack[STACK_BYTES];
} Out;

/* Reading ------------------------------------------------------------------------------------------------------------
 * Functions return NULL, or -1 where they return numbers, for what is left to Python. An exception may be set or not. */

static inline uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
#if PY_LITTLE_ENDIAN
    value = __builtin_bswap32(value);
#endif
    return value;
}

static inline uint64_t load64(const uint8_t *p) { return (uint64_t)load32(p) << 32 | load32(p + 4); }

/* An unsigned varint of at most five bytes, or -1. */
static inline int64_t read_uvarint(In *in)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (in->at >= in->end)
            return -1;
        uint8_t byte = *in->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return (int64_t)(value & 0xffffffffu);
    }
    return -1;
}

/* A length or count into *size; -1 stands for null, and anything below for malformed bytes. */
static inline int read_size(In *in, int compact, int bytes, int64_t *size)
{
    if (compact) {
        int64_t value = read_uvarint(in);
        *size = value - 1;
        return value < 0 ? -1 : 0;
    }
    if (in->end - in->at < bytes)
        return -1;
    *size = bytes == 2 ? (int16_t)load16(in->at) : (int32_t)load32(in->at);
    in->at += bytes;
    return 0;
}

/* Partitions share leader epochs, sizes, timestamps; requests of one client share topics. */
static inline PyObject *integer(Op *op, int64_t number)
{
    if (op->last != NULL && op->number == number)
        return Py_NewRef(op->last);
    PyObject *value = PyLong_FromLongLong(number);
    if (value != NULL) {
        op->number = number;
        Py_XSETREF(op->last, Py_NewRef(value));
    }
    return value;
}

static inline PyObject *text(Op *op, const char *p, Py_ssize_t size)
{
    /* Only strings of ASCII have the same bytes inside as on the wire. */
    if (op->last != NULL && PyUnicode_GET_LENGTH(op->last) == size && memcmp(PyUnicode_DATA(op->last), p, size) == 0)
        return Py_NewRef(op->last);
    PyObject *value = PyUnicode_DecodeUTF8(p, size, NULL);
    if (value != NULL && size <= CACHED_BYTES && PyUnicode_IS_COMPACT_ASCII(value))
        Py_XSETREF(op->last, Py_NewRef(value));
    return value;
}

static PyObject *read_fixed(In *in, Op *op)
{
    const uint8_t *p = in->at;
    if (in->end - p < op->size)
        return NULL;
    in->at += op->size;
    switch (op->code) {
    case 'z': return Py_NewRef(*p ? Py_True : Py_False);
    case 'b': return PyLong_FromLong((int8_t)*p);
    case 'h': return PyLong_FromLong((int16_t)load16(p));
    case 'H': return PyLong_FromLong(load16(p));
    case 'i': return integer(op, (int32_t)load32(p));
    case 'q': return integer(op, (int64_t)load64(p));
    case 'u': return PyBytes_FromStringAndSize((const char *)p, UUID_BYTES);
    default: {
        uint64_t bits = load64(p);
        double value;
        memcpy(&value, &bits, sizeof value);
        return PyFloat_FromDouble(value);
    }
    }
}

/* A view of the next `size` bytes, as `view[start:stop]` would give. */
static PyObject *read_records(In *in, Py_ssize_t size)
{
    PyObject *piece = PyMemoryView_FromObject(in->view);
    if (piece == NULL)
        return NULL;
    /* The new view has a Py_buffer and a shape of its own, over the same export. */
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(piece);
    buffer->buf = (char *)buffer->buf + (in->at - in->begin);
    buffer->len = size;
    buffer->shape[0] = size;
    in->at += size;
    return piece;
}

static PyObject *read_sized(In *in, Op *op, int nullable)
{
    int64_t size;
    if (read_size(in, op->compact, op->code == 's' ? 2 : 4, &size) < 0)
        return NULL;
    if (size == -1 && nullable)
        Py_RETURN_NONE;
    if (size < 0 || size > in->end - in->at || (op->code == 's' && size > MAX_STRING_BYTES))
        return NULL;
    if (op->code == 'r')
        return read_records(in, (Py_ssize_t)size);
    const char *p = (const char *)in->at;
    in->at += size;
    return op->code == 's' ? text(op, p, (Py_ssize_t)size) : PyBytes_FromStringAndSize(p, (Py_ssize_t)size);
}

static PyObject *read_struct(In *in, Layout *layout);

static inline PyObject *read_element(In *in, Op *op)
{
    if (op->code == 'T')
        return read_struct(in, op->layout);
    return op->size ? read_fixed(in, op) : read_sized(in, op, 0);
}

static PyObject *read_array(In *in, Op *op)
{
    int64_t count;
    if (read_size(in, op->compact, 4, &count) < 0)
        return NULL;
    if (count == -1 && op->nullable)
        Py_RETURN_NONE;
    Py_ssize_t smallest = op->code == 'T' ? op->layout->smallest : op->size ? op->size : op->compact ? 1 : 2;
    if (count < 0 || count * smallest > in->end - in->at)
        return NULL;
    PyObject *items = PyList_New((Py_ssize_t)count);
    if (items == NULL)
        return NULL;
    PyObject_GC_UnTrack(items);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = read_element(in, op);
        if (item == NULL) {
            Py_DECREF(items);
            return NULL;
        }
        PyList_SET_ITEM(items, i, item);
    }
    return items;
}

static PyObject *read_value(In *in, Op *op, int is_tagged)
{
    if (op->array)
        return read_array(in, op);
    if (op->code == 'T') {
        if (op->nullable) {
            if (in->at >= in->end)
                return NULL;
            int8_t marker = (int8_t)*in->at++;
            if (marker < is_tagged)
                Py_RETURN_NONE;
        }
        return read_struct(in, op->layout);
    }
    return op->size ? read_fixed(in, op) : read_sized(in, op, op->nullable);
}

static int read_tagged(In *in, Layout *layout, char *self)
{
    int64_t count = read_uvarint(in), last = -1;
    if (count < 0 || count * 2 > in->end - in->at)
        return -1;
    Op *op = layout->ops + layout->sent, *stop = layout->ops + layout->tagged;
    while (count-- > 0) {
        int64_t tag = read_uvarint(in), size = read_uvarint(in);
        if (tag <= last || size < 0 || size > in->end - in->at)
            return -1;
        last = tag;
        while (op < stop && op->tag < tag)
            op++;
        if (op == stop || op->tag != tag) {
            in->at += size;
            continue;
        }
        In section = *in;
        section.end = in->at + size;
        PyObject *value = read_value(&section, op, 1);
        if (value == NULL)
            return -1;
        *(PyObject **)(self + op->slot) = value;
        if (section.at != section.end)
            return -1;
        in->at = section.end;
    }
    return 0;
}

static PyObject *read_struct(In *in, Layout *layout)
{
    PyTypeObject *type = layout->type;
    PyObject *self = PyObject_GC_New(PyObject, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, (size_t)type->tp_basicsize - sizeof(PyObject));
    Op *op = layout->ops, *stop = op + layout->sent;
    for (; op < stop; op++) {
        PyObject *value = read_value(in, op, 0);
        if (value == NULL)
            goto failed;
        *(PyObject **)((char *)self + op->slot) = value;
    }
    if (layout->flexible) {
        if (in->at < in->end && *in->at == 0)
            in->at++;
        else if (read_tagged(in, layout, (char *)self) < 0)
            goto failed;
    }
    for (stop = layout->ops + layout->count; op < stop; op++) {
        PyObject **slot = (PyObject **)((char *)self + op->slot);
        if (*slot != NULL)
            continue;
        *slot = op->unsent == (PyObject *)&PyList_Type ? PyList_New(0)
            : PyType_Check(op->unsent) ? PyObject_CallNoArgs(op->unsent) : Py_NewRef(op->unsent);
        if (*slot == NULL)
            goto failed;
    }
    return self;
failed:
    Py_DECREF(self);
    return NULL;
}

/* Writing ------------------------------------------------------------------------------------------------------------
 * Functions return -1 for what is left to Python. */

static int grow(Out *out, Py_ssize_t more)
{
    Py_ssize_t room = out->room;
    while (room - out->used < more) {
        if (room > PY_SSIZE_T_MAX / 2)
            return -1;
        room *= 2;
    }
    char *data = out->data == out->stack ? PyMem_Malloc((size_t)room) : PyMem_Realloc(out->data, (size_t)room);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (out->data == out->stack)
        memcpy(data, out->stack, (size_t)out->used);
    out->data = data;
    out->room = room;
    return 0;
}

static inline char *reserve(Out *out, Py_ssize_t size)
{
    if (out->room - out->used < size && grow(out, size) < 0)
        return NULL;
    char *p = out->data + out->used;
    out->used += size;
    return p;
}

static inline int write_byte(Out *out, uint8_t byte)
{
    char *p = reserve(out, 1);
    if (p == NULL)
        return -1;
    *p = (char)byte;
    return 0;
}

static inline int write_uvarint(Out *out, uint64_t value)
{
    while (value >= 0x80) {
        if (write_byte(out, (uint8_t)(value | 0x80)) < 0)
            return -1;
        value >>= 7;
    }
    return write_byte(out, (uint8_t)value);
}

static inline void store(char *p, uint64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--) {
        p[i] = (char)value;
        value >>= 8;
    }
}

static int write_size(Out *out, int compact, int bytes, int64_t size)
{
    if (compact)
        return size >= UINT32_MAX ? -1 : write_uvarint(out, (uint64_t)(size + 1));
    if (size > INT32_MAX)
        return -1;
    char *p = reserve(out, bytes);
    if (p == NULL)
        return -1;
    store(p, (uint64_t)size, bytes);
    return 0;
}

static int write_integer(Out *out, PyObject *value, int64_t least, int64_t most, int size)
{
    if (!PyLong_Check(value))
        return -1;
    int overflow;
    int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || number < least || number > most)
        return -1;
    char *p = reserve(out, size);
    if (p == NULL)
        return -1;
    store(p, (uint64_t)number, size);
    return 0;
}

static int write_fixed(Out *out, const Op *op, PyObject *value)
{
    switch (op->code) {
    case 'z': return value == Py_True ? write_byte(out, 1) : value == Py_False ? write_byte(out, 0) : -1;
    case 'b': return write_integer(out, value, INT8_MIN, INT8_MAX, 1);
    case 'h': return write_integer(out, value, INT16_MIN, INT16_MAX, 2);
    case 'H': return write_integer(out, value, 0, UINT16_MAX, 2);
    case 'i': return write_integer(out, value, INT32_MIN, INT32_MAX, 4);
    case 'q': return write_integer(out, value, INT64_MIN, INT64_MAX, 8);
    case 'u': {
        if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) != UUID_BYTES)
            return -1;
        char *p = reserve(out, UUID_BYTES);
        if (p == NULL)
            return -1;
        memcpy(p, PyBytes_AS_STRING(value), UUID_BYTES);
        return 0;
    }
    default: {
        if (!PyFloat_CheckExact(value))
            return -1;
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        char *p = reserve(out, 8);
        if (p == NULL)
            return -1;
        store(p, bits, 8);
        return 0;
    }
    }
}

static int write_data(Out *out, const char *data, Py_ssize_t size)
{
    char *p = reserve(out, size);
    if (p == NULL)
        return -1;
    memcpy(p, data, (size_t)size);
    return 0;
}

/* What has been written since the last chunk becomes one. */
static int end_chunk(Out *out)
{
    if (out->chunks == NULL && (out->chunks = PyList_New(0)) == NULL)
        return -1;
    PyObject *chunk = PyByteArray_FromStringAndSize(out->data, out->used);
    if (chunk == NULL)
        return -1;
    int result = PyList_Append(out->chunks, chunk);
    Py_DECREF(chunk);
    out->used = 0;
    return result;
}

/* Records are passed through, whatever they are. Their length may be told by Python code. */
static int write_records(Out *out, const Op *op, PyObject *value)
{
    Py_INCREF(value);
    Py_ssize_t size = PyObject_Size(value);
    int result = size < 0 ? -1 : write_size(out, op->compact, 4, size);
    if (result == 0 && size > 0)
        result = end_chunk(out) < 0 ? -1 : PyList_Append(out->chunks, value);
    Py_DECREF(value);
    return result;
}

static int write_sized(Out *out, const Op *op, PyObject *value, int nullable)
{
    if (value == Py_None)
        return nullable ? write_size(out, op->compact, op->code == 's' ? 2 : 4, -1) : -1;
    if (op->code == 'r')
        return write_records(out, op, value);
    if (op->code == 's') {
        Py_ssize_t size;
        const char *data = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : NULL;
        if (data == NULL || size > MAX_STRING_BYTES || write_size(out, op->compact, 2, size) < 0)
            return -1;
        return write_data(out, data, size);
    }
    if (!PyBytes_CheckExact(value) || write_size(out, op->compact, 4, PyBytes_GET_SIZE(value)) < 0)
        return -1;
    return write_data(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
}

static int write_struct(Out *out, Layout *layout, PyObject *self);

static inline int write_element(Out *out, const Op *op, PyObject *value)
{
    if (op->code == 'T')
        return write_struct(out, op->layout, value);
    return op->size ? write_fixed(out, op, value) : write_sized(out, op, value, 0);
}

static int write_array(Out *out, const Op *op, PyObject *items, int nullable)
{
    if (items == Py_None)
        return nullable ? write_size(out, op->compact, 4, -1) : -1;
    if (!PyList_CheckExact(items))
        return -1;
    Py_ssize_t count = PyList_GET_SIZE(items);
    int result = write_size(out, op->compact, 4, count);
    Py_INCREF(items);
    for (Py_ssize_t i = 0; result == 0 && i < count; i++)
        result = PyList_GET_SIZE(items) == count ? write_element(out, op, PyList_GET_ITEM(items, i)) : -1;
    if (PyList_GET_SIZE(items) != count)
        result = -1;
    Py_DECREF(items);
    return result;
}

static int write_value(Out *out, const Op *op, PyObject *value, int is_tagged)
{
    int nullable = op->nullable && !is_tagged;
    if (op->array)
        return write_array(out, op, value, nullable);
    if (op->code != 'T')
        return op->size ? write_fixed(out, op, value) : write_sized(out, op, value, nullable);
    if (op->nullable && write_byte(out, value == Py_None && nullable ? 0xff : 1) < 0)
        return -1;
    return value == Py_None && nullable ? 0 : write_struct(out, op->layout, value);
}

/* Whether a tagged field differs from its default, and so is sent; -1 for failure. */
static int is_sent(const Op *op, PyObject *value)
{
    if (value == op->unsent || value == Py_None)
        return value != op->unsent && op->unsent != (PyObject *)&PyList_Type && op->code != 'T';
    if (op->array && PyList_CheckExact(value))
        return op->unsent == Py_None || PyList_GET_SIZE(value) > 0;
    if (op->code == 'T') {
        PyObject *unsent = PyObject_CallNoArgs((PyObject *)op->layout->type);
        Py_INCREF(value);
        int result = unsent == NULL ? -1 : PyObject_RichCompareBool(value, unsent, Py_NE);
        Py_DECREF(value);
        Py_XDECREF(unsent);
        return result;
    }
    return PyObject_RichCompareBool(value, op->unsent, Py_NE);
}

static int write_tagged_field(Out *out, const Op *op, PyObject *value)
{
    /* The size goes in front, so it is moved there when it is known. Records would begin a chunk; no tag holds any. */
    if (write_uvarint(out, op->tag) < 0)
        return -1;
    Py_ssize_t start = out->used, chunks = out->chunks ? PyList_GET_SIZE(out->chunks) : 0;
    if (write_value(out, op, value, 1) < 0 || (out->chunks ? PyList_GET_SIZE(out->chunks) : 0) != chunks)
        return -1;
    Py_ssize_t size = out->used - start;
    if (write_uvarint(out, (uint64_t)size) < 0)
        return -1;
    char length[10];
    Py_ssize_t length_size = out->used - start - size;
    char *p = out->data + start;
    memcpy(length, p + size, (size_t)length_size);
    memmove(p + length_size, p, (size_t)size);
    memcpy(p, length, (size_t)length_size);
    return 0;
}

static int write_tagged(Out *out, Layout *layout, PyObject *self)
{
    const Op *stop = layout->ops + layout->tagged;
    int count = 0;
    uint64_t sent = 0;
    for (const Op *op = layout->ops + layout->sent; op < stop; op++) {
        PyObject *value = *(PyObject **)((char *)self + op->slot);
        if (value == NULL)
            return -1;
        int result = is_sent(op, value);
        if (result < 0)
            return -1;
        sent |= (uint64_t)result << (op - layout->ops - layout->sent);
        count += result;
    }
    if (write_uvarint(out, (uint64_t)count) < 0)
        return -1;
    for (const Op *op = layout->ops + layout->sent; sent; op++, sent >>= 1) {
        if (sent & 1) {
            PyObject *value = *(PyObject **)((char *)self + op->slot);
            if (value == NULL)
                return -1;
            Py_INCREF(value);
            int result = write_tagged_field(out, op, value);
            Py_DECREF(value);
            if (result < 0)
                return -1;
        }
    }
    return 0;
}

static int write_fields(Out *out, Layout *layout, PyObject *self)
{
    const Op *stop = layout->ops + layout->sent;
    for (const Op *op = layout->ops; op < stop; op++) {
        PyObject *value = *(PyObject **)((char *)self + op->slot);
        if (value == NULL || write_value(out, op, value, 0) < 0)
            return -1;
    }
    if (!layout->flexible)
        return 0;
    return layout->sent == layout->tagged ? write_byte(out, 0) : write_tagged(out, layout, self);
}

static int write_struct(Out *out, Layout *layout, PyObject *self)
{
    if (Py_TYPE(self) != layout->type)
        return -1;
    Py_INCREF(self);
    int result = write_fields(out, layout, self);
    Py_DECREF(self);
    return result;
}

/* Layout -------------------------------------------------------------------------------------------------------------*/

static PyTypeObject Layout_Type;

static int fixed_size(char code)
{
    switch (code) {
    case 'z': case 'b': return 1;
    case 'h': case 'H': return 2;
    case 'i': return 4;
    case 'q': case 'd': return 8;
    case 'u': return UUID_BYTES;
    default: return 0;
    }
}

static Py_ssize_t smallest_size(const Op *op)
{
    if (op->array)
        return op->compact ? 1 : 4;
    if (op->code == 'T')
        return op->nullable ? 1 : op->layout->smallest;
    return op->size ? op->size : op->compact ? 1 : op->code == 's' ? 2 : 4;
}

/* A field as (slot name, code, is an array, is nullable, tag or -1, layout or None, unsent). Code - is "not in this
 * version". */
static int parse_op(Layout *self, Op *op, PyObject *field)
{
    const char *name;
    int code, array, nullable;
    long long tag;
    PyObject *layout, *unsent;
    if (!PyArg_ParseTuple(field, "sCppLOO", &name, &code, &array, &nullable, &tag, &layout, &unsent))
        return -1;
    PyObject *member = PyObject_GetAttrString((PyObject *)self->type, name);
    if (member == NULL)
        return -1;
    int is_slot = Py_TYPE(member) == &PyMemberDescr_Type && PyDescr_TYPE(member) == self->type &&
        ((PyMemberDescrObject *)member)->d_member->type == T_OBJECT_EX;
    op->slot = is_slot ? ((PyMemberDescrObject *)member)->d_member->offset : 0;
    Py_DECREF(member);
    if (!is_slot) {
        PyErr_Format(PyExc_TypeError, "%s is not a slot of %s", name, self->type->tp_name);
        return -1;
    }
    op->code = (char)code;
    op->array = (char)array;
    op->nullable = (char)nullable;
    op->compact = (char)self->flexible;
    op->size = fixed_size(op->code);
    op->tag = (uint32_t)tag;
    if (strchr("zbhHiqdusyrT-", op->code) == NULL || (op->code == 'T') != Py_IS_TYPE(layout, &Layout_Type)) {
        PyErr_Format(PyExc_ValueError, "%s has the unknown type %c", name, op->code);
        return -1;
    }
    op->layout = op->code == 'T' ? (Layout *)Py_NewRef(layout) : NULL;
    op->unsent = Py_NewRef(unsent);
    if (op->code != '-' && tag < 0)
        self->smallest += smallest_size(op);
    return 0;
}

static PyObject *Layout_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *of;
    PyObject *fields;
    int flexible, sent, tagged;
    if (!PyArg_ParseTuple(args, "O!piiO!", &PyType_Type, &of, &flexible, &sent, &tagged, &PyTuple_Type, &fields))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    if (!PyType_IS_GC(of) || of->tp_itemsize != 0 || of->tp_dictoffset != 0 || sent < 0 || tagged < sent ||
        count < tagged || tagged - sent > 64) {
        PyErr_SetString(PyExc_ValueError, "not the layout of a slotted class");
        return NULL;
    }
    Layout *self = (Layout *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->type = (PyTypeObject *)Py_NewRef(of);
    self->flexible = flexible;
    self->smallest = flexible;
    self->sent = sent;
    self->tagged = tagged;
    self->ops = PyMem_Calloc((size_t)count + 1, sizeof(Op));
    if (self->ops == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        self->count++;
        if (parse_op(self, &self->ops[i], PyTuple_GET_ITEM(fields, i)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static void Layout_dealloc(Layout *self)
{
    for (int i = 0; self->ops && i < self->count; i++) {
        Py_XDECREF(self->ops[i].layout);
        Py_XDECREF(self->ops[i].unsent);
        Py_XDECREF(self->ops[i].last);
    }
    PyMem_Free(self->ops);
    Py_XDECREF(self->type);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject Layout_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.Layout",
    .tp_doc = "One version of one struct.",
    .tp_basicsize = sizeof(Layout),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Layout_new,
    .tp_dealloc = (destructor)Layout_dealloc,
};

/* Reader and Writer --------------------------------------------------------------------------------------------------*/

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Layout *layout;
    PyObject *python;
} Codec;

static PyObject *Reader_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Codec *codec = (Codec *)self;
    if (PyVectorcall_NARGS(nargsf) != 3 || kwnames != NULL || !PyMemoryView_Check(args[0]) ||
        !PyLong_Check(args[1]) || !PyLong_Check(args[2]))
        return PyObject_Vectorcall(codec->python, args, nargsf, kwnames);
    Py_ssize_t pos = PyLong_AsSsize_t(args[1]), end = PyLong_AsSsize_t(args[2]);
    Py_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &buffer, PyBUF_FULL_RO) < 0) {
        PyErr_Clear();
        return PyObject_Vectorcall(codec->python, args, nargsf, kwnames);
    }
    PyObject *message = NULL, *result = NULL;
    In in = {buffer.buf, (const uint8_t *)buffer.buf + pos, (const uint8_t *)buffer.buf + end, args[0]};
    int is_plain = buffer.ndim == 1 && buffer.itemsize == 1 && PyBuffer_IsContiguous(&buffer, 'C') &&
        buffer.format != NULL && buffer.format[0] == 'B';
    if (is_plain && 0 <= pos && pos <= end && end <= buffer.len)
        message = read_struct(&in, codec->layout);
    if (message != NULL) {
        PyObject *position = PyLong_FromSsize_t(in.at - in.begin);
        result = position == NULL ? NULL : PyTuple_Pack(2, message, position);
        Py_XDECREF(position);
        Py_DECREF(message);
    } else if (is_left_to_python()) {
        result = PyObject_Vectorcall(codec->python, args, nargsf, kwnames);
    }
    PyBuffer_Release(&buffer);
    return result;
}

static PyObject *Writer_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Codec *codec = (Codec *)self;
    if (PyVectorcall_NARGS(nargsf) != 2 || kwnames != NULL || !PyList_CheckExact(args[1]))
        return PyObject_Vectorcall(codec->python, args, nargsf, kwnames);
    Out out;
    out.data = out.stack;
    out.used = 0;
    out.room = STACK_BYTES;
    out.chunks = NULL;
    PyObject *result = NULL;
    int written = write_struct(&out, codec->layout, args[0]);
    if (written == 0)
        written = end_chunk(&out);
    if (written == 0) {
        Py_ssize_t count = PyList_GET_SIZE(args[1]);
        if (PyList_SetSlice(args[1], count, count, out.chunks) == 0)
            result = Py_NewRef(Py_None);
    } else if (is_left_to_python()) {
        result = PyObject_Vectorcall(codec->python, args, nargsf, kwnames);
    }
    Py_XDECREF(out.chunks);
    if (out.data != out.stack)
        PyMem_Free(out.data);
    return result;
}

static PyObject *Codec_new(PyTypeObject *type, PyObject *args, vectorcallfunc call)
{
    PyObject *layout, *python;
    if (!PyArg_ParseTuple(args, "O!O", &Layout_Type, &layout, &python))
        return NULL;
    Codec *self = (Codec *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->call = call;
        self->layout = (Layout *)Py_NewRef(layout);
        self->python = Py_NewRef(python);
    }
    return (PyObject *)self;
}

static PyObject *Reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return Codec_new(type, args, Reader_call);
}

static PyObject *Writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return Codec_new(type, args, Writer_call);
}

static void Codec_dealloc(Codec *self)
{
    Py_XDECREF(self->layout);
    Py_XDECREF(self->python);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef Codec_members[] = {
    {"python", T_OBJECT, offsetof(Codec, python), READONLY, "The function that this one is faster than."},
    {NULL},
};

static PyTypeObject Reader_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.Reader",
    .tp_doc = "(buf, pos, end) -> (message, position behind it)",
    .tp_basicsize = sizeof(Codec),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Codec, call),
    .tp_call = PyVectorcall_Call,
    .tp_members = Codec_members,
    .tp_new = Reader_new,
    .tp_dealloc = (destructor)Codec_dealloc,
};

static PyTypeObject Writer_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.Writer",
    .tp_doc = "(message, chunks) -> None",
    .tp_basicsize = sizeof(Codec),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Codec, call),
    .tp_call = PyVectorcall_Call,
    .tp_members = Codec_members,
    .tp_new = Writer_new,
    .tp_dealloc = (destructor)Codec_dealloc,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kpy._native",
    .m_doc = "The generated codecs' layouts, the records of batches, compaction, and sending, in C.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__native(void)
{
    choose_crc();
    PyObject *self = PyModule_Create(&module);
    if (self == NULL || PyModule_AddType(self, &Layout_Type) < 0 || PyModule_AddType(self, &Reader_Type) < 0 ||
        PyModule_AddType(self, &Writer_Type) < 0 || PyModule_AddType(self, &Records_Type) < 0 ||
        PyModule_AddType(self, &OffsetTable_Type) < 0 || add_sender(self) < 0 || add_send_while_alone(self) < 0 ||
        PyModule_AddIntConstant(self, "INTERFACE", KPY_INTERFACE) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    return self;
}
