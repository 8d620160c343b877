/* The last offset of each key in the dirty part of a log: what kpy/storage/offset_map.py keeps in a dict, as one flat
 * table (Kafka class SkimpyOffsetMap).
 *
 * A slot has 24 bytes: 128 bits that stand for the key, and the offset. Keys themselves are not kept, so two of the same
 * hash would be one, and records be lost. With 128 bits that takes 2^64 keys by chance; and because SipHash has a key of
 * its own for each table, nobody can choose keys that meet.
 *
 * Slots are probed linearly from the one that the hash, as a fraction, points to. The table begins small and grows by
 * GROWTH, and old and new one together never have more than the buffer, so that it may have 4/5 of it in the end.
 *
 * As everywhere, C knows the well-formed case only. Where anything else turns up it returns None, and Python says what is
 * wrong. What has been put into the table by then does no harm: a round that meets malformed records is given up. */

#include "native_offset_map.h"

#define GROWTH 4
#define FIRST_SLOTS 4096     /* a table begins with no more */
#define MOST_SLOTS UINT32_MAX
#define NULL_SIZE 1          /* the varint of -1, the size of a value that is null */
#define AHEAD 16             /* so many records are read before the first is looked up, while memory fetches the slots */

typedef struct {
    const uint8_t *start, *end, *key;
    int64_t timestamp_delta, offset, key_size;
    int has_value;
    uint64_t hash[2];
} Keyed;

/* SipHash-2-4 with 128 bits (Aumasson and Bernstein) ------------------------------------------------------------------ */

