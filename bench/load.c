/* The load that wrk and h2load do not make, over HTTP/1.1 to 127.0.0.1: a connection or a TLS handshake (full or resumed)
 * for each request, a fixed rate, large contents in either direction, connections that idle.
 *
 *   load -p PORT [-c connections] [-s seconds] [-u path] [-e length] [-b bytes] [-r rate] [-t] [-o] [-z] [-i]
 *
 *   -e  the length that each answer must have       -t  TLS 1.3
 *   -b  POST so much; the answer must be that number -o  a connection for each request
 *   -r  requests a second, however the answers come  -z  with -t and -o: resume the last connection's session
 *   -i  one request on each connection, then hold all of them until the standard input ends
 *
 * Prints one line of JSON.  A wrong answer counts as an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 4096, PIECE = 1 << 18, PIECES_AT_ONCE = 16, OPENING = 64, MANY_ERRORS = 1000 };
enum { WAIT = 0, BROKEN = -1 }; /* what read_some and write_some give instead of a count */

struct connection {
    int fd; /* -1: not open */
    SSL *ssl;
    SSL_SESSION *session; /* to resume next */
    bool busy, blocked;   /* a request is under way; waits for room to write */
    double started;
    long long sent;         /* of the request's head and content */
    char answer[HEAD + 1];  /* the head and, if it has room, the content */
    size_t held;
    long long left; /* of the content; -1 while the head is not whole */
    int status;
};

static int port, connections = 64, seconds = 3;
static long long expected = -1, upload;
static double rate;
static bool tls, one_shot, resume, idle;
static const char *path = "/";

static char request[1024], piece[PIECE];
static int request_size, loop, errors, not_2xx, resumed, answered;
static long long octets;
static SSL_CTX *context;
static struct connection *all, **spare; /* spare: a ring of those that may take a request */
static int spares, next_spare;
static float *latencies; /* milliseconds */
static size_t room;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(1);
}

static void close_connection(struct connection *c)
{
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        ERR_clear_error();
    }
    if (c->fd >= 0)
        close(c->fd);
    c->ssl = NULL;
    c->fd = -1;
}

static void put_aside(struct connection *c)
{
    c->busy = false;
    spare[(next_spare + spares++) % connections] = c;
}

static struct connection *take_spare(void)
{
    struct connection *c = spare[next_spare];
    next_spare = (next_spare + 1) % connections;
    spares--;
    return c;
}

static void failed(struct connection *c, const char *why)
{
    if (++errors == 1)
        fprintf(stderr, "the first error: %s\n", why);
    if (errors > MANY_ERRORS)
        die("too many errors");
    close_connection(c);
    put_aside(c);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct connection *c = SSL_get_app_data(ssl);
    if (c->session)
        SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static bool open_connection(struct connection *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        failed(c, strerror(errno));
        return false;
    }
    epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &interest);
    c->blocked = false;
    if (tls) {
        c->ssl = SSL_new(context);
        SSL_set_app_data(c->ssl, c);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_tlsext_host_name(c->ssl, "localhost");
        SSL_set_connect_state(c->ssl);
        if (resume && c->session)
            SSL_set_session(c->ssl, c->session);
    }
    return true;
}

static ssize_t outcome(struct connection *c, ssize_t result)
{
    if (result > 0)
        return result;
    if (c->ssl) {
        int error = SSL_get_error(c->ssl, result);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WAIT : BROKEN;
    }
    return result < 0 && errno == EAGAIN ? WAIT : BROKEN;
}

static ssize_t read_some(struct connection *c, void *to, size_t size)
{
    return outcome(c, c->ssl ? SSL_read(c->ssl, to, size) : recv(c->fd, to, size, 0));
}

static ssize_t write_some(struct connection *c, const void *from, size_t size)
{
    return outcome(c, c->ssl ? SSL_write(c->ssl, from, size) : send(c->fd, from, size, MSG_NOSIGNAL));
}

/* Send what there is room for. */
static bool send_request(struct connection *c)
{
    bool blocked = false;
    for (int pieces = 0; c->sent < request_size + upload && pieces < PIECES_AT_ONCE; pieces++) {
        long long left = request_size + upload - c->sent;
        bool head = c->sent < request_size;
        ssize_t count = head ? write_some(c, request + c->sent, request_size - c->sent)
                             : write_some(c, piece, left < PIECE ? left : PIECE);
        if (count == BROKEN)
            return false;
        if (count == WAIT)
            break;
        octets += head ? 0 : count;
        c->sent += count;
    }
    /* a handshake waits for what it reads; a connection that is not made yet, for room */
    blocked = c->sent < request_size + upload && !(c->ssl && SSL_want_read(c->ssl));
    if (blocked != c->blocked) {
        struct epoll_event interest = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &interest);
        c->blocked = blocked;
    }
    return true;
}

/* Understand the head once it is whole. */
static const char *read_head(struct connection *c)
{
    char *end, *length;
    c->answer[c->held] = 0;
    end = strstr(c->answer, "\r\n\r\n");
    if (!end)
        return c->held == HEAD ? "a head without end" : NULL;
    length = strcasestr(c->answer, "\r\ncontent-length:");
    if (sscanf(c->answer, "HTTP/1.1 %d", &c->status) != 1 || !length || length > end)
        return "a head without status or length";
    c->left = atoll(length + 17);
    if (expected >= 0 && c->left != expected)
        return "an answer of another length";
    long long content = c->answer + c->held - end - 4;
    octets += upload ? 0 : content;
    c->left -= content;
    if (upload && c->left == 0 && atoll(end + 4) != upload)
        return "not all was received";
    return c->left < 0 ? "more than the answer" : NULL;
}

