/* Reads the records of a batch, in C: what _read_records of kpy/records/batch.py does, one record at a time.
 *
 * As with messages, this knows the well-formed case only. At the first record that is anything else, and at the end if
 * bytes are left over, the Python function goes on from there: it alone says what is wrong. Compaction (native_offset_map.c)
 * reads less of a record, by the same varints. */

#include "native.h"

#define RECORD_FIELDS 5 /* offset, timestamp, key, value, headers */

typedef struct {
    PyObject_HEAD
    PyObject *data;          /* bytes */
    const uint8_t *at, *end;
    Py_ssize_t index, count;
    int64_t base_offset, base_timestamp;
    PyObject *timestamp;     /* of every record, or NULL if each has its own */
    PyTypeObject *record;    /* a tuple with names */
    PyObject *python;        /* (data, header, position, index) -> iterator over the rest */
    PyObject *header;
    PyObject *rest;          /* that iterator, once it is needed */
    PyObject *no_headers;    /* an empty tuple */
} Records;

/* Bytes behind their size, of which any below zero is null. */
static PyObject *read_content(const uint8_t **at, const uint8_t *end)
{
    int64_t size;
    if (!read_varint(at, end, 32, &size) || size > end - *at)
        return NULL;
    if (size < 0)
        Py_RETURN_NONE;
    const char *p = (const char *)*at;
    *at += size;
    return PyBytes_FromStringAndSize(p, (Py_ssize_t)size);
}

static PyObject *read_header(const uint8_t **at, const uint8_t *end)
{
    int64_t size;
    if (!read_varint(at, end, 32, &size) || size < 0 || size > end - *at)
        return NULL;
    /* Bytes that are not UTF-8 come through a rebuilt batch unchanged. */
    PyObject *key = PyUnicode_DecodeUTF8((const char *)*at, (Py_ssize_t)size, "surrogateescape");
    *at += size;
    PyObject *value = key == NULL ? NULL : read_content(at, end);
    PyObject *header = value == NULL ? NULL : PyTuple_Pack(2, key, value);
    Py_XDECREF(key);
    Py_XDECREF(value);
    return header;
}

static PyObject *read_headers(Records *self, const uint8_t **at, const uint8_t *end)
{
    int64_t count;
    /* A header takes two bytes at least. */
    if (!read_varint(at, end, 32, &count) || count < 0 || count > (end - *at) / 2)
        return NULL;
    if (count == 0)
        return Py_NewRef(self->no_headers);
    PyObject *headers = PyTuple_New((Py_ssize_t)count);
    for (int64_t i = 0; headers != NULL && i < count; i++) {
        PyObject *header = read_header(at, end);
        if (header == NULL)
            Py_CLEAR(headers);
        else
            PyTuple_SET_ITEM(headers, (Py_ssize_t)i, header);
    }
    return headers;
}

/* The next record, or NULL for what is left to Python, perhaps with an exception. `at` then stays where it was. */
static PyObject *read_record(Records *self)
{
    const uint8_t *at = self->at;
    int64_t size, timestamp_delta, offset_delta, offset;
    if (!read_varint(&at, self->end, 32, &size) || size < 1 || size > self->end - at)
        return NULL;
    const uint8_t *end = at + size;
    at++; /* The attributes: no bit of them has ever been given a meaning. */
    if (!read_varint(&at, end, 64, &timestamp_delta) || !read_varint(&at, end, 32, &offset_delta) ||
        __builtin_add_overflow(self->base_offset, offset_delta, &offset))
        return NULL;
    PyObject *record = self->record->tp_alloc(self->record, RECORD_FIELDS);
    if (record == NULL)
        return NULL;
    /* It holds nothing that could lead back to it. */
    PyObject_GC_UnTrack(record);
#if PY_VERSION_HEX >= 0x030e0000
    /* Where a tuple remembers its hash, the zero of fresh memory would be taken for it. */
    ((PyTupleObject *)record)->ob_hash = -1;
#endif
    /* With deltas that wrap, any two timestamps fit in one batch. */
    int64_t timestamp = (int64_t)((uint64_t)self->base_timestamp + (uint64_t)timestamp_delta);
    PyObject *fields[RECORD_FIELDS] = {NULL};
    if ((fields[0] = PyLong_FromLongLong(offset)) != NULL &&
        (fields[1] = self->timestamp ? Py_NewRef(self->timestamp) : PyLong_FromLongLong(timestamp)) != NULL &&
        (fields[2] = read_content(&at, end)) != NULL && (fields[3] = read_content(&at, end)) != NULL)
        fields[4] = read_headers(self, &at, end);
    for (int i = 0; i < RECORD_FIELDS; i++)
        PyTuple_SET_ITEM(record, i, fields[i]);
    if (fields[4] == NULL || at != end) {
        Py_DECREF(record);
        return NULL;
    }
    self->at = end;
    self->index++;
    return record;
}

static PyObject *Records_next(Records *self)
{
    if (self->rest == NULL) {
        if (self->index == self->count && self->at == self->end)
            return NULL;
        PyObject *record = self->index < self->count ? read_record(self) : NULL;
        if (record != NULL)
            return record;
        if (!is_left_to_python())
            return NULL;
        Py_ssize_t position = (const char *)self->at - PyBytes_AS_STRING(self->data);
        self->rest = PyObject_CallFunction(self->python, "OOnn", self->data, self->header, position, self->index);
        if (self->rest == NULL)
            return NULL;
    }
    return PyIter_Check(self->rest) ? PyIter_Next(self->rest) : NULL;
}

static PyObject *Records_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *data, *header, *timestamp, *python;
    PyTypeObject *record;
    Py_ssize_t count;
    long long base_offset, base_timestamp;
    if (!PyArg_ParseTuple(args, "O!OnLLOO!O", &PyBytes_Type, &data, &header, &count, &base_offset, &base_timestamp,
                          &timestamp, &PyType_Type, &record, &python))
        return NULL;
    if (!PyType_IsSubtype(record, &PyTuple_Type) || record->tp_basicsize != PyTuple_Type.tp_basicsize ||
        record->tp_itemsize != PyTuple_Type.tp_itemsize) {
        PyErr_SetString(PyExc_TypeError, "records are tuples");
        return NULL;
    }
    Records *self = (Records *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->data = Py_NewRef(data);
    self->at = (const uint8_t *)PyBytes_AS_STRING(data);
    self->end = self->at + PyBytes_GET_SIZE(data);
    self->count = count;
    self->base_offset = base_offset;
    self->base_timestamp = base_timestamp;
    self->timestamp = timestamp == Py_None ? NULL : Py_NewRef(timestamp);
    self->record = (PyTypeObject *)Py_NewRef(record);
    self->python = Py_NewRef(python);
    self->header = Py_NewRef(header);
    if ((self->no_headers = PyTuple_New(0)) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void Records_dealloc(Records *self)
{
    Py_XDECREF(self->data);
    Py_XDECREF(self->timestamp);
    Py_XDECREF(self->record);
    Py_XDECREF(self->python);
    Py_XDECREF(self->header);
    Py_XDECREF(self->rest);
    Py_XDECREF(self->no_headers);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject Records_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.Records",
    .tp_doc = "(data, header, count, base offset, base timestamp, timestamp or None, record type, python) -> iterator",
    .tp_basicsize = sizeof(Records),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Records_new,
    .tp_dealloc = (destructor)Records_dealloc,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)Records_next,
};
