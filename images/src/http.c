/* See http.h. */
#include "http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,
    STACK_BYTES = 64 * 1024,
    HEAD_BYTES = 8 * 1024,
    IDLE_MS = 60 * 1000,    /* a connection that asks nothing is closed */
    HEAD_MS = 5 * 1000,     /* the rest of a head that has begun must come within that time */
    LAST_MS = 1000,         /* a fresh connection may ask for so long after the end began */
    LINGER_MS = 1000,       /* how long the last bytes of a closing connection may take */
    DRAIN_SECONDS = 9,      /* Docker kills after ten by default */
};

static answer_fn *handler;
static int stopping;        /* an eventfd that becomes readable once, for all threads, when the end begins */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connections;
static unsigned long answered;

void reply_text(struct reply *reply, int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(reply->text, sizeof reply->text, format, arguments);
    va_end(arguments);
    reply->status = status;
    reply->type = "text/plain; charset=utf-8";
    reply->body = reply->text;
    reply->length = length < (int)sizeof reply->text ? (size_t)length : sizeof reply->text - 1;
}

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    default: return "Internal Server Error";
    }
}

static bool ending(void)
{
    struct pollfd end = {.fd = stopping, .events = POLLIN};
    return poll(&end, 1, 0) > 0;
}

static bool send_all(int fd, const char *bytes, size_t length, int flags)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, flags | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool send_reply(int fd, const struct reply *reply, bool body, bool keep)
{
    char head[256];
    int length = snprintf(head, sizeof head,
        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: %s\r\n\r\n", reply->status,
        reason(reply->status), reply->type, reply->length, reply->status == 405 ? "Allow: GET, HEAD\r\n" : "",
        keep ? "keep-alive" : "close");
    body = body && reply->length > 0;
    return send_all(fd, head, (size_t)length, body ? MSG_MORE : 0) &&
        (!body || send_all(fd, reply->body, reply->length, 0));
}

/* The value of a header in `head`, or NULL; it ends at the end of its line. */
static const char *header(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " \t");
        }
    }
    return NULL;
}

/* Answers the request with this head; false when the connection is to end after it. */
static bool answer_one(int fd, const char *head)
{
    struct request request = {0};
    struct reply reply = {0};
    char target[sizeof request.path], version[16];
    bool keep = false;
    if (sscanf(head, "%7s %1023s %15s", request.method, target, version) != 3 || strncmp(version, "HTTP/1.", 7) != 0) {
        reply_text(&reply, 400, "This is not an HTTP/1 request.\n");
    } else {
        const char *connection = header(head, "connection"), *length = header(head, "content-length");
        /* A body is not read: so nothing can follow it on this connection. */
        bool body = header(head, "transfer-encoding") || (length && atol(length) != 0);
        keep = !body && !ending() && version[7] != '0' && !(connection && strncasecmp(connection, "close", 5) == 0);
        char *question = strchr(target, '?');
        if (question) {
            *question = '\0';
            strcpy(request.query, question + 1);
        }
        strcpy(request.path, target);
        if (strcmp(request.method, "GET") != 0 && strcmp(request.method, "HEAD") != 0)
            reply_text(&reply, 405, "Only GET and HEAD are understood.\n");
        else
            handler(&request, &reply);
    }
    pthread_mutex_lock(&lock);
    answered++;
    pthread_mutex_unlock(&lock);
    keep = keep && !ending();
    return send_reply(fd, &reply, strcmp(request.method, "HEAD") != 0, keep) && keep;
}

/* How far a connection is. */
enum phase { FRESH, BETWEEN, WITHIN };

/*
 * Waits until there is something to read. When the server ends, a connection that has had its answers ends too, and a
 * fresh one may still ask: its request may be on the way.
 */