static void note(struct connection *c)
{
    if (answered == (int)room) {
        room = room ? 2 * room : 1 << 16;
        latencies = realloc(latencies, room * sizeof *latencies);
    }
    latencies[answered++] = (now() - c->started) * 1e3;
    not_2xx += c->status / 100 != 2;
    resumed += c->ssl && SSL_session_reused(c->ssl);
}

static void done(struct connection *c)
{
    note(c);
    put_aside(c);
    if (one_shot || (strcasestr(c->answer, "\r\nconnection: close") && !idle))
        close_connection(c);
}

/* Take what came. */
static void receive(struct connection *c)
{
    for (int pieces = 0; c->busy && pieces < PIECES_AT_ONCE; pieces++) {
        bool head = c->left < 0;
        ssize_t count = head ? read_some(c, c->answer + c->held, HEAD - c->held) : read_some(c, piece, PIECE);
        const char *wrong = NULL;
        if (count == WAIT)
            return;
        if (count == BROKEN) {
            failed(c, "the connection ended");
            return;
        }
        if (head) {
            c->held += count;
            wrong = read_head(c);
        } else {
            octets += upload ? 0 : count;
            c->left -= count;
        }
        if (wrong)
            failed(c, wrong);
        else if (c->left == 0)
            done(c);
    }
}

static void start(struct connection *c, double time)
{
    c->busy = true;
    c->started = time;
    c->sent = c->held = 0;
    c->left = -1;
    if (c->fd < 0 && !open_connection(c))
        return;
    if (!send_request(c))
        failed(c, "the connection ended before the request");
}

static void happened(struct connection *c)
{
    if (c->fd < 0)
        return;
    if (!c->busy) {
        char none;
        if (read_some(c, &none, 1) != WAIT) /* session tickets are taken here, too */
            close_connection(c);
        return;
    }
    if (c->sent < request_size + upload && !send_request(c))
        failed(c, "the connection ended within the request");
    if (c->busy)
        receive(c);
}

/* Handle what comes within `timeout` milliseconds; true if the timer was among it. */
static bool turn(int timeout)
{
    struct epoll_event events[256];
    bool timer = false;
    int count = epoll_wait(loop, events, 256, timeout);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) {
            timer = true;
            continue;
        }
        happened(c);
    }
    return timer;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(double took)
{
    qsort(latencies, answered, sizeof *latencies, compare);
    printf("{\"requests\": %d, \"seconds\": %.4f, \"bytes\": %lld, \"errors\": %d, \"not_2xx\": %d, \"resumed\": %d, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
           answered, took, octets, errors, not_2xx, resumed, answered ? latencies[answered / 2] : 0.0,
           answered ? latencies[(int)(answered * 0.99)] : 0.0);
    fflush(stdout);
}

/* Each answer is followed by the next request. */
static void run_closed(double begin)
{
    while (now() < begin + seconds) {
        while (spares)
            start(take_spare(), now());
        turn(100);
    }
}

/* Requests begin when they are due; one that must wait for a connection has its latency counted all the same. */
static void run_paced(double begin)
{
    struct itimerspec interval = {0};
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = NULL};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    double due = begin;
    interval.it_interval.tv_nsec = interval.it_value.tv_nsec = 1e9 / rate;
    timerfd_settime(timer, 0, &interval, NULL);
    epoll_ctl(loop, EPOLL_CTL_ADD, timer, &interest);
    while (due < begin + seconds || spares < connections) {
        if (turn(100)) {
            unsigned long long ticks;
            if (read(timer, &ticks, sizeof ticks) < 0)
                continue;
        }
        for (double time = now(); due < time && due < begin + seconds && spares; due += 1 / rate)
            start(take_spare(), due);
        if (now() > begin + seconds + 5)
            die("the rate of %.0f is not reached", rate);
    }
}

/* Open the connections, a few at a time; say so, hold them, say how many are left. */
static void run_idle(void)
{
    int opened = 0, left = 0;
    char none;
    while (answered + errors < connections) {
        for (; opened < connections && opened - answered - errors < OPENING; opened++)
            start(take_spare(), now());
        turn(100);
    }
    report(0);
    while (read(0, &none, 1) > 0)
        ;
    while (epoll_wait(loop, &(struct epoll_event){0}, 1, 0) > 0)
        turn(0);
    for (int i = 0; i < connections; i++)
        left += all[i].fd >= 0;
    printf("{\"left\": %d}\n", left);
}

static void prepare_tls(void)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(context, "X25519");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    if (resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
}

static void read_options(int count, char **words)
{
    for (int option; (option = getopt(count, words, "p:c:s:u:e:b:r:tozi")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 's': seconds = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'e': expected = atoll(optarg); break;
        case 'b': upload = atoll(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 't': tls = true; break;
        case 'o': one_shot = true; break;
        case 'z': resume = true; break;
        case 'i': idle = true; break;
        default: exit(2);
        }
    }
    if (!port || connections < 1 || (rate && rate < 2))
        die("usage: load -p PORT [options]; the source tells them");
}

int main(int count, char **words)
{
    struct rlimit files;
    double begin;
    read_options(count, words);
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (tls)
        prepare_tls();
    request_size = upload ? snprintf(request, sizeof request,
                                     "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %lld\r\n\r\n", path, upload)
                          : snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    loop = epoll_create1(0);
    all = calloc(connections, sizeof *all);
    spare = calloc(connections, sizeof *spare);
    for (int i = 0; i < connections; i++) {
        all[i].fd = -1;
        spare[spares++] = &all[i];
    }
    begin = now();
    if (idle) {
        run_idle();
        return 0;
    }
    if (rate > 0)
        run_paced(begin);
    else
        run_closed(begin);
    report(now() - begin);
    return 0;
}
