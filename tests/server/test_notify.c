/* Tests of notify.h against a socket of the test's own, by path and by abstract name. */
#include "server/notify.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static int bind_supervisor(const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t len = strlen(name);
    memcpy(a.sun_path, name, len);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] == '/'));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    return fd;
}

static const char *receive(int fd)
{
    static char text[2048];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (n < 0)
        return "(nothing)";
    text[n] = '\0';
    return text;
}

static void test_messages(void **state)
{
    char path[64], abstract[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/inferd-notify-%d", (int)getpid());
    snprintf(abstract, sizeof abstract, "@inferd-notify-%d", (int)getpid());
    const char *const names[] = { path, abstract };
    for (int i = 0; i < 2; i++) {
        struct notifier n;
        int fd = bind_supervisor(names[i]);
        notify_open(&n, names[i], 0);
        notify_send(&n, "STATUS=loading: %s", "weights");
        assert_string_equal(receive(fd), "STATUS=loading: weights");
        notify_send(&n, "READY=1\nSTATUS=serving");
        assert_string_equal(receive(fd), "READY=1\nSTATUS=serving");
        notify_watchdog(&n, 1000, 1);
        assert_string_equal(receive(fd), "(nothing)"); /* no watchdog asked for */
        notify_close(&n);
        close(fd);
    }
    unlink(path);
}

/* Reads all, a little later. */
static void *read_late(void *arg)
{
    static char last[2048];
    int fd = *(int *)arg;
    usleep(50000);
    for (int quiet = 0; quiet < 10; usleep(10000)) {
        const char *text = receive(fd);
        quiet = strcmp(text, "(nothing)") == 0 ? quiet + 1 : 0;
        if (quiet == 0)
            snprintf(last, sizeof last, "%s", text);
    }
    return last;
}

/* A supervisor that is slow to read loses what does not matter, and nothing else; one that never
 * reads is not waited for without end. */
static void test_a_full_queue(void **state)
{
    struct notifier n;
    char name[64];
    pthread_t reader;
    void *last;
    (void)state;
    snprintf(name, sizeof name, "@inferd-full-%d", (int)getpid());
    int fd = bind_supervisor(name);
    notify_open(&n, name, 2000000);
    for (int i = 0; i < 2000; i++)
        notify_send(&n, "STATUS=loading: %d", i);
    assert_int_equal(pthread_create(&reader, NULL, read_late, &fd), 0);
    notify_send(&n, "READY=1");
    assert_int_equal(pthread_join(reader, &last), 0);
    assert_string_equal(last, "READY=1");
    for (int i = 0; i < 2000; i++)
        notify_send(&n, "STATUS=serving: %d", i);
    alarm(20);
    notify_send(&n, "STOPPING=1");
    alarm(0);
    notify_close(&n);
    close(fd);
}

static void test_watchdog_follows_the_heartbeat(void **state)
{
    struct notifier n;
    char name[64];
    (void)state;
    snprintf(name, sizeof name, "@inferd-watchdog-%d", (int)getpid());
    int fd = bind_supervisor(name);
    notify_open(&n, name, 2000000); /* the supervisor waits 2 s, so a ping is due each second */
    const uint64_t second = 1000000000;
    notify_watchdog(&n, 10 * second, 1);
    assert_string_equal(receive(fd), "WATCHDOG=1");
    notify_watchdog(&n, 10 * second + second / 2, 2);
    assert_string_equal(receive(fd), "(nothing)");
    notify_watchdog(&n, 11 * second, 2);
    assert_string_equal(receive(fd), "WATCHDOG=1");
    notify_watchdog(&n, 12 * second, 2); /* stuck */
    notify_watchdog(&n, 15 * second, 2);
    assert_string_equal(receive(fd), "(nothing)");
    notify_watchdog(&n, 15 * second + 1, 3); /* and on again */
    assert_string_equal(receive(fd), "WATCHDOG=1");
    assert_int_equal(notify_sleep_ms(&n, 1000), 250);
    assert_int_equal(notify_sleep_ms(&n, 100), 100);
    notify_close(&n);
    close(fd);
}

static void test_no_supervisor(void **state)
{
    struct notifier n;
    char long_name[300];
    (void)state;
    notify_open(&n, NULL, 0);
    notify_send(&n, "READY=1");
    assert_int_equal(n.fd, -1);
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[0] = '/';
    long_name[sizeof long_name - 1] = '\0';
    notify_open(&n, long_name, 0);
    assert_int_equal(n.fd, -1);
    notify_open(&n, "relative", 0);
    assert_int_equal(n.fd, -1);
    notify_open(&n, "/nonexistent/socket", 1000);
    notify_send(&n, "READY=1"); /* fails quietly */
    notify_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_a_full_queue),
        cmocka_unit_test(test_watchdog_follows_the_heartbeat),
        cmocka_unit_test(test_no_supervisor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