static bool readable(int fd, enum phase phase)
{
    struct pollfd wait[2] = {{.fd = fd, .events = POLLIN}, {.fd = stopping, .events = POLLIN}};
    int watched = phase == WITHIN ? 1 : 2, patience = phase == WITHIN ? HEAD_MS : IDLE_MS;
    for (;;) {
        int ready = poll(wait, (nfds_t)watched, patience);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        if (wait[0].revents != 0) return true;
        if (phase == BETWEEN) return false;
        watched = 1;
        patience = LAST_MS;
    }
}

static void converse(int fd)
{
    char buffer[HEAD_BYTES + 1];
    size_t held = 0;
    enum phase phase = FRESH;
    for (;;) {
        buffer[held] = '\0';
        char *end = strstr(buffer, "\r\n\r\n");
        if (end) {
            end[2] = '\0';
            if (!answer_one(fd, buffer)) return;
            held -= (size_t)(end + 4 - buffer);
            memmove(buffer, end + 4, held);
            phase = BETWEEN;
            continue;
        }
        if (held == HEAD_BYTES) {
            struct reply reply;
            reply_text(&reply, 431, "The head of the request is too long.\n");
            send_reply(fd, &reply, true, false);
            return;
        }
        if (!readable(fd, held > 0 ? WITHIN : phase)) return;
        ssize_t got = recv(fd, buffer + held, HEAD_BYTES - held, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        held += (size_t)got;
    }
}

static void *connection(void *argument)
{
    int fd = (int)(intptr_t)argument;
    converse(fd);
    /* Unread bytes at close() would reset the connection, and the client would lose the end of the answer. */
    char rest[512];
    shutdown(fd, SHUT_WR);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (poll(&wait, 1, LINGER_MS) > 0 && recv(fd, rest, sizeof rest, 0) > 0) {}
    close(fd);
    pthread_mutex_lock(&lock);
    connections--;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Listens on IPv6 and IPv4, or on IPv4 alone where there is no IPv6. */
static int listen_on(unsigned short port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, zero = 0, type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(AF_INET6, type, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
        if (bind(fd, (struct sockaddr *)&six, sizeof six) == 0 && listen(fd, BACKLOG) == 0) return fd;
        close(fd);
    }
    fd = socket(AF_INET, type, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&four, sizeof four) == 0 && listen(fd, BACKLOG) == 0) return fd;
    close(fd);
    return -1;
}

/* Gives every connection that waits at `listener` a thread. */
static void accept_all(int listener)
{
    int fd, one = 1;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_t thread;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_mutex_lock(&lock);
        connections++;
        pthread_mutex_unlock(&lock);
        if (pthread_create(&thread, &attributes, connection, (void *)(intptr_t)fd) != 0)
            connection((void *)(intptr_t)fd); /* no thread to be had: this one does it */
    }
    pthread_attr_destroy(&attributes);
}

int serve(unsigned short port, answer_fn *answer)
{
    sigset_t signals;
    handler = answer;
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* also makes them count for process 1 of a container */
    int signal = signalfd(-1, &signals, SFD_CLOEXEC), listener = listen_on(port);
    stopping = eventfd(0, EFD_CLOEXEC);
    if (signal < 0 || stopping < 0 || listener < 0) {
        fprintf(stderr, "cannot listen on port %u: %s\n", port, strerror(errno));
        return 1;
    }
    printf("listening on port %u\n", port);

    struct pollfd wait[2] = {{.fd = listener, .events = POLLIN}, {.fd = signal, .events = POLLIN}};
    while (wait[1].revents == 0) {
        wait[0].revents = wait[1].revents = 0;
        if (poll(wait, 2, -1) < 0 && errno != EINTR) return 1;
        accept_all(listener); /* after the signal once more: who waits in the backlog has been accepted by the kernel */
    }
    close(listener);

    uint64_t begun = 1;
    if (write(stopping, &begun, sizeof begun) < 0) return 1;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DRAIN_SECONDS;
    pthread_mutex_lock(&lock);
    while (connections > 0 && pthread_cond_timedwait(&changed, &lock, &end) == 0) {}
    printf("stopped after %lu requests\n", answered);
    pthread_mutex_unlock(&lock);
    return 0;
}
