/*
 * The stand-in for each service of the sample stack: neighbour TITLE PORT PEER...
 *
 * It serves a page that says, for each peer, whether it got an answer from it: "reached NAME:PORT" or "cannot reach
 * NAME:PORT: why". A peer is NAME:PORT, or $VARIABLE=NAME:PORT: then the variable of the environment counts where it
 * is set. An address may be an URL; PORT may be given the same way. Peers are asked for /ping each time that the page is.
 */
#include "http.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { PEERS = 8, PATIENCE_SECONDS = 3, STACK_BYTES = 64 * 1024 };

struct address {
    char host[256];
    char port[8];
};

static const char *title;
static struct address peers[PEERS];
static int peer_count;

/* One page's questions to the peers. The last of its threads to leave frees it: a name server may keep one long. */
struct round {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int pending, users;
    struct { int done; char error[96]; } results[PEERS];
};
struct question {
    struct round *round;
    int peer;
};

/* The value that `text` stands for: of the variable in "$VARIABLE=default", if it is set, or the default; or itself. */
static const char *value_of(const char *text)
{
    const char *equals = strchr(text, '=');
    if (text[0] != '$' || !equals) return text;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(equals - text - 1), text + 1);
    const char *value = getenv(name);
    return value && *value ? value : equals + 1;
}

/* Takes host and port out of "[scheme://][user@]host:port[/...]"; false if there is no port. */
static int parse(const char *text, struct address *address)
{
    const char *scheme = strstr(text, "://");
    if (scheme) text = scheme + 3;
    size_t length = strcspn(text, "/?,");
    const char *at = memchr(text, '@', length);
    if (at) {
        length -= (size_t)(at + 1 - text);
        text = at + 1;
    }
    const char *colon = memrchr(text, ':', length);
    if (!colon) return 0;
    snprintf(address->host, sizeof address->host, "%.*s", (int)(colon - text), text);
    snprintf(address->port, sizeof address->port, "%.*s", (int)(text + length - colon - 1), colon + 1);
    return 1;
}

/* Asks the peer for /ping; the result is what went wrong, in `error`, or an empty text. */
static void ping(const struct address *peer, char *error, size_t size)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    char text[512];
    int problem = getaddrinfo(peer->host, peer->port, &hints, &found);
    if (problem != 0) {
        snprintf(error, size, "%s", gai_strerror(problem));
        return;
    }
    snprintf(error, size, "no address");
    for (struct addrinfo *address = found; address; address = address->ai_next) {
        int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (connect(fd, address->ai_addr, address->ai_addrlen) < 0) {
            snprintf(error, size, "%s", strerror(errno));
            close(fd);
            continue;
        }
        int length = snprintf(text, sizeof text, "GET /ping HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n",
            peer->host, peer->port);
        ssize_t got = send(fd, text, (size_t)length, MSG_NOSIGNAL) == length ? recv(fd, text, 12, MSG_WAITALL) : -1;
        if (got == 12 && memcmp(text, "HTTP/1.1 200", 12) == 0) error[0] = '\0';
        else snprintf(error, size, "%s", got < 0 ? strerror(errno) : "a strange answer");
        while (recv(fd, text, sizeof text, 0) > 0) {}
        close(fd);
        break;
    }
    freeaddrinfo(found);
}

static void leave(struct round *round)
{
    int last = --round->users == 0;
    pthread_mutex_unlock(&round->lock);
    if (last) free(round);
}

static void *ask(void *argument)
{
    struct question question = *(struct question *)argument;
    char error[96];
    free(argument);
    ping(&peers[question.peer], error, sizeof error);
    pthread_mutex_lock(&question.round->lock);
    strcpy(question.round->results[question.peer].error, error);
    question.round->results[question.peer].done = 1;
    question.round->pending--;
    pthread_cond_signal(&question.round->answered);
    leave(question.round);
    return NULL;
}

/* Asks all peers at once and appends a line for each to `text`. */
static void ask_all(char *text, size_t size)
{
    struct round *round = calloc(1, sizeof *round);
    struct timespec end;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_mutex_init(&round->lock, NULL);
    pthread_cond_init(&round->answered, NULL);
    round->users = 1;
    pthread_mutex_lock(&round->lock);
    for (int i = 0; i < peer_count; i++) {
        pthread_t thread;
        struct question *question = malloc(sizeof *question);
        *question = (struct question){round, i};
        if (pthread_create(&thread, &attributes, ask, question) == 0) {
            round->pending++;
            round->users++;
        } else {
            free(question);
        }
    }
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_SECONDS;
    while (round->pending > 0 && pthread_cond_timedwait(&round->answered, &round->lock, &end) == 0) {}
    for (int i = 0; i < peer_count; i++) {
        size_t used = strlen(text);
        const char *error = round->results[i].done ? round->results[i].error : "no answer yet";
        if (*error)
            snprintf(text + used, size - used, "cannot reach %s:%s: %s\n", peers[i].host, peers[i].port, error);
        else
            snprintf(text + used, size - used, "reached %s:%s\n", peers[i].host, peers[i].port);
    }
    leave(round);
}

static void answer(const struct request *request, struct reply *reply)
{
    char text[1536], name[256] = "";
    if (strcmp(request->path, "/ping") == 0) {
        reply_text(reply, 200, "%s\n", title);
    } else if (strcmp(request->path, "/") == 0) {
        gethostname(name, sizeof name - 1);
        snprintf(text, sizeof text, "%s, played by a stand-in, on %s\n", title, name);
        ask_all(text, sizeof text);
        reply_text(reply, 200, "%s", text);
    } else {
        reply_text(reply, 404, "There is no %s here.\n", request->path);
    }
}

int main(int count, char **arguments)
{
    if (count < 3 || count > 3 + PEERS) {
        fprintf(stderr, "usage: neighbour TITLE PORT PEER...\n");
        return 2;
    }
    title = arguments[1];
    for (int i = 3; i < count; i++) {
        if (!parse(value_of(arguments[i]), &peers[peer_count++])) {
            fprintf(stderr, "not an address with a port: %s\n", arguments[i]);
            return 2;
        }
    }
    return serve((unsigned short)atoi(value_of(arguments[2])), answer);
}
