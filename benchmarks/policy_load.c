/* Asks a policy server as many smtpd processes do: each connection asks about one message after another, at RCPT
 * for each recipient and then at END-OF-MESSAGE, and waits for every answer. Prints one JSON object.
 *
 * usage: policy_load [-c connections] [-t seconds] [-w warm-up seconds] [-r requests/s] [-s senders] (-u path | -p port)
 *
 * Without -r each connection asks again as soon as it is answered (closed loop). With -r questions fall due at
 * that rate whatever the answers do, and a latency counts from the moment the question was due (open loop).
 * SIGTERM ends the run before its time. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MESSAGES 4096     /* different ones; senders and recipients recur, instances and queue ids do not */
#define RECIPIENTS_MAX 3  /* of a message: one for most, three for every eighth */
#define LATENCIES 2000000 /* microseconds; one bucket each */

/* Wide enough for any run, so that the number of a message is written over them in place. */
#define INSTANCE "00000000.6a9f0000.8f00.0"
#define QUEUE_ID "4gX00000000z1"

struct request {
    char *text;
    size_t length, instance, queue_id; /* offsets of eight hex digits, 0 for none */
};

struct message {
    struct request requests[RECIPIENTS_MAX + 1];
    int count;
};

struct connection {
    int fd, busy, step;
    unsigned message;
    uint32_t serial;
    double due;
    size_t have;
    char received[4096];
};

static const char *const domains[] = {"gmail.com", "yahoo.com", "outlook.com", "hotmail.com", "gmx.de", "web.de",
                                      "orange.fr", "icloud.com", "aol.com", "mail.ru", "libero.it", "example.org"};
#define DOMAINS (sizeof domains / sizeof *domains)

static struct message messages[MESSAGES];
static uint32_t latencies[LATENCIES];
static uint32_t serial;
static int epoll_fd;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* recipient: its number, -1 for none. queued: a queue id is there, as from the first accepted recipient on. */
static void build(struct request *r, unsigned i, unsigned senders, const char *state, int recipient, int accepted, int queued)
{
    char to[100] = "", *at;

    if (recipient >= 0)
        snprintf(to, sizeof to, "user%u@%s", i * 13 % 99991 + (unsigned)recipient, domains[i % DOMAINS]);
    if (asprintf(&r->text,
                 "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\nclient_address=10.20.%u.%u\n"
                 "client_name=app%u.internal.example.net\nclient_port=%u\nreverse_client_name=app%u.internal.example.net\n"
                 "server_address=10.20.0.5\nserver_port=587\nhelo_name=app%u.internal.example.net\n"
                 "sender=bounce-%u@news.shop%u.example\nrecipient=%s\nrecipient_count=%d\nqueue_id=%s\n"
                 "instance=" INSTANCE "\nsize=%u\netrn_domain=\nstress=\nsasl_method=PLAIN\n"
                 "sasl_username=app%u@corp.example\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\n"
                 "ccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\n"
                 "encryption_keysize=256\npolicy_context=submission\n\n",
                 state, i % 7, i % 250, i % 40, 30000 + i, i % 40, i % 40, i, i % senders, to, accepted,
                 queued ? QUEUE_ID : "", 1000 + i * 37 % 90000, i % 40) < 0)
        err(1, "memory");
    r->length = strlen(r->text);
    r->instance = (size_t)(strstr(r->text, "\ninstance=") - r->text) + strlen("\ninstance=");
    at = strstr(r->text, "\nqueue_id=4gX");
    r->queue_id = at == NULL ? 0 : (size_t)(at - r->text) + strlen("\nqueue_id=4gX");
}

static void build_all(unsigned senders)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct message *m = &messages[i];
        int recipients = i % 8 ? 1 : RECIPIENTS_MAX;

        for (int k = 0; k < recipients; k++)
            build(&m->requests[k], i, senders, "RCPT", k, 0, k > 0);
        build(&m->requests[recipients], i, senders, "END-OF-MESSAGE", recipients == 1 ? 0 : -1, recipients, 1);
        m->count = recipients + 1;
    }
}

static void number(char *at, uint32_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 4)
        at[i] = "0123456789abcdef"[value & 15];
}

static void ask(struct connection *c, double due)
{
    struct request *r;

    if (c->step == messages[c->message].count) {
        c->serial = ++serial;
        c->message = serial % MESSAGES;
        c->step = 0;
    }
    r = &messages[c->message].requests[c->step++];
    number(r->text + r->instance, c->serial);
    if (r->queue_id)
        number(r->text + r->queue_id, c->serial);
    c->due = due;
    c->busy = 1;
    c->have = 0;
    if (write(c->fd, r->text, r->length) != (ssize_t)r->length)
        err(1, "write");
}

