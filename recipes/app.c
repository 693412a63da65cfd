/* A server for the recipes: says its name to whoever connects to port 3000, then echoes. `app NAME` ends by SIGTERM as a good
 * server does. `app NAME deaf` has no handler: as process 1 of a container it then ignores the signal. `app NAME patient` takes new
 * connections for another second after SIGTERM, as a server does that a load balancer learns of its end from the same signal.
 * `app NAME greedy` is patient, too, and uses more and more memory after SIGUSR1, up to 256 MiB. */
#define _DEFAULT_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over, hungry;

static void end(int signal) {
    (void)signal;
    over = 1;
}

static void want(int signal) {
    (void)signal;
    hungry = 1;
}

/* A mebibyte more each time, and not without end where there is no limit. */
static void use_memory(void) {
    static int used;
    void *piece = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece != MAP_FAILED) {
        /* Or those that talk would be killed instead, who would have as much. */
        madvise(piece, 1 << 20, MADV_DONTFORK);
        memset(piece, 1, 1 << 20);
    }
    if (++used == 256)
        _exit(3);
}

static void talk(int client, const char *name) {
    char bytes[4096];
    ssize_t got;
    dprintf(client, "%s\n", name);
    while (!over && (got = read(client, bytes, sizeof bytes)) > 0)
        if (write(client, bytes, got) != got)
            return;
    /* To close over what the client still sends would be a reset: end this side, and wait for the other. */
    shutdown(client, SHUT_WR);
    while (read(client, bytes, sizeof bytes) > 0) {
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* For both families, where the machine has IPv6. */
static int listener(void) {
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(3000)};
    struct sockaddr_in here4 = {.sin_family = AF_INET, .sin_port = htons(3000)};
    int no = 0, server = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (server >= 0) {
        setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
        if (bind(server, (struct sockaddr *)&here, sizeof here))
            return -1;
    } else {
        server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (server < 0 || bind(server, (struct sockaddr *)&here4, sizeof here4))
            return -1;
    }
    return listen(server, 1024) ? -1 : server;
}

int main(int count, char **words) {
    const char *how = count > 2 ? words[2] : "";
    int is_greedy = !strcmp(how, "greedy");
    double patience = is_greedy || !strcmp(how, "patient") ? 1 : 0, told = 0;
    struct sigaction action = {.sa_handler = end}, wish = {.sa_handler = want};
    int server = listener();
    struct pollfd waiting = {.fd = server, .events = POLLIN};
    if (strcmp(how, "deaf"))
        sigaction(SIGTERM, &action, NULL);
    if (is_greedy)
        sigaction(SIGUSR1, &wish, NULL);
    /* A group of its own, to be told to end together. */
    setpgid(0, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (count < 2 || server < 0)
        return 1;
    for (;;) {
        /* Told to end, it takes what is in the queue first. */
        int is_last, client;
        if (hungry)
            use_memory();
        if (over && told == 0)
            told = now();
        is_last = told > 0 && now() >= told + patience;
        client = accept(server, NULL, NULL);
        if (client >= 0) {
            if (fork() == 0) {
                close(server);
                talk(client, words[1]);
                _exit(0);
            }
            close(client);
        } else if (is_last) {
            break;
        } else {
            poll(&waiting, 1, hungry ? 1 : 100);
        }
    }
    close(server);
    kill(0, SIGTERM);
    while (wait(NULL) > 0) {
    }
    return 0;
}