#define ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = ROTATE(v[1], 13); v[1] ^= v[0]; v[0] = ROTATE(v[0], 32);
    v[2] += v[3]; v[3] = ROTATE(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = ROTATE(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = ROTATE(v[1], 17); v[1] ^= v[2]; v[2] = ROTATE(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

static inline uint64_t sip_end(uint64_t v[4])
{
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Words are read as the machine has them: the hash never leaves this process. */
static void siphash(const uint64_t key[2], const uint8_t *at, size_t size, uint64_t hash[2])
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d ^ 0xee,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    uint64_t word;
    size_t left = size;
    for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        sip_word(v, word);
    }
    word = (uint64_t)size << 56;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)at[i] << (8 * i);
    sip_word(v, word);
    v[2] ^= 0xee;
    hash[0] = sip_end(v);
    v[1] ^= 0xdd;
    hash[1] = sip_end(v);
    if (hash[0] == 0 && hash[1] == 0)
        hash[1] = 1;
}

/* The table ----------------------------------------------------------------------------------------------------------- */

static inline int is_empty(const Entry *entry) { return entry->hash[0] == 0 && entry->hash[1] == 0; }

static inline Entry *home(const OffsetTable *table, const uint64_t hash[2])
{
    return table->entries + (size_t)(((hash[0] >> 32) * table->slots) >> 32);
}

/* The entry of this hash, or the empty one where it belongs. */
static inline Entry *find(const OffsetTable *table, const uint64_t hash[2])
{
    const Entry *end = table->entries + table->slots;
    for (Entry *entry = home(table, hash);;) {
        if ((entry->hash[0] == hash[0] && entry->hash[1] == hash[1]) || is_empty(entry))
            return entry;
        if (++entry == end)
            entry = table->entries;
    }
}

/* How many entries so many slots may hold: one at least, and never all of them, so that each search ends. */
static size_t room_in(const OffsetTable *table, size_t slots)
{
    size_t room = (size_t)((double)slots * table->load_factor);
    return room < 1 ? 1 : room >= slots ? slots - 1 : room;
}

/* 0, or -1 where there is no memory, and the table is as it was. */
static int resize(OffsetTable *table, size_t slots)
{
    Entry *old = table->entries, *old_end = old + table->slots;
    Entry *entries = PyMem_RawCalloc(slots, sizeof *entries);
    if (entries == NULL)
        return -1;
    table->entries = entries;
    table->slots = slots;
    table->room = room_in(table, slots);
    for (Entry *entry = old; entry < old_end; entry++)
        if (!is_empty(entry))
            *find(table, entry->hash) = *entry;
    PyMem_RawFree(old);
    return 0;
}

static int put(OffsetTable *table, const Keyed *record)
{
    Entry *entry = find(table, record->hash);
    if (is_empty(entry)) {
        if (table->used == table->room) {
            if (table->steps == 0)
                return FULL;
            size_t slots = table->most_slots;
            for (int i = 1; i < table->steps; i++)
                slots /= GROWTH;
            if (resize(table, slots) < 0)
                return FULL;
            table->steps--;
            entry = find(table, record->hash);
        }
        table->used++;
        memcpy(entry->hash, record->hash, sizeof entry->hash);
    }
    entry->offset = record->offset;
    return DONE;
}

/* Records ------------------------------------------------------------------------------------------------------------- */

/* The next record; 0 for one that is not well-formed. Its value and its headers are not looked at. */
static inline int read_keyed(Walk *walk, Keyed *record)
{
    int64_t size, offset_delta;
    const uint8_t *at = record->start = walk->at;
    if (!read_varint(&at, walk->end, 32, &size) || size < 1 || size > walk->end - at)
        return 0;
    const uint8_t *end = record->end = walk->at = at + size;
    at++; /* The attributes: no bit of them has ever been given a meaning. */
    if (!read_varint(&at, end, 64, &record->timestamp_delta) || !read_varint(&at, end, 32, &offset_delta) ||
        !read_varint(&at, end, 32, &record->key_size) ||
        __builtin_add_overflow(walk->base_offset, offset_delta, &record->offset))
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

/* Up to AHEAD of them, hashed; how many, or MALFORMED. What is left after the last one is malformed too. */
static int read_some(const OffsetTable *table, Walk *walk, Keyed *some)
{
    int count = 0;
    for (; count < AHEAD && walk->count > 0; count++, walk->count--) {
        Keyed *record = some + count;
        if (!read_keyed(walk, record))
            return MALFORMED;
        if (record->key_size >= 0) {
            siphash(table->key, record->key, (size_t)record->key_size, record->hash);
            __builtin_prefetch(home(table, record->hash));
        }
    }
    return walk->count <= 0 && walk->at != walk->end ? MALFORMED : count;
}

int put_records(OffsetTable *table, Walk walk, int64_t first_offset, int64_t *refused)
{
    Keyed some[AHEAD];
    int count;
    while ((count = read_some(table, &walk, some)) > 0)
        for (int i = 0; i < count; i++)
            if (some[i].key_size >= 0 && some[i].offset >= first_offset && put(table, some + i) == FULL) {
                *refused = some[i].offset;
                return FULL;
            }
    return count;
}

/* Writes the run of records that ends here. */
static void end_run(Staying *staying, const uint8_t *end)
{
    memcpy(staying->out + staying->used, staying->run, (size_t)(end - staying->run));
    staying->used += (size_t)(end - staying->run);
}

static int goes(const OffsetTable *table, const Keyed *record, int64_t latest_offset, int without_tombstones)
{
    if (record->offset > latest_offset)
        return 0;
    if (record->key_size < 0 || (without_tombstones && !record->has_value))
        return 1;
    const Entry *entry = find(table, record->hash);
    return !is_empty(entry) && record->offset < entry->offset;
}

int keep_records(const OffsetTable *table, Walk walk, int64_t latest_offset, int without_tombstones,
                 Staying *staying)
{
    Keyed some[AHEAD];
    int count;
    staying->run = walk.at;
    staying->used = 0;
    staying->count = staying->newest_delta = 0;
    staying->have_values = 1;
    while ((count = read_some(table, &walk, some)) > 0)
        for (Keyed *record = some; record < some + count; record++) {
            if (goes(table, record, latest_offset, without_tombstones)) {
                end_run(staying, record->start);
                staying->run = record->end;
                continue;
            }
            if (staying->count == 0 || record->timestamp_delta > staying->newest_delta)
                staying->newest_delta = record->timestamp_delta;
            staying->count++;
            staying->have_values &= record->has_value;
        }
    end_run(staying, walk.at);
    return count;
}

/* To Python ----------------------------------------------------------------------------------------------------------- */

int begin_work(OffsetTable *table)
{
    if (table->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this table");
        return -1;
    }
    table->is_busy = 1;
    return 0;
}

static PyObject *OffsetTable_put(OffsetTable *table, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t count;
    long long base_offset, first_offset;
    if (!PyArg_ParseTuple(args, "y*nLL", &data, &count, &base_offset, &first_offset))
        return NULL;
    if (begin_work(table) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    const uint8_t *at = data.buf;
    Walk walk = {.at = at, .end = at + data.len, .count = count, .base_offset = base_offset};
    int64_t refused = INT64_MAX;
    PyThreadState *state = data.len < RELEASE_BYTES ? NULL : PyEval_SaveThread();
    int result = put_records(table, walk, first_offset, &refused);
    if (state != NULL)
        PyEval_RestoreThread(state);
    table->is_busy = 0;
    PyBuffer_Release(&data);
    if (result == MALFORMED)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(refused);
}

static PyObject *OffsetTable_staying(OffsetTable *table, PyObject *args)
{
    PyObject *data;
    Py_ssize_t count;
    long long base_offset, latest_offset;
    int without_tombstones;
    if (!PyArg_ParseTuple(args, "SnLLp", &data, &count, &base_offset, &latest_offset, &without_tombstones))
        return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, size);
    if (copy == NULL)
        return NULL;
    if (begin_work(table) < 0) {
        Py_DECREF(copy);
        return NULL;
    }
    const uint8_t *at = (const uint8_t *)PyBytes_AS_STRING(data);
    Walk walk = {.at = at, .end = at + size, .count = count, .base_offset = base_offset};
    Staying staying = {.out = (uint8_t *)PyBytes_AS_STRING(copy)};
    PyThreadState *state = size < RELEASE_BYTES ? NULL : PyEval_SaveThread();
    int result = keep_records(table, walk, latest_offset, without_tombstones, &staying);
    if (state != NULL)
        PyEval_RestoreThread(state);
    table->is_busy = 0;
    if (result == MALFORMED) {
        Py_DECREF(copy);
        Py_RETURN_NONE;
    }
    if ((Py_ssize_t)staying.used == size)
        Py_SETREF(copy, Py_NewRef(data));
    else if (_PyBytes_Resize(&copy, (Py_ssize_t)staying.used) < 0)
        return NULL;
    return Py_BuildValue("LLNN", (long long)staying.count, (long long)staying.newest_delta,
                         PyBool_FromLong(staying.have_values), copy);
}

static PyObject *OffsetTable_hash(OffsetTable *table, PyObject *key)
{
    uint64_t hash[2];
    if (!PyBytes_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "a key is bytes");
        return NULL;
    }
    siphash(table->key, (const uint8_t *)PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key), hash);
    return PyBytes_FromStringAndSize((const char *)hash, sizeof hash);
}

