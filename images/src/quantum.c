/*
 * The sample application: quantum PAGE [PORT] serves the file PAGE on / and the host's name on /whoami.
 * /slow/N answers after N milliseconds (at most 30,000), which shows what happens to requests under way.
 */
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char page[16 * 1024];
static size_t page_length;

static void answer(const struct request *request, struct reply *reply)
{
    char name[256];
    if (strcmp(request->path, "/") == 0) {
        *reply = (struct reply){.status = 200, .type = "text/html; charset=utf-8", .body = page, .length = page_length};
    } else if (strcmp(request->path, "/whoami") == 0) {
        gethostname(name, sizeof name);
        name[sizeof name - 1] = '\0';
        reply_text(reply, 200, "%s\n", name);
    } else if (strncmp(request->path, "/slow/", 6) == 0) {
        long wait = strtol(request->path + 6, NULL, 10);
        if (wait < 0 || wait > 30000) {
            reply_text(reply, 400, "0 to 30000 milliseconds, please.\n");
            return;
        }
        nanosleep(&(struct timespec){.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000}, NULL);
        reply_text(reply, 200, "after %ld ms\n", wait);
    } else {
        reply_text(reply, 404, "There is no %s here.\n", request->path);
    }
}

int main(int count, char **arguments)
{
    if (count < 2) {
        fprintf(stderr, "usage: quantum PAGE [PORT]\n");
        return 2;
    }
    FILE *file = fopen(arguments[1], "r");
    if (!file) {
        perror(arguments[1]);
        return 1;
    }
    page_length = fread(page, 1, sizeof page, file);
    fclose(file);
    return serve((unsigned short)(count > 2 ? atoi(arguments[2]) : 8080), answer);
}
