/* test_hub_listing.c - the three sources of a listing, and what none of them may hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "config/limits.h"
#include "engine/model/hub_listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define BLOB   "89abcdef0123456789abcdef0123456789abcdef"
#define SHA256 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static bool parse(const char *siblings, struct hub_listing *l, struct status *st)
{
    struct buf text;
    buf_init(&text, 0);
    buf_printf(&text, "{\"sha\": \"" COMMIT "\", \"x\": [{}], \"siblings\": %s}", siblings);
    bool ok = hub_listing_parse(buf_str(&text), text.len, l, st);
    buf_free(&text);
    return ok;
}

static void test_answer(void **state)
{
    struct hub_listing l;
    struct status st;
    (void)state;
    assert_true(parse("[{\"rfilename\": \"model.safetensors\", \"size\": 5000000000,"
                      "  \"blobId\": \"" BLOB "\","
                      "  \"lfs\": {\"sha256\": \"" SHA256 "\", \"size\": 5000000000}},"
                      " {\"rfilename\": \"a/b.json\", \"size\": 0, \"blobId\": \"" BLOB "\"},"
                      " {\"rfilename\": \"config.json\", \"size\": 3, \"lfs\": null}]",
                      &l, &st));
    assert_string_equal(l.commit, COMMIT);
    assert_int_equal(l.num_files, 3);
    const struct hub_file *file = hub_listing_find(&l, "model.safetensors");
    assert_string_equal(file->digest, SHA256);
    assert_true(file->size_bytes == 5000000000);
    assert_string_equal(hub_listing_find(&l, "a/b.json")->digest, BLOB);
    assert_string_equal(hub_listing_find(&l, "config.json")->digest, "");
    assert_null(hub_listing_find(&l, "b.json"));
    hub_listing_free(&l);
}

static void test_refused_answers(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[1]",
        "[{\"size\": 1}]",
        "[{\"rfilename\": 1, \"size\": 1}]",
        "[{\"rfilename\": \"../x\", \"size\": 1}]",
        "[{\"rfilename\": \"/x\", \"size\": 1}]",
        "[{\"rfilename\": \"\", \"size\": 1}]",
        "[{\"rfilename\": \"x\"}]",
        "[{\"rfilename\": \"x\", \"size\": -1}]",
        "[{\"rfilename\": \"x\", \"size\": 1.5}]",
        "[{\"rfilename\": \"x\", \"size\": 9223372036854775807}]",
        "[{\"rfilename\": \"x\", \"size\": 1, \"blobId\": \"../../x\"}]",
        "[{\"rfilename\": \"x\", \"size\": 1, \"blobId\": 7}]",
        "[{\"rfilename\": \"x\", \"size\": 1, \"lfs\": {\"sha256\": \"" BLOB "\", \"size\": 1}}]",
        "[{\"rfilename\": \"x\", \"size\": 1, \"lfs\": {\"sha256\": \"" SHA256 "\"}}]",
        "[{\"rfilename\": \"x\", \"size\": 1}, {\"rfilename\": \"x\", \"size\": 1}]",
    };
    static const char *const whole[] = { "", "[]", "{}", "{\"sha\": \"" COMMIT "\"}",
                                         "{\"sha\": \"main\", \"siblings\": []}" };
    struct hub_listing l;
    struct status st;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i], &l, &st))
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(st.code, STATUS_INVALID);
        assert_non_null(strstr(st.message, "the hub's answer"));
    }
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        assert_false(hub_listing_parse(whole[i], strlen(whole[i]), &l, &st));
}

static void test_too_many_files(void **state)
{
    struct hub_listing l;
    struct status st;
    struct buf text;
    (void)state;
    buf_init(&text, 0);
    for (int i = 0; i <= LIMIT_HUB_FILES; i++)
        buf_printf(&text, "%s{\"rfilename\":\"%d\",\"size\":1}", i ? "," : "[", i);
    buf_append_char(&text, ']');
    assert_false(parse(buf_str(&text), &l, &st));
    assert_non_null(strstr(st.message, "more than"));
    buf_free(&text);
}

static void test_tree(void **state)
{
    static const char text[] =
        "{\"format_version\": 1, \"files\": {"
        "\"config.json\": {\"size\": 519, \"blob_id\": \"" BLOB "\"},"
        "\"m.gguf\": {\"size\": 134, \"blob_id\": \"" BLOB "\", \"lfs_sha256\": \"" SHA256 "\","
        "             \"lfs_size\": 1234, \"xet_hash\": \"x\"}}}";
    static const char other[] = "{\"format_version\": 2, \"files\": {}}";
    struct hub_listing l;
    struct status st;
    (void)state;
    assert_true(hub_listing_parse_tree(text, sizeof text - 1, &l, &st));
    assert_int_equal(hub_listing_find(&l, "m.gguf")->size_bytes, 1234);
    assert_string_equal(hub_listing_find(&l, "m.gguf")->digest, SHA256);
    assert_string_equal(hub_listing_find(&l, "config.json")->digest, BLOB);
    hub_listing_free(&l);
    assert_false(hub_listing_parse_tree(other, sizeof other - 1, &l, &st));
}

static void touch(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_directory(void **state)
{
    char dir[] = "/tmp/inferd-test-XXXXXX";
    struct hub_listing l;
    struct status st;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    mkdir("sub", 0777);
    touch("config.json", "{}");
    touch("sub/x.gguf", "12345");
    assert_int_equal(symlink("sub/x.gguf", "link.gguf"), 0);
    assert_int_equal(symlink("nowhere", "broken.json"), 0);
    assert_int_equal(symlink(".", "loop"), 0);
    assert_true(hub_listing_of_directory(dir, &l, &st));
    assert_int_equal(hub_listing_find(&l, "config.json")->size_bytes, 2);
    assert_int_equal(hub_listing_find(&l, "sub/x.gguf")->size_bytes, 5);
    assert_int_equal(hub_listing_find(&l, "link.gguf")->size_bytes, 5);
    assert_null(hub_listing_find(&l, "broken.json"));
    hub_listing_free(&l);
    assert_false(hub_listing_of_directory("/tmp/inferd-test-nowhere", &l, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    unlink("loop");
    unlink("broken.json");
    unlink("link.gguf");
    unlink("sub/x.gguf");
    unlink("config.json");
    rmdir("sub");
    assert_int_equal(chdir("/"), 0);
    rmdir(dir);
}

static void test_index(void **state)
{
    static const char good[] = "{\"metadata\": {}, \"weight_map\": {\"a\": \"x.safetensors\","
                               " \"b\": \"y.safetensors\", \"c\": \"x.safetensors\"}}";
    static const char *const bad[] = {
        "{}",
        "{\"weight_map\": []}",
        "{\"weight_map\": {}}",
        "{\"weight_map\": {\"a\": 1}}",
        "{\"weight_map\": {\"a\": \"../x\"}}",
        "{\"weight_map\": {\"a\": \"sub/x\"}}",
        "{\"weight_map\": {\"a\": \".x\"}}",
    };
    struct arena a;
    struct status st;
    const char **names;
    int32_t count;
    (void)state;
    arena_init(&a);
    assert_true(hub_index_shards(good, sizeof good - 1, &a, &names, &count, &st));
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "x.safetensors");
    assert_string_equal(names[1], "y.safetensors");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(hub_index_shards(bad[i], strlen(bad[i]), &a, &names, &count, &st));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),         cmocka_unit_test(test_refused_answers),
        cmocka_unit_test(test_too_many_files), cmocka_unit_test(test_tree),
        cmocka_unit_test(test_directory),      cmocka_unit_test(test_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