static int connect_to(const char *path, int port)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(0x7f000001)}};
    int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM, 0), one = 1;

    if (path)
        strncpy(local.sun_path, path, sizeof local.sun_path - 1);
    else
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, path ? (void *)&local : (void *)&tcp, path ? sizeof local : sizeof tcp))
        err(1, "connect");
    return fd;
}

/* True when the answer is whole; a connection that ends is the end of the run, for a server must not close. */
static int answered(struct connection *c)
{
    ssize_t got = read(c->fd, c->received + c->have, sizeof c->received - c->have - 1);

    if (got <= 0)
        errx(1, "the server closed a connection");
    c->have += (size_t)got;
    return c->have > 1 && c->received[c->have - 1] == '\n' && c->received[c->have - 2] == '\n';
}

static volatile sig_atomic_t enough;

static void stop(int number)
{
    (void)number;
    enough = 1;
}

static unsigned long dunno, hold, filtered, other;

static void count(const char *received)
{
    if (!strncasecmp(received, "action=dunno", 12))
        dunno++;
    else if (!strncasecmp(received, "action=hold", 11))
        hold++;
    else if (!strncasecmp(received, "action=filter", 13))
        filtered++;
    else
        other++;
}

static unsigned percentile(double share, unsigned long total)
{
    unsigned long seen = 0;
    unsigned i = 0;

    while (i < LATENCIES - 1 && (seen += latencies[i]) < (unsigned long)(share * (double)total))
        i++;
    return i;
}

static unsigned slowest(void)
{
    unsigned i = LATENCIES - 1;

    while (i > 0 && !latencies[i])
        i--;
    return i;
}

int main(int argc, char **argv)
{
    int option, count_of = 100, port = 0, idle_count = 0, timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    double seconds = 5, warm_up = 0.5, rate = 0, begin, measured_from, end, next;
    unsigned senders = 10000;
    unsigned long total = 0;
    const char *path = NULL;
    struct connection *connections, **idle;
    struct epoll_event events[256], add = {.events = EPOLLIN};

    while ((option = getopt(argc, argv, "c:t:w:r:s:u:p:")) > 0) {
        switch (option) {
        case 'c': count_of = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 's': senders = (unsigned)atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'p': port = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!path && !port)
        errx(2, "wanted -u PATH or -p PORT");
    build_all(senders);
    signal(SIGTERM, stop);
    epoll_fd = epoll_create1(0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &add); /* data.ptr NULL: the timer */
    connections = calloc((size_t)count_of, sizeof *connections);
    idle = calloc((size_t)count_of, sizeof *idle);
    for (int i = 0; i < count_of; i++) {
        struct connection *c = &connections[i];
        c->fd = connect_to(path, port);
        c->message = 0;
        c->step = messages[0].count; /* the first question begins a message */
        add.data.ptr = c;
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &add);
        idle[idle_count++] = c;
    }
    begin = next = now();
    measured_from = begin + warm_up;
    end = measured_from + seconds;
    if (rate <= 0)
        while (idle_count > 0)
            ask(idle[--idle_count], now());
    for (double t = begin; t < end && !enough; t = now()) {
        int ready;

        /* Where every connection waits for an answer the question stays due: its latency goes on counting. */
        while (rate > 0 && next <= t && idle_count > 0) {
            ask(idle[--idle_count], next);
            next += 1 / rate;
        }
        if (rate > 0 && idle_count > 0) {
            struct itimerspec due = {.it_value = {(time_t)next, (long)((next - (double)(time_t)next) * 1e9) + 1}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &due, NULL);
        }
        ready = epoll_wait(epoll_fd, events, 256, 200);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            double at;

            if (c == NULL) {
                uint64_t expired;
                if (read(timer, &expired, sizeof expired) < 0)
                    continue;
            } else if (answered(c)) {
                at = now();
                c->busy = 0;
                if (at >= measured_from) {
                    double us = (at - c->due) * 1e6;
                    latencies[us < LATENCIES ? (unsigned)us : LATENCIES - 1]++;
                    total++;
                    count(c->received);
                }
                if (rate > 0)
                    idle[idle_count++] = c;
                else
                    ask(c, at);
            }
        }
    }
    printf("{\"requests\": %lu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u, "
           "\"dunno\": %lu, \"hold\": %lu, \"filter\": %lu, \"other\": %lu}\n",
           total, now() - measured_from, percentile(.5, total), percentile(.99, total), percentile(.999, total), slowest(),
           dunno, hold, filtered, other);
    return 0;
}