static Py_ssize_t OffsetTable_length(OffsetTable *table) { return (Py_ssize_t)table->used; }

static PyObject *OffsetTable_max_entries(OffsetTable *table, void *closure)
{
    return PyLong_FromSize_t(room_in(table, table->most_slots));
}

static PyObject *OffsetTable_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Py_ssize_t buffer_bytes;
    double load_factor;
    const char *key;
    Py_ssize_t key_size;
    if (!PyArg_ParseTuple(args, "ndy#", &buffer_bytes, &load_factor, &key, &key_size))
        return NULL;
    OffsetTable *table = (OffsetTable *)type->tp_alloc(type, 0);
    if (table == NULL)
        return NULL;
    if (key_size != sizeof table->key || !(load_factor > 0)) {
        Py_DECREF(table);
        PyErr_SetString(PyExc_ValueError, "the key has 16 bytes, and the load factor is above 0");
        return NULL;
    }
    memcpy(table->key, key, sizeof table->key);
    table->load_factor = load_factor < 1 ? load_factor : 1;
    size_t slots = buffer_bytes < 0 ? 0 : (size_t)buffer_bytes / sizeof(Entry);
    if (slots > FIRST_SLOTS)
        slots = slots / (GROWTH + 1) * GROWTH;
    slots = slots < 2 ? 2 : slots > MOST_SLOTS ? MOST_SLOTS : slots;
    for (table->most_slots = slots; slots > FIRST_SLOTS; slots /= GROWTH)
        table->steps++;
    if (resize(table, slots) < 0) {
        Py_DECREF(table);
        return PyErr_NoMemory();
    }
    return (PyObject *)table;
}

static void OffsetTable_dealloc(OffsetTable *table)
{
    PyMem_RawFree(table->entries);
    Py_TYPE(table)->tp_free(table);
}

static PyMethodDef OffsetTable_methods[] = {
    {"put", (PyCFunction)OffsetTable_put, METH_VARARGS,
     "(data, count, base offset, first offset) -> the offset that found no room, or 2^63 - 1; None for what is malformed"},
    {"staying", (PyCFunction)OffsetTable_staying, METH_VARARGS,
     "(data, count, base offset, latest offset, without tombstones) -> (count, newest timestamp delta, whether all have "
     "values, their bytes), or None for what is malformed"},
    {"hash", (PyCFunction)OffsetTable_hash, METH_O, "What stands for this key, for tests."},
    {"put_batches", (PyCFunction)put_batches, METH_VARARGS,
     "(batches, next offset, first offset) -> (bytes, next offset)"},
    {"keep_batches", (PyCFunction)keep_batches, METH_VARARGS,
     "(batches, next offset, latest offset, until offset, now, index interval) -> (bytes, next offset, records read, "
     "records kept, what stays, [(size, last offset, max timestamp, its offset)])"},
    {NULL},
};

static PyGetSetDef OffsetTable_attributes[] = {
    {"max_entries", (getter)OffsetTable_max_entries, NULL, "How many keys it has room for."},
    {NULL},
};

static PySequenceMethods OffsetTable_sequence = {.sq_length = (lenfunc)OffsetTable_length};

PyTypeObject OffsetTable_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "kpy._native.OffsetTable",
    .tp_doc = "(buffer bytes, load factor, key of 16 bytes)",
    .tp_basicsize = sizeof(OffsetTable),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = OffsetTable_new,
    .tp_dealloc = (destructor)OffsetTable_dealloc,
    .tp_methods = OffsetTable_methods,
    .tp_getset = OffsetTable_attributes,
    .tp_as_sequence = &OffsetTable_sequence,
};
