/* Compaction of whole runs of batches at once, with the GIL released: what kpy/storage/cleaner.py does with each batch.
 *
 * A run ends at the first batch that is not plain: compressed, transactional, a marker, empty, or odd in any way. That
 * one is left to Python, which can do all of them and says what is wrong, and then the next run begins. */

#include "native_offset_map.h"

#define HEADER_SIZE 61
#define LOG_OVERHEAD 12      /* the bytes that batch_length does not count */
#define MAGIC 2
#define NOT_PLAIN (0x07 | 0x10 | 0x20) /* codec, transactional, control */
#define LOG_APPEND_TIME 0x08
#define DELETE_HORIZON 0x40
#define NO_TIMESTAMP (-1)

/* Where the fields of a batch header are; see kpy/records/batch.py. */
enum { LENGTH = 8, MAGIC_AT = 16, CRC = 17, ATTRIBUTES = 21, LAST_DELTA = 23, BASE_TIMESTAMP = 27, MAX_TIMESTAMP = 35,
       RECORDS_COUNT = 57 };

typedef struct {
    const uint8_t *start, *end;
    int64_t base_offset, last_offset, base_timestamp, max_timestamp;
    int32_t records_count;
    uint16_t attributes;
} Batch;

/* Batches behind one another. */
typedef struct {
    const uint8_t *at, *end;
    int64_t next_offset;     /* the least that the next batch may begin at */
} Run;

static inline uint64_t load(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static inline void store(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8)
        at[i] = (uint8_t)value;
}

/* CRC-32C -------------------------------------------------------------------------------------------------------------- */

static uint32_t crc_table[8][256];

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
        crc_table[0][i] = crc;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++)
            crc_table[t][i] = crc_table[t - 1][i] >> 8 ^ crc_table[0][crc_table[t - 1][i] & 0xff];
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *at, size_t size)
{
    for (; size >= 8; size -= 8, at += 8) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = crc_table[7][crc & 0xff] ^ crc_table[6][crc >> 8 & 0xff] ^ crc_table[5][crc >> 16 & 0xff] ^
              crc_table[4][crc >> 24] ^ crc_table[3][at[4]] ^ crc_table[2][at[5]] ^ crc_table[1][at[6]] ^
              crc_table[0][at[7]];
    }
    for (; size > 0; size--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *at++) & 0xff];
    return crc;
}

#if defined(__x86_64__) && !defined(KPY_PORTABLE)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *at, size_t size)
{
    uint64_t wide = crc, word;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    for (crc = (uint32_t)wide; size > 0; size--)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}
#endif

static uint32_t (*update_crc)(uint32_t, const uint8_t *, size_t);

void choose_crc(void)
{
    fill_crc_table();
    update_crc = crc_by_table;
#if defined(__x86_64__) && !defined(KPY_PORTABLE)
    if (__builtin_cpu_supports("sse4.2"))
        update_crc = crc_by_instruction;
#endif
}

static uint32_t crc32c(const uint8_t *at, const uint8_t *end) { return ~update_crc(~0u, at, (size_t)(end - at)); }

/* Walking --------------------------------------------------------------------------------------------------------------- */

/* Whether a gap in front of a batch may be compaction's doing: the batch behind it must not lie in it, nor in the batch
 * (may_leave_gap of kpy/storage/scan.py). Not where that one is out of sight. */
static int may_leave_gap(const Run *run, const Batch *batch)
{
    if (run->end - batch->end < HEADER_SIZE)
        return 0;
    int64_t following = (int64_t)load(batch->end, 8);
    return following < run->next_offset || following > batch->last_offset;
}

