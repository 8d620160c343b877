/* Sends one ready-made request over and over on many connections and counts the answers; or once on each.
 *
 * It exists so that the client is not what is measured: one thread, epoll, no parsing beyond the size of an answer, its
 * correlation id and one error code. Each connection starts with `in_flight` requests; every answer that comes back
 * sends one more, and the answers of one read are followed by one send of as many requests.
 *
 * All connections are opened first. Each is sent one request, and at most UNANSWERED_LIMIT wait for their answer: with
 * more than the backlog of a listening socket the kernel drops what it has no room for, and whoever connects tries
 * again after a second, which would be all that is seen. Then it prints the seconds that this took, and waits until
 * its input has a line or ends.
 *
 * Usage: loadgen load port frame_file connections in_flight warm_up_s measured_s error_position
 *        loadgen idle port frame_file connections error_position
 * `frame_file` holds a whole request, size prefix and header included; all requests share its correlation id.
 * `error_position` is where the error code lies in an answer, counted from the answer's size prefix.
 *
 * load goes on then, and prints the answers of the measured time, that time in seconds, and all answers with those of
 * the warm-up. idle ends.
 * Any answer with an error, a wrong correlation id or an unlikely size ends it with exit code 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_LIMIT_BYTES = 1 << 20,
    ANSWER_LIMIT_BYTES = 1 << 24,
    READ_BYTES = 1 << 18,
    HEAD_BYTES = 256, /* of an answer, as far as its error code */
    CORRELATION_POSITION = 4, /* in an answer, behind its size */
    REQUEST_CORRELATION_POSITION = 8, /* in a request, behind its size, API key and version */
    EVENTS = 256,
    SILENCE_MS = 10000,
    UNANSWERED_LIMIT = 40, /* below 50, the backlog of both brokers */
};

/* Of an answer nothing is kept but its head, so ten thousand connections need little and no answer is too long. */
typedef struct {
    int fd;
    size_t filled;      /* of `head`, by the answer that is coming in */
    size_t left;        /* bytes of that answer behind its head */
    unsigned char head[HEAD_BYTES];
} connection;

static unsigned char *frames; /* `in_flight` copies of the request, end to end */
static size_t frame_size;
static uint32_t correlation;
static size_t error_position;
static int poller;

