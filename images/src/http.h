/* A small HTTP/1.1 server for the sample images: one thread per connection, and an end that loses no request. */
#ifndef HTTP_H
#define HTTP_H

#include <stddef.h>

/* A request line, split. `query` is what follows the question mark, or empty. */
struct request {
    char method[8];
    char path[1024];
    char query[1024];
};

/* What is sent back. `body` may point at `text`, or at bytes that outlive the request. */
struct reply {
    int status;
    const char *type;
    const char *body;
    size_t length;
    char text[2048];
};

typedef void answer_fn(const struct request *request, struct reply *reply);

/* Fills `reply` with a plain text, as printf does; too long a text is cut. */
void reply_text(struct reply *reply, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * Serves on `port` of every address until SIGTERM or SIGINT comes. Then it takes no new connection, finishes
 * the requests that it has, and returns. The result is the exit status: 0, or 1 if it could not listen.
 * `answer` is called from many threads at once.
 */
int serve(unsigned short port, answer_fn *answer);

#endif