/* The next one, if it is plain; `run` stays where it is. */
static int read_batch(const Run *run, Batch *batch)
{
    const uint8_t *at = batch->start = run->at;
    if (run->end - at < HEADER_SIZE || at[MAGIC_AT] != MAGIC)
        return 0;
    int32_t length = (int32_t)load(at + LENGTH, 4), last_delta = (int32_t)load(at + LAST_DELTA, 4);
    if (length < HEADER_SIZE - LOG_OVERHEAD || length > run->end - at - LOG_OVERHEAD)
        return 0;
    batch->end = at + LOG_OVERHEAD + length;
    batch->attributes = (uint16_t)load(at + ATTRIBUTES, 2);
    batch->base_offset = (int64_t)load(at, 8);
    batch->base_timestamp = (int64_t)load(at + BASE_TIMESTAMP, 8);
    batch->max_timestamp = (int64_t)load(at + MAX_TIMESTAMP, 8);
    batch->records_count = (int32_t)load(at + RECORDS_COUNT, 4);
    if (batch->attributes & NOT_PLAIN || batch->records_count <= 0 || last_delta < 0 ||
        batch->base_offset < run->next_offset || batch->base_offset > INT64_MAX - 1 - last_delta)
        return 0;
    batch->last_offset = batch->base_offset + last_delta;
    return batch->base_offset == run->next_offset || may_leave_gap(run, batch);
}

static void go_behind(Run *run, const Batch *batch)
{
    run->at = batch->end;
    run->next_offset = batch->last_offset + 1;
}

static Walk records_of(const Batch *batch)
{
    return (Walk){.at = batch->start + HEADER_SIZE, .end = batch->end, .count = batch->records_count,
                  .base_offset = batch->base_offset};
}

/* Putting --------------------------------------------------------------------------------------------------------------- */

