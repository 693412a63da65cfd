/* Clients that come at a set rate, whatever became of those before them: `load ADDRESS PORT RATE [SOURCES]` makes RATE new connections each
 * second until it is interrupted. Each reads the server's name, says that it has no more to say, and reads until the server has ended,
 * too. It fails if the name or the end does not come, or takes longer than 8 seconds. SOURCES, as 198.18.0.1, is the first of 200 addresses
 * that the clients have in turn. At the end one line of JSON says what was offered and what became of it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE = 8, SOURCES = 200, CLIENTS = 8192, KINDS = 64, NAME = 32 };

/* A SYN that nobody answers is sent again after a second, and counts as sent again. */
static const double SLOW = 0.9;

struct client {
    int socket;
    double begun;
    size_t length;
    char name[NAME];
};

struct count {
    char what[NAME];
    long number;
};

static volatile sig_atomic_t over;
static struct client clients[CLIENTS];
static struct count answers[KINDS], failures[KINDS];
static long offered, under_way, slow, resent;
static double longest;
static int poller;

static void end(int signal) {
    (void)signal;
    over = 1;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void add(struct count *counts, const char *what) {
    int kind = 0;
    while (kind < KINDS - 1 && counts[kind].number && strncmp(counts[kind].what, what, NAME - 1))
        kind++;
    if (!counts[kind].number)
        snprintf(counts[kind].what, NAME, "%s", what);
    counts[kind].number++;
}

static void finish(struct client *client, const char *trouble) {
    double took = now() - client->begun;
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    getsockopt(client->socket, IPPROTO_TCP, TCP_INFO, &info, &size);
    if (info.tcpi_total_retrans)
        resent++;
    close(client->socket);
    client->begun = 0;
    under_way--;
    if (took > longest)
        longest = took;
    if (trouble) {
        add(failures, trouble);
        return;
    }
    if (took > SLOW)
        slow++;
    client->name[strcspn(client->name, "\n")] = 0;
    add(answers, client->name);
}

static const char *words(int error) {
    return error == ECONNREFUSED ? "refused" : error == ECONNRESET ? "reset" : strerror(error);
}

static void begin(const struct sockaddr_in *to, struct in_addr source) {
    static int last;
    struct client *client;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
    int one = 1, tries = 0;
    while (clients[last = (last + 1) % CLIENTS].begun != 0 && tries++ < CLIENTS) {
    }
    client = &clients[last];
    offered++;
    if (client->begun != 0) {
        add(failures, "too many at once");
        return;
    }
    memset(client, 0, sizeof *client);
    client->begun = now();
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    under_way++;
    if (source.s_addr) {
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(ntohl(source.s_addr) + offered % SOURCES)}};
        /* The port is chosen by connect, which looks at both ends. */
        setsockopt(client->socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(client->socket, (struct sockaddr *)&from, sizeof from)) {
            finish(client, strerror(errno));
            return;
        }
    }
    event.data.ptr = client;
    if (connect(client->socket, (const struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS)
        finish(client, words(errno));
    else
        epoll_ctl(poller, EPOLL_CTL_ADD, client->socket, &event);
}

static void hear(struct client *client) {
    char bytes[256];
    ssize_t got = read(client->socket, bytes, sizeof bytes);
    size_t room = NAME - 1 - client->length;
    if (got < 0) {
        if (errno != EAGAIN)
            finish(client, words(errno));
    } else if (got == 0) {
        finish(client, memchr(client->name, '\n', client->length) ? NULL : "no answer");
    } else {
        size_t taken = (size_t)got < room ? (size_t)got : room;
        memcpy(client->name + client->length, bytes, taken);
        client->length += taken;
        shutdown(client->socket, SHUT_WR);
    }
}

static void give_up(double before) {
    for (int each = 0; each < CLIENTS; each++)
        if (clients[each].begun != 0 && clients[each].begun < before)
            finish(&clients[each], clients[each].length ? "no end" : "timed out");
}

static long tell(const char *what, const struct count *counts) {
    long sum = 0;
    printf(", \"%s\": {", what);
    for (int kind = 0; kind < KINDS && counts[kind].number; kind++) {
        printf("%s\"%s\": %ld", kind ? ", " : "", counts[kind].what, counts[kind].number);
        sum += counts[kind].number;
    }
    printf("}");
    return sum;
}

int main(int count, char **arguments) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct in_addr source = {0};
    struct sigaction action = {.sa_handler = end};
    struct epoll_event events[256];
    double rate, first, looked;
    long ok, failed, due = 0;
    if (count < 4 || !inet_aton(arguments[1], &to.sin_addr) || (count > 4 && !inet_aton(arguments[4], &source)))
        return 2;
    to.sin_port = htons(atoi(arguments[2]));
    rate = atof(arguments[3]);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    poller = epoll_create1(EPOLL_CLOEXEC);
    first = looked = now();
    while (!over || under_way) {
        int ready;
        if (!over)
            for (due = (long)((now() - first) * rate); offered < due;)
                begin(&to, source);
        ready = epoll_wait(poller, events, 256, 1);
        for (int each = 0; each < ready; each++)
            hear(events[each].data.ptr);
        if (now() > looked + 0.1) {
            looked = now();
            give_up(looked - PATIENCE);
        }
    }
    printf("{\"seconds\": %.1f, \"offered\": %ld, \"slow\": %ld, \"resent\": %ld, \"longest_ms\": %.0f", now() - first, offered, slow, resent, longest * 1000);
    ok = tell("answers", answers);
    failed = tell("failures", failures);
    printf(", \"ok\": %ld, \"failed\": %ld}\n", ok, failed);
    return 0;
}
