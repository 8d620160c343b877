/* Produces, consumes and measures latency through librdkafka, at the speed that C allows.
 *
 * It is linked to the librdkafka inside the confluent-kafka wheel. The wheel holds no header, so what is used of the
 * (stable) C API is declared here.
 *
 * Usage: rdload produce bootstrap topic payload_file records [name=value ...]
 *        rdload consume bootstrap topic records [name=value ...]
 *        rdload latency bootstrap topic payload_file records records_per_second [name=value ...]
 * A payload file holds one record's value a line; they are sent in turn. name=value are librdkafka's own settings, and
 * partitions=n, to which records are sent in turn and of which all are read. Without it there is partition 0. With
 * rate=n no more records than that are produced in a second; with waits=1 consume says "ready" when it has connected, and
 * reads when it is told a line.
 *
 * produce prints the seconds until the last record was acknowledged; consume the seconds until the last one came and
 * the bytes of all values; latency the 50th, 99th and 99.9th percentile in milliseconds, from the call that produces a
 * record to the one that returns it. The first second of a latency run is not counted. Exit code 1 for any error.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_topic_partition_list_s rd_kafka_topic_partition_list_t;
typedef struct {
    int err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *private_;
} rd_kafka_message_t;

enum { RD_KAFKA_PRODUCER, RD_KAFKA_CONSUMER };
enum { QUEUE_FULL = -184, BEGINNING = -2 };

rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t);
void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *, void (*)(rd_kafka_t *, const rd_kafka_message_t *, void *));
rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, void *);
int rd_kafka_produce(rd_kafka_topic_t *, int32_t, int, void *, size_t, const void *, size_t, void *);
int rd_kafka_last_error(void);
const char *rd_kafka_err2str(int);
int rd_kafka_poll(rd_kafka_t *, int);
int rd_kafka_flush(rd_kafka_t *, int);
int rd_kafka_query_watermark_offsets(rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *, int);
rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int);
void *rd_kafka_topic_partition_list_add(rd_kafka_topic_partition_list_t *, const char *, int32_t);
int rd_kafka_topic_partition_list_set_offset(rd_kafka_topic_partition_list_t *, const char *, int32_t, int64_t);
int rd_kafka_assign(rd_kafka_t *, const rd_kafka_topic_partition_list_t *);
int rd_kafka_poll_set_consumer(rd_kafka_t *);
rd_kafka_queue_t *rd_kafka_queue_get_consumer(rd_kafka_t *);
ssize_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t);
rd_kafka_message_t *rd_kafka_consumer_poll(rd_kafka_t *, int);
void rd_kafka_message_destroy(rd_kafka_message_t *);

enum { LINES_LIMIT = 100000, BATCH = 10000, TIMEOUT_MS = 60000, POLL_EVERY = 1024, PACE_EVERY = 64 };

static char *payloads[LINES_LIMIT];
static size_t payload_sizes[LINES_LIMIT];
static int payload_count;
static long undelivered;
static int partitions = 1;
static long rate; /* records a second; 0: as fast as it goes */
static int waits;

static void fail(const char *what, const char *detail) {
    fprintf(stderr, "rdload: %s: %s\n", what, detail);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void load_payloads(const char *path) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    if (!file) fail("cannot read", path);
    while (payload_count < LINES_LIMIT && (size = getline(&line, &room, file)) > 1) {
        payloads[payload_count] = line;
        payload_sizes[payload_count++] = size - 1;
        line = NULL;
    }
    fclose(file);
    if (!payload_count) fail("no payload in", path);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    (void)rk, (void)opaque;
    if (message->err && undelivered++ == 0) fprintf(stderr, "rdload: %s\n", rd_kafka_err2str(message->err));
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char why[512];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why)) fail("setting", why);
}

static int begins(const char *name, const char *prefix) {
    return !strncmp(name, prefix, strlen(prefix));
}