PyObject *put_batches(OffsetTable *table, PyObject *args)
{
    Py_buffer data;
    long long next_offset, first_offset;
    if (!PyArg_ParseTuple(args, "y*LL", &data, &next_offset, &first_offset))
        return NULL;
    if (begin_work(table) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    const uint8_t *start = data.buf;
    Run run = {.at = start, .end = start + data.len, .next_offset = next_offset};
    Batch batch;
    int64_t refused;
    if (read_batch(&run, &batch)) {
        Py_BEGIN_ALLOW_THREADS
        while (put_records(table, records_of(&batch), first_offset, &refused) == DONE) {
            go_behind(&run, &batch);
            if (!read_batch(&run, &batch))
                break;
        }
        Py_END_ALLOW_THREADS
    }
    table->is_busy = 0;
    PyBuffer_Release(&data);
    return Py_BuildValue("nL", (Py_ssize_t)(run.at - start), (long long)run.next_offset);
}

/* Keeping --------------------------------------------------------------------------------------------------------------- */

/* Neighbours that stay, for one entry of the indexes. */
typedef struct {
    int64_t size, last_offset, max_timestamp, max_timestamp_offset;
} Stretch;

typedef struct {
    int64_t latest_offset, until_offset, now_ms, index_interval;
    uint8_t *out;
    size_t used;
    int64_t read, kept;      /* records */
    Stretch *stretches;
    size_t count, room;
} Keeping;

/* 0 where there is no memory. */
static int account(Keeping *keeping, int64_t size, int64_t last_offset, int64_t max_timestamp)
{
    Stretch *last = keeping->count == 0 ? NULL : keeping->stretches + (keeping->count - 1);
    if (last == NULL || last->size > keeping->index_interval) {
        if (keeping->count == keeping->room) {
            size_t room = keeping->room ? 2 * keeping->room : 64;
            Stretch *stretches = PyMem_RawRealloc(keeping->stretches, room * sizeof *stretches);
            if (stretches == NULL)
                return 0;
            keeping->stretches = stretches;
            keeping->room = room;
        }
        last = keeping->stretches + keeping->count++;
        *last = (Stretch){.max_timestamp = max_timestamp, .max_timestamp_offset = last_offset};
    }
    last->size += size;
    last->last_offset = last_offset;
    if (max_timestamp > last->max_timestamp) {
        last->max_timestamp = max_timestamp;
        last->max_timestamp_offset = last_offset;
    }
    return 1;
}

/* The header of what stays of a batch; 0 for what is left to Python. */
static int write_header(const Batch *batch, const Staying *staying, uint8_t *header, int64_t *max_timestamp)
{
    memcpy(header, batch->start, HEADER_SIZE);
    *max_timestamp = batch->max_timestamp;
    if (!(batch->attributes & LOG_APPEND_TIME)) {
        int64_t newest;
        if (__builtin_add_overflow(batch->base_timestamp, staying->newest_delta, &newest))
            return 0;
        if (newest < *max_timestamp)
            *max_timestamp = newest;
        if (*max_timestamp < NO_TIMESTAMP)
            *max_timestamp = NO_TIMESTAMP;
    }
    store(header + LENGTH, HEADER_SIZE - LOG_OVERHEAD + staying->used, 4);
    store(header + MAX_TIMESTAMP, (uint64_t)*max_timestamp, 8);
    store(header + RECORDS_COUNT, (uint64_t)staying->count, 4);
    store(header + CRC, crc32c(header + ATTRIBUTES, header + HEADER_SIZE + staying->used), 4);
    return 1;
}

/* One batch is written without the records that go; 0 for what is left to Python. Where all go, nothing is written: what
 * must stay without records ends at until_offset or behind it. */
static int keep_batch(const OffsetTable *table, Keeping *keeping, const Batch *batch)
{
    if (batch->last_offset >= keeping->until_offset || load(batch->start + CRC, 4) != crc32c(batch->start + ATTRIBUTES, batch->end))
        return 0;
    int has_horizon = (batch->attributes & DELETE_HORIZON) != 0;
    int without_tombstones = has_horizon && batch->base_timestamp <= keeping->now_ms;
    uint8_t *out = keeping->out + keeping->used;
    Staying staying = {.out = out + HEADER_SIZE};
    if (keep_records(table, records_of(batch), keeping->latest_offset, without_tombstones, &staying) == MALFORMED)
        return 0;
    int64_t max_timestamp = batch->max_timestamp;
    if (staying.count > 0) {
        /* Tombstones get a horizon first, and with it other timestamps. */
        if (!staying.have_values && !has_horizon)
            return 0;
        if (staying.count == batch->records_count)
            memcpy(out, batch->start, HEADER_SIZE);
        else if (!write_header(batch, &staying, out, &max_timestamp))
            return 0;
        size_t size = HEADER_SIZE + staying.used;
        if (!account(keeping, (int64_t)size, batch->last_offset, max_timestamp))
            return 0;
        keeping->used += size;
    }
    keeping->read += batch->records_count;
    keeping->kept += staying.count;
    return 1;
}

static PyObject *list_of(const Keeping *keeping)
{
    PyObject *list = PyList_New((Py_ssize_t)keeping->count);
    for (size_t i = 0; list != NULL && i < keeping->count; i++) {
        const Stretch *each = keeping->stretches + i;
        PyObject *item = Py_BuildValue("LLLL", (long long)each->size, (long long)each->last_offset,
                                       (long long)each->max_timestamp, (long long)each->max_timestamp_offset);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

PyObject *keep_batches(OffsetTable *table, PyObject *args)
{
    Py_buffer data;
    long long next_offset, latest_offset, until_offset, now_ms, index_interval;
    if (!PyArg_ParseTuple(args, "y*LLLLL", &data, &next_offset, &latest_offset, &until_offset, &now_ms, &index_interval))
        return NULL;
    const uint8_t *start = data.buf;
    Run run = {.at = start, .end = start + data.len, .next_offset = next_offset};
    Batch batch;
    int is_plain = read_batch(&run, &batch);
    /* What stays is never larger than what was there. */
    PyObject *out = PyBytes_FromStringAndSize(NULL, is_plain ? data.len : 0), *result = NULL;
    if (out == NULL || begin_work(table) < 0)
        goto done;
    Keeping keeping = {.latest_offset = latest_offset, .until_offset = until_offset, .now_ms = now_ms,
                       .index_interval = index_interval, .out = (uint8_t *)PyBytes_AS_STRING(out)};
    if (is_plain) {
        Py_BEGIN_ALLOW_THREADS
        while (keep_batch(table, &keeping, &batch)) {
            go_behind(&run, &batch);
            if (!read_batch(&run, &batch))
                break;
        }
        Py_END_ALLOW_THREADS
    }
    table->is_busy = 0;
    PyObject *stretches = list_of(&keeping);
    PyMem_RawFree(keeping.stretches);
    if (stretches == NULL || _PyBytes_Resize(&out, (Py_ssize_t)keeping.used) < 0) {
        Py_XDECREF(stretches);
        goto done;
    }
    result = Py_BuildValue("nLLLON", (Py_ssize_t)(run.at - start), (long long)run.next_offset, (long long)keeping.read,
                           (long long)keeping.kept, out, stretches);
done:
    Py_XDECREF(out);
    PyBuffer_Release(&data);
    return result;
}