static void fail(const char *what) {
    fprintf(stderr, "loadgen: %s\n", what);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint32_t read_u32(const unsigned char *at) {
    uint32_t big_endian;
    memcpy(&big_endian, at, sizeof big_endian);
    return ntohl(big_endian);
}

static void load_frames(const char *path, int in_flight) {
    FILE *file = fopen(path, "rb");
    unsigned char *frame = malloc(FRAME_LIMIT_BYTES);
    if (!file || !frame) fail("cannot read the frame");
    frame_size = fread(frame, 1, FRAME_LIMIT_BYTES, file);
    fclose(file);
    if (frame_size < REQUEST_CORRELATION_POSITION + 4 || read_u32(frame) != frame_size - 4)
        fail("the frame file does not hold exactly one request");
    correlation = read_u32(frame + REQUEST_CORRELATION_POSITION);
    frames = malloc(frame_size * in_flight);
    if (!frames) fail("out of memory");
    for (int i = 0; i < in_flight; i++) memcpy(frames + i * frame_size, frame, frame_size);
    free(frame);
}

static void send_requests(int fd, int count) {
    const unsigned char *at = frames;
    size_t left = frame_size * count;
    while (left > 0) { /* the socket is blocking for sends, so a full one only waits for the broker */
        ssize_t sent = send(fd, at, left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) fail("the broker closed a connection while it was sent a request");
        at += sent;
        left -= sent;
    }
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void check_head(connection *c) {
    size_t size = 4 + (size_t)read_u32(c->head);
    if (size > ANSWER_LIMIT_BYTES || size < c->filled) fail("an answer of an unlikely size");
    if (read_u32(c->head + CORRELATION_POSITION) != correlation) fail("an answer with a wrong correlation id");
    int error = c->head[error_position] << 8 | c->head[error_position + 1];
    if (error) {
        fprintf(stderr, "loadgen: an answer with error code %d\n", (int16_t)error);
        exit(1);
    }
    c->left = size - c->filled;
}

/* Reads once, checks every answer, and returns how many were complete. */
static int take_answers(connection *c) {
    static unsigned char buffer[READ_BYTES];
    const size_t head_size = error_position + 2;
    ssize_t got = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) fail("the broker closed a connection");
    int answers = 0;
    for (unsigned char *at = buffer, *end = buffer + got; at < end;) {
        size_t there = end - at;
        if (c->filled < head_size) {
            size_t taken = there < head_size - c->filled ? there : head_size - c->filled;
            memcpy(c->head + c->filled, at, taken);
            c->filled += taken;
            at += taken;
            if (c->filled < head_size) break;
            check_head(c);
        } else {
            size_t taken = there < c->left ? there : c->left;
            c->left -= taken;
            at += taken;
        }
        if (c->left == 0) {
            c->filled = 0;
            answers++;
        }
    }
    return answers;
}

/* Waits for whoever is answered, takes the answers, and sends as many requests again if it is to go on. */
static int answers_now(int go_on) {
    struct epoll_event events[EVENTS];
    int answers = 0, ready = epoll_wait(poller, events, EVENTS, SILENCE_MS);
    if (ready == 0) fail("no answer for ten seconds");
    for (int i = 0; i < ready; i++) {
        connection *c = events[i].data.ptr;
        int count = take_answers(c);
        if (go_on && count > 0) send_requests(c->fd, count);
        answers += count;
    }
    return answers;
}

static connection *open_connections(int port, int count) {
    connection *all = calloc(count, sizeof *all);
    if (!all) fail("out of memory");
    int unanswered = 0;
    double started = now_s();
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = connect_to(port);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event)) fail("cannot wait for a connection");
        send_requests(all[i].fd, 1);
        unanswered++;
        while (unanswered == UNANSWERED_LIMIT) unanswered -= answers_now(0);
    }
    while (unanswered > 0) unanswered -= answers_now(0);
    printf("%.6f\n", now_s() - started);
    fflush(stdout);
    getchar();
    return all;
}

static void load(connection *all, int connections, int in_flight, double warm_up_s, double measured_s) {
    for (int i = 0; i < connections; i++) send_requests(all[i].fd, in_flight);
    long answers = 0, answers_of_warm_up = 0;
    int is_warm = 0;
    double measured_from = now_s() + warm_up_s, now;
    for (;;) {
        answers += answers_now(1);
        now = now_s();
        if (!is_warm && now >= measured_from) {
            is_warm = 1;
            answers_of_warm_up = answers;
            measured_from = now;
        }
        if (is_warm && now >= measured_from + measured_s) break;
    }
    printf("%ld %.6f %ld\n", answers - answers_of_warm_up, now - measured_from, answers);
}

int main(int argc, char **argv) {
    int is_load = argc == 9 && !strcmp(argv[1], "load"), is_idle = argc == 6 && !strcmp(argv[1], "idle");
    if (!is_load && !is_idle) fail("usage: loadgen load|idle ...; see loadgen.c");
    int port = atoi(argv[2]), connections = atoi(argv[4]), in_flight = is_load ? atoi(argv[5]) : 1;
    error_position = atoi(argv[argc - 1]);
    if (error_position < CORRELATION_POSITION + 4 || error_position + 2 > HEAD_BYTES) fail("an unlikely error position");
    load_frames(argv[3], in_flight);
    poller = epoll_create1(0);
    if (poller < 0) fail("no epoll");
    connection *all = open_connections(port, connections);
    if (is_load) load(all, connections, in_flight, atof(argv[6]), atof(argv[7]));
    return 0;
}
