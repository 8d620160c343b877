/* Sends one ready-made request over and over on many connections and counts the answers.
 *
 * It exists so that the client is not what is measured: one thread, epoll, no parsing beyond the size of an answer, its
 * correlation id and one error code. Each connection starts with `in_flight` requests; every answer that comes back
 * sends one more, and the answers of one read are followed by one send of as many requests.
 *
 * Usage: loadgen port frame_file connections in_flight warm_up_s measured_s error_position
 * `frame_file` holds a whole request, size prefix and header included; all requests share its correlation id.
 * `error_position` is where the error code lies in an answer, counted from the answer's size prefix.
 *
 * Prints: the answers of the measured time, that time in seconds, and all answers with those of the warm-up.
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
    ANSWER_BUFFER_BYTES = 1 << 16,
    CORRELATION_POSITION = 4, /* in an answer, behind its size */
    REQUEST_CORRELATION_POSITION = 8, /* in a request, behind its size, API key and version */
    EVENTS = 256,
    SILENCE_MS = 10000,
};

typedef struct {
    int fd;
    int filled;
    unsigned char buffer[ANSWER_BUFFER_BYTES];
} connection;

static unsigned char *frames; /* `in_flight` copies of the request, end to end */
static size_t frame_size;
static uint32_t correlation;
static size_t error_position;

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

/* Reads once, checks every whole answer, keeps the rest, and returns how many answers there were. */
static int take_answers(connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->filled, sizeof c->buffer - c->filled, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) fail("the broker closed a connection");
    c->filled += got;
    int position = 0, answers = 0;
    while (c->filled - position >= 4) {
        unsigned char *answer = c->buffer + position;
        size_t size = 4 + (size_t)read_u32(answer);
        if (size > sizeof c->buffer || size < error_position + 2) fail("an answer of an unlikely size");
        if ((size_t)(c->filled - position) < size) break;
        if (read_u32(answer + CORRELATION_POSITION) != correlation) fail("an answer with a wrong correlation id");
        int error = answer[error_position] << 8 | answer[error_position + 1];
        if (error) {
            fprintf(stderr, "loadgen: an answer with error code %d\n", (int16_t)error);
            exit(1);
        }
        position += size;
        answers++;
    }
    memmove(c->buffer, c->buffer + position, c->filled - position);
    c->filled -= position;
    return answers;
}

int main(int argc, char **argv) {
    if (argc != 8) fail("usage: loadgen port frame_file connections in_flight warm_up_s measured_s error_position");
    int port = atoi(argv[1]), connections = atoi(argv[3]), in_flight = atoi(argv[4]);
    double warm_up_s = atof(argv[5]), measured_s = atof(argv[6]);
    error_position = atoi(argv[7]);
    load_frames(argv[2], in_flight);

    int poller = epoll_create1(0);
    connection *all = calloc(connections, sizeof *all);
    if (poller < 0 || !all) fail("out of memory");
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = connect_to(port);
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    for (int i = 0; i < connections; i++) send_requests(all[i].fd, in_flight);

    long answers = 0, answers_of_warm_up = 0;
    int is_warm = 0;
    double measured_from = now_s() + warm_up_s, now;
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, SILENCE_MS);
        if (ready == 0) fail("no answer for ten seconds");
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            int count = take_answers(c);
            if (count > 0) send_requests(c->fd, count);
            answers += count;
        }
        now = now_s();
        if (!is_warm && now >= measured_from) {
            is_warm = 1;
            answers_of_warm_up = answers;
            measured_from = now;
        }
        if (is_warm && now >= measured_from + measured_s) break;
    }
    printf("%ld %.6f %ld\n", answers - answers_of_warm_up, now - measured_from, answers);
    return 0;
}
