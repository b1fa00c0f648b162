/* Tests of http_connections.h on socket pairs. */
#include "server/http_connections.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { N = 4 };

static int pairs[N + 1][2];
static struct http_connection *connections[N + 1];
static struct http_connections list;

static void start(struct connection_limits limits)
{
    struct status st;
    assert_true(http_connections_start(&list, &limits, &st));
    for (int i = 0; i <= N; i++)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), 0);
}

static void stop(void)
{
    http_connections_stop(&list);
    for (int i = 0; i <= N; i++) {
        if (connections[i])
            http_connections_remove(&list, connections[i]);
        connections[i] = NULL;
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    assert_int_equal(http_connections_count(&list), 0);
    assert_null(list.first);
    assert_null(list.last);
    http_connections_free(&list);
}

/* Whether the other side has been closed for `i`, waiting a little. */
static bool has_ended(int i, int wait_ms)
{
    struct pollfd p = { .fd = pairs[i][1], .events = POLLIN };
    char byte;
    return poll(&p, 1, wait_ms) == 1 && recv(pairs[i][1], &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_oldest_idle_makes_room(void **state)
{
    (void)state;
    start((struct connection_limits){ N, 100, 100, 100 });
    for (int i = 0; i < N; i++)
        connections[i] = http_connections_add(&list, pairs[i][0]);
    http_connections_set_phase(&list, connections[0], PHASE_BUSY);
    http_connections_set_phase(&list, connections[1], PHASE_RECEIVING);
    http_connections_set_phase(&list, connections[2], PHASE_IDLE); /* later than 3 is new */
    connections[N] = http_connections_add(&list, pairs[N][0]);
    assert_true(has_ended(3, 0));
    for (int i = 0; i < 3; i++)
        assert_false(has_ended(i, 0));
    assert_false(connections[N]->refused);
    assert_int_equal(http_connections_count(&list), N + 1);
    stop();
}

static void test_refused_where_all_are_busy(void **state)
{
    (void)state;
    start((struct connection_limits){ N, 100, 100, 100 });
    for (int i = 0; i < N; i++) {
        connections[i] = http_connections_add(&list, pairs[i][0]);
        http_connections_set_phase(&list, connections[i], PHASE_BUSY);
    }
    connections[N] = http_connections_add(&list, pairs[N][0]);
    assert_true(connections[N]->refused);
    assert_false(has_ended(N, 0));
    http_connections_remove(&list, connections[1]);
    http_connections_remove(&list, connections[N]);
    connections[1] = NULL;
    connections[N] = http_connections_add(&list, pairs[N][0]);
    assert_false(connections[N]->refused);
    stop();
}

static void test_each_phase_has_its_time(void **state)
{
    (void)state;
    start((struct connection_limits){ N, 0.05, 100, 0.05 });
    for (int i = 0; i < N; i++)
        connections[i] = http_connections_add(&list, pairs[i][0]);
    http_connections_set_phase(&list, connections[1], PHASE_IDLE);
    http_connections_set_phase(&list, connections[2], PHASE_RECEIVING);
    http_connections_set_phase(&list, connections[3], PHASE_BUSY);
    assert_true(has_ended(0, 5000)); /* no header */
    assert_true(has_ended(2, 5000)); /* no body */
    assert_false(has_ended(1, 0));
    assert_false(has_ended(3, 600));
    stop();
}

static void test_stop_ends_all(void **state)
{
    (void)state;
    start((struct connection_limits){ N, 100, 100, 100 });
    for (int i = 0; i < N; i++)
        connections[i] = http_connections_add(&list, pairs[i][0]);
    http_connections_set_phase(&list, connections[0], PHASE_BUSY);
    http_connections_stop(&list);
    for (int i = 0; i < N; i++)
        assert_true(has_ended(i, 0));
    for (int i = 0; i < N; i++)
        http_connections_remove(&list, connections[i]);
    http_connections_free(&list);
    for (int i = 0; i <= N; i++) {
        connections[i] = NULL;
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oldest_idle_makes_room),
        cmocka_unit_test(test_refused_where_all_are_busy),
        cmocka_unit_test(test_each_phase_has_its_time),
        cmocka_unit_test(test_stop_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
