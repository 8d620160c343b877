/* What the two files of compaction share: the table of keys (native_offset_map.c), and how the records of a batch are
 * judged by it, which whole runs of batches are too (native_batch_runs.c). Nothing here needs the interpreter, so it is
 * called with the GIL released. */

#include "native.h"

/* What is smaller than this is done before another thread could have begun to run. */
#define RELEASE_BYTES 16384

typedef struct {
    uint64_t hash[2];        /* of the key; both 0 in a slot that is empty, and in no other */
    int64_t offset;
} Entry;

typedef struct {
    PyObject_HEAD
    Entry *entries;
    size_t slots;
    size_t most_slots;       /* what the table grows to */
    int steps;               /* in so many steps of GROWTH */
    size_t used;
    size_t room;             /* so many entries may be used before it grows, or is full */
    double load_factor;
    uint64_t key[2];         /* of the hash */
    int is_busy;             /* a thread works on it with the GIL released */
} OffsetTable;

/* The records of one batch. */
typedef struct {
    const uint8_t *at, *end;
    int64_t count;           /* of those not read yet */
    int64_t base_offset;
} Walk;

/* What stays of them is written to `out`, which has room for all. */
typedef struct {
    uint8_t *out;
    size_t used;
    const uint8_t *run;      /* from here on everything stays so far, and what lies before it has been written */
    int64_t count;
    int64_t newest_delta;    /* the largest timestamp delta */
    int have_values;
} Staying;

enum { MALFORMED = -1, DONE = 0, FULL = 1 };

/* Puts the keys from first_offset on into the table. Where it is FULL, *refused is the offset of the record that found
 * no room. MALFORMED is also what there is no memory for, with table->room as it was. */
int put_records(OffsetTable *table, Walk walk, int64_t first_offset, int64_t *refused);

/* DONE or MALFORMED. */
int keep_records(const OffsetTable *table, Walk walk, int64_t latest_offset, int without_tombstones,
                 Staying *staying);

/* Runs of batches; see there. */
PyObject *put_batches(OffsetTable *table, PyObject *args);
PyObject *keep_batches(OffsetTable *table, PyObject *args);

/* One thread at a time: 0, or -1 with an exception. */
int begin_work(OffsetTable *table);
