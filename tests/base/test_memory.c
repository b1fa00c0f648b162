/* test_memory.c - arena and buf: alignment, zeroing, ceilings. */
#include "base/arena.h"
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdlib.h>

static void test_arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    srand(1);
    size_t total = 0;
    for (int i = 0; i < 3000; i++) {
        size_t size = (size_t)(rand() % 7 == 0 ? rand() % 40000 : rand() % 100);
        unsigned char *p = arena_alloc(&a, size);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t k = 0; k < size; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xAA, size);
        total += size;
    }
    assert_int_equal(a.used_bytes, total);
    assert_string_equal(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    assert_string_equal(arena_strndup(&a, "abcdef", 3), "abc");
    arena_free(&a);
    assert_int_equal(a.used_bytes, 0);
}

static void test_buf_grows_and_stops_at_its_ceiling(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    assert_string_equal(buf_str(&b), "");
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%03d,", i);
    assert_int_equal(b.len, 4000);
    assert_memory_equal(b.data + 3996, "999,", 5);
    buf_free(&b);
    buf_init(&b, 5);
    buf_append_str(&b, "abcd");
    buf_append_str(&b, "ef"); /* does not fit: dropped whole */
    assert_true(b.overflow);
    assert_string_equal(buf_str(&b), "abcd");
    buf_append_char(&b, 'e');
    assert_string_equal(buf_str(&b), "abcde");
    buf_clear(&b);
    assert_false(b.overflow);
    char *taken = buf_take(&b);
    assert_string_equal(taken, "");
    free(taken);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(test_buf_grows_and_stops_at_its_ceiling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