static rd_kafka_t *new_client(int type, const char *bootstrap, char **settings, int count) {
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", bootstrap);
    if (type == RD_KAFKA_PRODUCER) {
        set(conf, "delivery.report.only.error", "true");
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    } else {
        set(conf, "group.id", "bench");
        set(conf, "enable.auto.commit", "false");
    }
    for (int i = 0; i < count; i++) {
        char *equals = strchr(settings[i], '=');
        if (!equals) fail("not name=value", settings[i]);
        char *name = strndup(settings[i], equals - settings[i]);
        int is_for_consumers = begins(name, "fetch.") || begins(name, "queued.");
        int is_for_both = begins(name, "bootstrap.") || begins(name, "security.") || begins(name, "ssl.");
        if (!strcmp(name, "partitions")) partitions = atoi(equals + 1);
        else if (!strcmp(name, "rate")) rate = atol(equals + 1);
        else if (!strcmp(name, "waits")) waits = atoi(equals + 1);
        else if (is_for_both || is_for_consumers == (type == RD_KAFKA_CONSUMER)) set(conf, name, equals + 1);
        free(name);
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk) fail("no client", why);
    return rk;
}

/* The sum of all partitions' ends.
 * Also makes the client know the topic, so that finding it is not part of what is measured. */
static int64_t end_offset(rd_kafka_t *rk, const char *topic) {
    int64_t low, high, sum = 0;
    for (int partition = 0; partition < partitions; partition++) {
        int err = rd_kafka_query_watermark_offsets(rk, topic, partition, &low, &high, TIMEOUT_MS);
        if (err) fail("no end offset", rd_kafka_err2str(err));
        sum += high;
    }
    return sum;
}

static void assign(rd_kafka_t *rk, const char *topic, int64_t offset) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
    for (int partition = 0; partition < partitions; partition++) {
        rd_kafka_topic_partition_list_add(list, topic, partition);
        rd_kafka_topic_partition_list_set_offset(list, topic, partition, offset);
    }
    rd_kafka_poll_set_consumer(rk);
    if (rd_kafka_assign(rk, list)) fail("assign", topic);
}

