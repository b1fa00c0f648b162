/* http_socket.c - getaddrinfo, bind, listen; the first address that works is taken. */
#include "server/http_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int open_one(const struct addrinfo *a)
{
    int on = 1, off = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

bool http_socket_listen(const char *host, int32_t port, int *fd, struct status *st)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC,
                              .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return status_set(st, STATUS_INVALID, "--host %s: %s", host, gai_strerror(rc));
    int opened = -1, error = 0;
    for (struct addrinfo *a = list; a && opened < 0; a = a->ai_next) {
        opened = open_one(a);
        error = opened < 0 ? errno : 0;
    }
    freeaddrinfo(list);
    if (opened < 0)
        return status_set(st, STATUS_IO, "cannot listen on %s port %d: %s%s", host, port,
                          strerror(error),
                          error == EADDRINUSE ? "; stop the other server or choose another --port"
                          : error == EACCES   ? "; choose a --port above 1023"
                                              : "");
    *fd = opened;
    return true;
}

int32_t http_socket_port(int fd)
{
    struct sockaddr_storage address = { 0 };
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

void http_socket_url(int fd, char *out, size_t size)
{
    struct sockaddr_storage address = { 0 };
    socklen_t len = sizeof address;
    char text[INET6_ADDRSTRLEN] = "";
    getsockname(fd, (struct sockaddr *)&address, &len);
    if (address.ss_family == AF_INET6) {
        const struct in6_addr *a = &((struct sockaddr_in6 *)&address)->sin6_addr;
        bool all = IN6_IS_ADDR_UNSPECIFIED(a);
        inet_ntop(AF_INET6, a, text, sizeof text);
        snprintf(out, size, "http://[%s]:%d", all ? "::1" : text, http_socket_port(fd));
        return;
    }
    const struct in_addr *a = &((struct sockaddr_in *)&address)->sin_addr;
    inet_ntop(AF_INET, a, text, sizeof text);
    snprintf(out, size, "http://%s:%d", a->s_addr == htonl(INADDR_ANY) ? "127.0.0.1" : text,
             http_socket_port(fd));
}
