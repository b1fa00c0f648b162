/* http_client.h - a small HTTP client on raw sockets, for tests. Included once per test program. */
#ifndef INFERD_TESTS_SERVER_HTTP_CLIENT_H
#define INFERD_TESTS_SERVER_HTTP_CLIENT_H

#include "base/buf.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct reply {
    int status; /* 0: the connection ended without an answer */
    struct buf head, body;
};

__attribute__((unused)) static int client_connect(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        perror("connect");
        abort();
    }
    return fd;
}

__attribute__((unused)) static bool client_send(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

__attribute__((unused)) static const char *reply_header(const struct reply *r, const char *name)
{
    static _Thread_local char value[512];
    size_t len = strlen(name);
    for (const char *line = buf_str(&r->head); (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            const char *start = line + len + 1 + strspn(line + len + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(start, "\r"), start);
            return value;
        }
    }
    return NULL;
}

/* Reads exactly `want` bytes more into `raw`, or to the end. */
static bool client_fill(int fd, struct buf *raw, size_t want)
{
    char chunk[8192];
    while (raw->len < want) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n <= 0)
            return false;
        buf_append(raw, chunk, (size_t)n);
    }
    return true;
}

static void client_dechunk(int fd, struct buf *raw, size_t at, struct buf *body)
{
    for (;;) {
        const char *end;
        while (!(end = raw->len > at ? strstr(raw->data + at, "\r\n") : NULL))
            if (!client_fill(fd, raw, raw->len + 1))
                return;
        size_t size = strtoul(raw->data + at, NULL, 16);
        at = (size_t)(end - raw->data) + 2;
        if (!client_fill(fd, raw, at + size + 2) || size == 0)
            return;
        buf_append(body, raw->data + at, size);
        at += size + 2;
    }
}

/* Reads one answer; the connection may be used again. */
__attribute__((unused)) static struct reply client_read(int fd)
{
    struct reply r = { 0 };
    struct buf raw = { 0 };
    const char *end;
    while (!(end = raw.len ? strstr(raw.data, "\r\n\r\n") : NULL))
        if (!client_fill(fd, &raw, raw.len + 1))
            break;
    if (end) {
        size_t at = (size_t)(end - raw.data) + 4;
        buf_append(&r.head, raw.data, at);
        r.status = atoi(raw.data + 9);
        const char *length = reply_header(&r, "Content-Length");
        if (length) {
            size_t size = strtoul(length, NULL, 10);
            client_fill(fd, &raw, at + size);
            buf_append(&r.body, raw.data + at, raw.len - at);
        } else if (reply_header(&r, "Transfer-Encoding")) {
            client_dechunk(fd, &raw, at, &r.body);
        }
    }
    buf_free(&raw);
    return r;
}

__attribute__((unused)) static void client_send_request(int fd, const char *method,
                                                        const char *path, const char *headers,
                                                        const char *body, size_t body_len)
{
    struct buf b = { 0 };
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: test\r\n%s", method, path, headers ? headers : "");
    if (body)
        buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body_len);
    buf_append_str(&b, "\r\n");
    if (body)
        buf_append(&b, body, body_len);
    client_send(fd, b.data, b.len);
    buf_free(&b);
}

__attribute__((unused)) static struct reply client_request(int port, const char *method,
                                                           const char *path, const char *headers,
                                                           const char *body)
{
    int fd = client_connect(port);
    client_send_request(fd, method, path, headers, body, body ? strlen(body) : 0);
    struct reply r = client_read(fd);
    close(fd);
    return r;
}

__attribute__((unused)) static void reply_free(struct reply *r)
{
    buf_free(&r->head);
    buf_free(&r->body);
}

#endif
