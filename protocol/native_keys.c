/* What compaction asks of each record, in C: the two loops of kpy/storage/offset_map.py.
 *
 * They know the well-formed case only. Where anything else turns up they return None, and the Python loop does the batch
 * again from its beginning: it alone says what is wrong. That is harmless, since the first loop puts the same offsets
 * into the map again, and the second one changes nothing.
 *
 * The map stays Python's own dict, so its keys and its offsets are objects; what is saved is reading them. */

#include "native.h"

#define NULL_SIZE 1          /* the varint of -1, the size of a value that is null */
#define RECORDS_AT_ONCE 4096 /* how many are looked at, at most, before another thread may run */

typedef struct {
    const uint8_t *start, *end, *key;
    int64_t timestamp_delta, offset_delta, key_size;
    int has_value;
} Keyed;

typedef struct {
    PyObject *offsets;       /* the map: a dict from keys, or what stands for them, to offsets */
    PyObject *digest;        /* called for what stands for a long key */
    Py_ssize_t digest_size;  /* how long a key is, at least, for which something stands */
    PyObject *data;          /* the records, as bytes */
    Py_ssize_t count;
    long long base_offset;
    const uint8_t *at, *end;
} Walk;

static void begin(Walk *walk)
{
    walk->at = (const uint8_t *)PyBytes_AS_STRING(walk->data);
    walk->end = walk->at + PyBytes_GET_SIZE(walk->data);
}

/* The next record; 0 for one that is not well-formed. Its value and its headers are not looked at. */
static int next_record(Walk *walk, Keyed *record)
{
    int64_t size;
    const uint8_t *at = record->start = walk->at;
    if (!read_varint(&at, walk->end, 32, &size) || size < 1 || size > walk->end - at)
        return 0;
    const uint8_t *end = record->end = walk->at = at + size;
    at++; /* The attributes: no bit of them has ever been given a meaning. */
    if (!read_varint(&at, end, 64, &record->timestamp_delta) || !read_varint(&at, end, 32, &record->offset_delta) ||
        !read_varint(&at, end, 32, &record->key_size))
        return 0;
    record->key = at;
    if (record->key_size >= end - at)
        return 0;
    if (record->key_size > 0)
        at += record->key_size;
    if (at == end)
        return 0;
    record->has_value = *at != NULL_SIZE;
    return 1;
}