static void sleep_until(double due_s) {
    struct timespec due = {.tv_sec = (time_t)due_s};
    due.tv_nsec = (long)((due_s - due.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void produce_one(rd_kafka_t *rk, rd_kafka_topic_t *rkt, int partition, void *payload, size_t size) {
    while (rd_kafka_produce(rkt, partition, 0, payload, size, NULL, 0, NULL)) {
        int err = rd_kafka_last_error();
        if (err != QUEUE_FULL) fail("produce", rd_kafka_err2str(err));
        rd_kafka_poll(rk, 1);
    }
}

static int produce(char **argv, int argc) {
    const char *topic = argv[1];
    load_payloads(argv[2]);
    long records = atol(argv[3]);
    rd_kafka_t *rk = new_client(RD_KAFKA_PRODUCER, argv[0], argv + 4, argc - 4);
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
    int64_t end_before = end_offset(rk, topic);
    double started = now_s();
    for (long i = 0; i < records; i++) {
        int line = i % payload_count;
        if (rate && i % PACE_EVERY == 0) sleep_until(started + (double)i / rate);
        produce_one(rk, rkt, i % partitions, payloads[line], payload_sizes[line]);
        if (i % POLL_EVERY == 0) rd_kafka_poll(rk, 0);
    }
    if (rd_kafka_flush(rk, TIMEOUT_MS)) fail("flush", "not all records were acknowledged in a minute");
    double seconds = now_s() - started;
    if (undelivered) fail("produce", "not all records were delivered");
    if (end_offset(rk, topic) != end_before + records) fail("produce", "the log does not end behind the last record");
    printf("%.6f\n", seconds);
    return 0;
}

static int consume(char **argv, int argc) {
    static rd_kafka_message_t *messages[BATCH];
    const char *topic = argv[1];
    long wanted = atol(argv[2]), records = 0;
    double bytes = 0;
    rd_kafka_t *rk = new_client(RD_KAFKA_CONSUMER, argv[0], argv + 3, argc - 3);
    if (end_offset(rk, topic) < wanted) fail("consume", "the topic holds fewer records");
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
    if (waits) {
        puts("ready");
        fflush(stdout);
        if (getchar() == EOF) fail("consume", "nobody says when");
    }
    double started = now_s(), deadline = started + TIMEOUT_MS / 1000.0;
    assign(rk, topic, BEGINNING);
    while (records < wanted) {
        ssize_t count = rd_kafka_consume_batch_queue(queue, 1000, messages, BATCH);
        if (count < 0 || now_s() > deadline) fail("consume", "the records did not come in a minute");
        for (ssize_t i = 0; i < count; i++) {
            if (messages[i]->err) fail("consume", rd_kafka_err2str(messages[i]->err));
            bytes += messages[i]->len;
            records++;
            rd_kafka_message_destroy(messages[i]);
        }
    }
    printf("%.6f %.0f\n", now_s() - started, bytes);
    return 0;
}

typedef struct {
    rd_kafka_t *rk;
    long records;
    double *latencies_s;
} tail;

static void *read_tail(void *argument) {
    tail *t = argument;
    for (long seen = 0; seen < t->records;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(t->rk, 10000);
        if (!message) fail("latency", "no record for ten seconds");
        if (message->err) fail("latency", rd_kafka_err2str(message->err));
        double now = now_s(), sent;
        if (message->len < sizeof sent) fail("latency", "a record that is too short");
        memcpy(&sent, message->payload, sizeof sent);
        rd_kafka_message_destroy(message);
        t->latencies_s[seen++] = now - sent;
    }
    return NULL;
}

static int by_value(const void *left, const void *right) {
    double l = *(const double *)left, r = *(const double *)right;
    return (l > r) - (l < r);
}

static int latency(char **argv, int argc) {
    const char *topic = argv[1];
    load_payloads(argv[2]);
    long records = atol(argv[3]), per_second = atol(argv[4]);
    rd_kafka_t *producer = new_client(RD_KAFKA_PRODUCER, argv[0], argv + 5, argc - 5);
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(producer, topic, NULL);
    tail t = {new_client(RD_KAFKA_CONSUMER, argv[0], argv + 5, argc - 5), records, calloc(records, sizeof(double))};
    size_t size = payload_sizes[0];
    char *values = malloc(records * size);
    if (!values || !t.latencies_s || per_second >= records || size < sizeof(double)) fail("latency", "bad arguments");
    for (long i = 0; i < records; i++) memcpy(values + i * size, payloads[0], size);
    /* A first record shows that the consumer is there before the clock runs. */
    produce_one(producer, rkt, 0, values, size);
    if (rd_kafka_flush(producer, TIMEOUT_MS)) fail("latency", "the first record was not acknowledged");
    end_offset(t.rk, topic);
    assign(t.rk, topic, BEGINNING);
    rd_kafka_message_t *first = rd_kafka_consumer_poll(t.rk, 10000);
    if (!first || first->err) fail("latency", "the first record did not come");
    rd_kafka_message_destroy(first);

    pthread_t reader;
    if (pthread_create(&reader, NULL, read_tail, &t)) fail("latency", "no thread");
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (long i = 0; i < records; i++) {
        due.tv_nsec += 1000000000 / per_second;
        if (due.tv_nsec >= 1000000000) due.tv_nsec -= 1000000000, due.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        double now = now_s();
        memcpy(values + i * size, &now, sizeof now);
        produce_one(producer, rkt, 0, values + i * size, size);
        rd_kafka_poll(producer, 0);
    }
    pthread_join(reader, NULL);
    if (rd_kafka_flush(producer, TIMEOUT_MS) || undelivered) fail("latency", "not all records were acknowledged");
    long counted = records - per_second;
    double *counted_s = t.latencies_s + per_second;
    qsort(counted_s, counted, sizeof *counted_s, by_value);
    printf("%.4f %.4f %.4f\n", counted_s[counted / 2] * 1e3, counted_s[(long)(counted * 0.99)] * 1e3,
           counted_s[(long)(counted * 0.999)] * 1e3);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 6 && !strcmp(argv[1], "produce")) return produce(argv + 2, argc - 2);
    if (argc >= 5 && !strcmp(argv[1], "consume")) return consume(argv + 2, argc - 2);
    if (argc >= 7 && !strcmp(argv[1], "latency")) return latency(argv + 2, argc - 2);
    fail("usage", "rdload produce|consume|latency ...; see rdload.c");
}
