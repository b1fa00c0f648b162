/* http_socket.h - the listening socket: addresses, ports, and errors a person can act on. */
#ifndef INFERD_SERVER_HTTP_SOCKET_H
#define INFERD_SERVER_HTTP_SOCKET_H

#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

/* Binds and listens. `host`: an IPv4 or IPv6 address or a name; "::" also takes IPv4. */
bool http_socket_listen(const char *host, int32_t port, int *fd, struct status *st);
/* The port that was bound, -1 when the system does not say. */
int32_t http_socket_port(int fd);
/* "http://127.0.0.1:8000": where all addresses are bound, the loopback one is named. */
void http_socket_url(int fd, char *out, size_t size);

#endif
