/* notify.h - what the supervisor (systemd, Type=notify) is told, as datagrams on $NOTIFY_SOCKET.
 *
 * Everything is a no-op where there is no such socket. Main thread only. */
#ifndef INFERD_SERVER_NOTIFY_H
#define INFERD_SERVER_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notifier {
    int fd; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_len;
    uint64_t watchdog_ns; /* time between two pings, half of what the supervisor waits; 0: none */
    uint64_t pinged_ns, pinged_heartbeat;
};

/* `socket_path`: a path, or a name in the abstract namespace after '@'; NULL: none. */
void notify_open(struct notifier *n, const char *socket_path, int64_t watchdog_usec);
void notify_close(struct notifier *n);
/* Sends assignments separated by line breaks: "READY=1\nSTATUS=...". Where the supervisor has not
 * yet read what it was told before (the system keeps about ten messages), one that begins with
 * STATUS or WATCHDOG is dropped, since another follows; any other waits for it, up to a second. */
void notify_send(struct notifier *n, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* To be called often: sends WATCHDOG=1 when one is due and `heartbeat` has moved since the last
 * one; a stuck engine thus ends in a restart. */
void notify_watchdog(struct notifier *n, uint64_t now_ns, uint64_t heartbeat);
/* How long the caller may sleep before the next call, at most `max_ms`. */
int32_t notify_sleep_ms(const struct notifier *n, int32_t max_ms);

#endif
