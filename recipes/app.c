/* A server for the recipes: says its name to whoever connects to port 3000, then echoes. `app NAME` ends by SIGTERM as a good
 * server does. `app NAME deaf` has no handler: as process 1 of a container it then ignores the signal. */
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

int main(int count, char **words) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(3000)};
    struct sigaction action = {.sa_handler = end};
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct pollfd waiting = {.fd = server, .events = POLLIN};
    if (count == 2)
        sigaction(SIGTERM, &action, NULL);
    /* A group of its own, to be told to end together. */
    setpgid(0, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (count < 2 || bind(server, (struct sockaddr *)&here, sizeof here) || listen(server, 128))
        return 1;
    for (;;) {
        /* Told to end, it takes what is in the queue first. */
        int is_last = over, client = accept(server, NULL, NULL);
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
