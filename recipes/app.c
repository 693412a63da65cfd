/* A server for the recipes: says its name to whoever connects to port 3000, then echoes. `app NAME` ends by SIGTERM as a good
 * server does. `app NAME deaf` has no handler: as process 1 of a container it then ignores the signal. `app NAME patient` takes new
 * connections for another second after SIGTERM, as a server does that a load balancer learns of its end from the same signal. */
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void end(int signal) {
    (void)signal;
    over = 1;
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

int main(int count, char **words) {
    const char *how = count > 2 ? words[2] : "";
    double patience = strcmp(how, "patient") ? 0 : 1, told = 0;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(3000)};
    struct sigaction action = {.sa_handler = end};
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct pollfd waiting = {.fd = server, .events = POLLIN};
    if (strcmp(how, "deaf"))
        sigaction(SIGTERM, &action, NULL);
    /* A group of its own, to be told to end together. */
    setpgid(0, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (count < 2 || bind(server, (struct sockaddr *)&here, sizeof here) || listen(server, 128))
        return 1;
    for (;;) {
        /* Told to end, it takes what is in the queue first. */
        int is_last, client;
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
            poll(&waiting, 1, 100);
        }
    }
    close(server);
    kill(0, SIGTERM);
    while (wait(NULL) > 0) {
    }
    return 0;
}
