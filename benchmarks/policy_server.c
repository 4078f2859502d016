/* The least that a policy server can do: find the empty line, answer DUNNO. What a request costs here is
 * the kernel's share, the yardstick for a server that decides something.
 * usage: policy_server SOCKET_PATH */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MAX 65536
#define EVENTS 128

static const char reply[] = "action=DUNNO\n\n";

struct connection {
    int fd;
    size_t have;
    char received[REQUEST_MAX];
};

static int listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (strlen(path) >= sizeof address.sun_path)
        errx(2, "%s: too long for a unix socket", path);
    strcpy(address.sun_path, path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        err(2, "%s", path);
    return fd;
}

/* Answer what is complete, keep the rest; false when the connection is of no further use. */
static int answer(struct connection *c)
{
    ssize_t got = read(c->fd, c->received + c->have, sizeof c->received - c->have);
    char *begin = c->received, *end;

    if (got <= 0)
        return 0;
    c->have += (size_t)got;
    while ((end = memmem(begin, c->have, "\n\n", 2)) != NULL) {
        size_t length = (size_t)(end + 2 - begin);

        if (write(c->fd, reply, sizeof reply - 1) != (ssize_t)(sizeof reply - 1))
            return 0;
        c->have -= length;
        begin += length;
    }
    memmove(c->received, begin, c->have);
    return c->have < sizeof c->received;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS], add = {.events = EPOLLIN};
    int listening, epoll = epoll_create1(0);

    if (argc != 2)
        errx(2, "usage: policy_server SOCKET_PATH");
    signal(SIGPIPE, SIG_IGN); /* a client may be gone before its answer */
    listening = listen_on(argv[1]);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &add); /* data.ptr NULL: the listening socket */
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;

            if (c == NULL) {
                int fd = accept(listening, NULL, NULL);
                if (fd < 0 || (c = malloc(sizeof *c)) == NULL)
                    err(1, "accept");
                c->fd = fd;
                c->have = 0;
                add.data.ptr = c;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &add);
            } else if (!answer(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