static void let_others_run(Py_ssize_t index)
{
    if (index % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
}

/* What stands for the record's key in the map. */
static PyObject *mapped_key(const Walk *walk, const Keyed *record)
{
    PyObject *key = PyBytes_FromStringAndSize((const char *)record->key, (Py_ssize_t)record->key_size);
    if (key == NULL || record->key_size < walk->digest_size)
        return key;
    PyObject *digest = PyObject_CallOneArg(walk->digest, key);
    Py_DECREF(key);
    return digest;
}

static int put_key(const Walk *walk, const Keyed *record, int64_t offset)
{
    PyObject *key = mapped_key(walk, record), *value = key == NULL ? NULL : PyLong_FromLongLong(offset);
    int result = value == NULL ? -1 : PyDict_SetItem(walk->offsets, key, value);
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}

static PyObject *put_keys(PyObject *module, PyObject *args)
{
    Walk walk;
    long long first_offset;
    if (!PyArg_ParseTuple(args, "O!OnO!nLL", &PyDict_Type, &walk.offsets, &walk.digest, &walk.digest_size,
                          &PyBytes_Type, &walk.data, &walk.count, &walk.base_offset, &first_offset))
        return NULL;
    begin(&walk);
    Keyed record;
    int64_t offset;
    for (Py_ssize_t i = 0; i < walk.count; i++) {
        if (!next_record(&walk, &record) || __builtin_add_overflow(walk.base_offset, record.offset_delta, &offset))
            Py_RETURN_NONE;
        if (record.key_size >= 0 && offset >= first_offset && put_key(&walk, &record, offset) < 0) {
            if (!is_left_to_python())
                return NULL;
            Py_RETURN_NONE;
        }
        let_others_run(i);
    }
    if (walk.at != walk.end)
        Py_RETURN_NONE;
    Py_RETURN_TRUE;
}

/* Whether the map has a later offset for the record's key; -1 for what is left to Python. */
static int is_superseded(const Walk *walk, const Keyed *record, int64_t offset)
{
    PyObject *key = mapped_key(walk, record);
    if (key == NULL)
        return -1;
    PyObject *found = PyDict_GetItemWithError(walk->offsets, key);
    Py_DECREF(key);
    if (found == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int overflow;
    int64_t latest = PyLong_AsLongLongAndOverflow(found, &overflow);
    return overflow || (latest == -1 && PyErr_Occurred()) ? -1 : offset < latest;
}

/* What stays so far: from `run` on everything does, and what lies before it has been copied. */
typedef struct {
    PyObject *copy;          /* bytes, or NULL as long as everything has stayed */
    Py_ssize_t used;
    const uint8_t *run;
    Py_ssize_t count;
    int64_t newest_delta;
    int have_values;
} Staying;

/* Copies the run of records that ends here. */
static int end_run(Staying *staying, const Walk *walk, const uint8_t *end)
{
    if (staying->copy == NULL && (staying->copy = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(walk->data))) == NULL)
        return -1;
    memcpy(PyBytes_AS_STRING(staying->copy) + staying->used, staying->run, (size_t)(end - staying->run));
    staying->used += end - staying->run;
    return 0;
}

/* One record is judged; -1 for what is left to Python. */
static int judge(Staying *staying, Walk *walk, const Keyed *record, int64_t latest_offset, int without_tombstones)
{
    int64_t offset;
    if (__builtin_add_overflow(walk->base_offset, record->offset_delta, &offset))
        return -1;
    if (offset <= latest_offset) {
        int goes = record->key_size < 0 || (without_tombstones && !record->has_value)
            ? 1 : is_superseded(walk, record, offset);
        if (goes < 0)
            return -1;
        if (goes) {
            int result = end_run(staying, walk, record->start);
            staying->run = record->end;
            return result;
        }
    }
    if (staying->count == 0 || record->timestamp_delta > staying->newest_delta)
        staying->newest_delta = record->timestamp_delta;
    staying->count++;
    staying->have_values &= record->has_value;
    return 0;
}

static PyObject *staying_records(PyObject *module, PyObject *args)
{
    Walk walk;
    long long latest_offset;
    int without_tombstones;
    if (!PyArg_ParseTuple(args, "O!OnO!nLLp", &PyDict_Type, &walk.offsets, &walk.digest, &walk.digest_size,
                          &PyBytes_Type, &walk.data, &walk.count, &walk.base_offset, &latest_offset,
                          &without_tombstones))
        return NULL;
    begin(&walk);
    Staying staying = {.run = walk.at, .have_values = 1};
    Keyed record;
    for (Py_ssize_t i = 0; i < walk.count; i++) {
        if (!next_record(&walk, &record) || judge(&staying, &walk, &record, latest_offset, without_tombstones) < 0)
            goto left;
        let_others_run(i);
    }
    if (walk.at != walk.end)
        goto left;
    if (staying.copy == NULL)
        staying.copy = Py_NewRef(walk.data);
    else if (end_run(&staying, &walk, walk.end) < 0 || _PyBytes_Resize(&staying.copy, staying.used) < 0)
        goto left;
    return Py_BuildValue("nLNN", staying.count, (long long)staying.newest_delta,
                         PyBool_FromLong(staying.have_values), staying.copy);
left:
    Py_XDECREF(staying.copy);
    if (!is_left_to_python())
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef compaction_functions[] = {
    {"put_keys", put_keys, METH_VARARGS,
     "(offsets, digest, digest size, data, count, base offset, first offset) -> True, or None for what is left to Python"},
    {"staying_records", staying_records, METH_VARARGS,
     "(offsets, digest, digest size, data, count, base offset, latest offset, without tombstones) -> (count, newest "
     "timestamp delta, whether all have values, their bytes), or None for what is left to Python"},
    {NULL},
};
