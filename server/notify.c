/* notify.c - the sd_notify protocol, which is one sendmsg. */
#include "server/notify.h"
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* How long a message that must arrive may wait for room. */
enum { SEND_TIMEOUT_S = 1 };

void notify_open(struct notifier *n, const char *socket_path, int64_t watchdog_usec)
{
    memset(n, 0, sizeof *n);
    n->fd = -1;
    size_t len = socket_path ? strlen(socket_path) : 0;
    if (len == 0)
        return;
    if ((socket_path[0] != '/' && socket_path[0] != '@') || len >= sizeof n->address.sun_path) {
        log_warning("NOTIFY_SOCKET is neither a path nor an abstract name: %s", socket_path);
        return;
    }
    n->address.sun_family = AF_UNIX;
    memcpy(n->address.sun_path, socket_path, len);
    if (socket_path[0] == '@')
        n->address.sun_path[0] = '\0'; /* the abstract namespace; its names have no end mark */
    n->address_len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (socket_path[0] == '/'));
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    if (n->fd < 0 || setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0)
        log_warning("cannot open a socket for NOTIFY_SOCKET: %s", strerror(errno));
    if (watchdog_usec > 0)
        n->watchdog_ns = (uint64_t)watchdog_usec * 1000 / 2;
}

void notify_close(struct notifier *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}

/* More of its kind follow: better lost than late. */
static bool is_passing(const char *text)
{
    return strncmp(text, "STATUS=", strlen("STATUS=")) == 0 ||
           strncmp(text, "WATCHDOG=", strlen("WATCHDOG=")) == 0;
}

void notify_send(struct notifier *n, const char *format, ...)
{
    char text[1024];
    va_list args;
    if (n->fd < 0)
        return;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        return;
    if ((size_t)len >= sizeof text)
        len = (int)sizeof text - 1;
    if (sendto(n->fd, text, (size_t)len, MSG_NOSIGNAL | (is_passing(text) ? MSG_DONTWAIT : 0),
               (const struct sockaddr *)&n->address, n->address_len) < 0)
        log_debug("the supervisor was not told '%.40s': %s", text, strerror(errno));
}

void notify_watchdog(struct notifier *n, uint64_t now_ns, uint64_t heartbeat)
{
    if (n->fd < 0 || n->watchdog_ns == 0 || now_ns - n->pinged_ns < n->watchdog_ns ||
        heartbeat == n->pinged_heartbeat)
        return;
    n->pinged_ns = now_ns;
    n->pinged_heartbeat = heartbeat;
    notify_send(n, "WATCHDOG=1");
}

int32_t notify_sleep_ms(const struct notifier *n, int32_t max_ms)
{
    uint64_t quarter_ms = n->watchdog_ns / 4000000;
    if (n->fd < 0 || n->watchdog_ns == 0 || quarter_ms >= (uint64_t)max_ms)
        return max_ms;
    return quarter_ms < 1 ? 1 : (int32_t)quarter_ms;
}
