/* test_safetensors.c - one table of hostile headers, one of hostile directories, each with the
 * words its message must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- one file -------------------------------------------------------------------------------- */

/* A file of that header and so many zero bytes. */
static unsigned char *make_file(const char *header, size_t data_bytes, size_t *size)
{
    size_t len = strlen(header);
    *size = 8 + len + data_bytes;
    unsigned char *file = calloc(1, *size);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)len >> (8 * i));
    memcpy(file + 8, header, len);
    return file;
}

static bool read_bytes(const void *file, size_t size, struct checkpoint **out, struct status *st)
{
    status_clear(st);
    *out = checkpoint_new();
    return safetensors_read_header(*out, checkpoint_use_memory(*out, "x.safetensors", file, size),
                                   st) &&
           checkpoint_seal(*out, st);
}

static void expect_refused(const char *header, size_t data_bytes, const char *words)
{
    struct status st;
    struct checkpoint *c;
    size_t size;
    unsigned char *file = make_file(header, data_bytes, &size);
    bool ok = read_bytes(file, size, &c, &st);
    if (ok || !strstr(st.message, words) || !strstr(st.message, "x.safetensors") ||
        strchr(st.message, '\n'))
        fail_msg("%s\n  expected: %s\n  message:  %s", header, words, ok ? "(taken)" : st.message);
    checkpoint_close(c);
    free(file);
}

#define F32(name, shape, begin, end)                                                               \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void test_good_file(void **state)
{
    (void)state;
    struct status st;
    struct checkpoint *c;
    size_t size;
    unsigned char *file =
        make_file("{\"__metadata__\":{\"format\":\"pt\"}," F32("b", "[2,3]", 4, 28) "," F32(
                      "a", "[]", 0, 4) "," F32("empty", "[0,5]", 28, 28) "}  ",
                  28, &size);
    assert_true(read_bytes(file, size, &c, &st));
    assert_int_equal(c->num_tensors, 3);
    const struct checkpoint_tensor *a = checkpoint_find(c, "a"), *b = checkpoint_find(c, "b");
    assert_int_equal(a->num_dims, 0);
    assert_int_equal(a->size_bytes, 4);
    assert_ptr_equal(b->data, a->data + 4);
    assert_ptr_equal(b->data + 24, file + size);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_string_equal(b->type->name, "F32");
    assert_string_equal(b->file, "x.safetensors");
    assert_int_equal(checkpoint_find(c, "empty")->size_bytes, 0);
    assert_null(checkpoint_find(c, "c"));
    checkpoint_close(c);
    free(file);
}

static void test_hostile_headers(void **state)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *words;
    } cases[] = {
        /* not a header at all */
        { "", 0, "does not begin with '{'" },
        { " {}", 0, "does not begin with '{'" },
        { "[]", 0, "does not begin with '{'" },
        { "{", 0, "not valid JSON" },
        { "{}x", 0, "not valid JSON" },
        { "{\"a\\u0000b\":1}", 0, "not valid JSON" },
        { "{\"a\":\"\xff\"}", 0, "not valid JSON" },
        { "{" F32("a", "[1]", 0, 4) "," F32("a", "[1]", 0, 4) "}", 4, "not valid JSON" },
        { "{\"__metadata__\":[]}", 0, "__metadata__" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__" },
        /* names */
        { "{" F32("", "[1]", 0, 4) "}", 4, "name is empty" },
        { "{" F32("a\\nb", "[1]", 0, 4) "}", 4, "not printable" },
        /* entries */
        { "{\"a\":3}", 0, "'a': its entry is not an object" },
        { "{\"a\":{}}", 0, "'a': its entry must have" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, "must have dtype, shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"b\":1}}", 4,
          "nothing else" },
        { "{\"a\":{\"dtype\":\"F33\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
          "'a': unknown dtype \"F33\"" },
        { "{\"a\":{\"dtype\":5,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "unknown dtype 5" },
        /* shapes */
        { "{" F32("a", "3", 0, 4) "}", 4, "'a': shape 3 is not a list" },
        { "{" F32("a", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "at most 8" },
        { "{" F32("a", "[-1]", 0, 4) "}", 4, "shape [-1]" },
        { "{" F32("a", "[1.0]", 0, 4) "}", 4, "shape [1.0]" },
        { "{" F32("a", "[99999999999999999999]", 0, 4) "}", 4, "not valid JSON" },
        { "{" F32("a", "[4294967296,4294967296]", 0, 4) "}", 4, "does not fit 64 bits" },
        { "{" F32("a", "[2305843009213693952,8]", 0, 64) "}", 64, "does not fit 64 bits" },
        /* 2^62 elements of 4 bytes wrap to 0 */
        { "{" F32("a", "[4611686018427387904]", 0, 0) "}", 0, "does not fit 64 bits" },
        { "{" F32("a", "[2]", 0, 4) "}", 4, "takes 8 bytes, but data_offsets span 4" },
        { "{" F32("a", "[1]", 0, 8) "}", 8, "takes 4 bytes, but data_offsets span 8" },
        { "{" F32("a", "[0,9223372036854775807]", 0, 4) "}", 4, "takes 0 bytes" },
        /* offsets */
        { "{" F32("a", "[1]", 4, 0) "}", 4, "data_offsets [4,0]" },
        { "{" F32("a", "[1]", -4, 0) "}", 4, "data_offsets [-4,0]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4, "data_offsets [0]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4,8]}}", 8, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":{}}}", 8, "data_offsets {}" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4.0]}}", 8, "data_offsets" },
        { "{" F32("a", "[2]", 0, 8) "}", 7, "lie outside the file, which holds 7 bytes" },
        { "{" F32("a", "[1]", 9223372036854775803, 9223372036854775807) "}", 4, "outside" },
        /* layout */
        { "{" F32("a", "[2]", 0, 8) "," F32("b", "[1]", 4, 8) "}", 8, "'b' overlaps 'a'" },
        { "{" F32("a", "[1]", 0, 4) "," F32("b", "[1]", 0, 4) "}", 4, "overlaps" },
        { "{" F32("a", "[1]", 4, 8) "}", 8, "4 bytes before tensor 'a'" },
        { "{" F32("a", "[1]", 0, 4) "," F32("b", "[1]", 8, 12) "}", 12, "before tensor 'b'" },
        { "{" F32("a", "[1]", 0, 4) "}", 9, "last 5 bytes belong to no tensor" },
        { "{}", 1, "last 1 bytes" },
        { "{" F32("a", "[2]", 0, 8) "," F32("b", "[0]", 4, 4) "}", 8, "'b' overlaps 'a'" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(cases[i].header, cases[i].data_bytes, cases[i].words);
}

static void test_hostile_lengths(void **state)
{
    static const struct {
        uint64_t claimed;
        size_t size;
        const char *words;
    } cases[] = {
        { 0, 0, "too few" },
        { 0, 7, "too few" },
        { 0, 8, "does not begin" },
        { 3, 10, "past the end" },
        { 1ull << 40, 100, "not a safetensors file" },
        { UINT64_MAX, 100, "not a safetensors file" },
        { UINT64_MAX - 7, 100, "not a safetensors file" },
        { LIMIT_SAFETENSORS_HEADER_BYTES, 100, "past the end" },
        { LIMIT_SAFETENSORS_HEADER_BYTES + 1, 100, "at most" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct status st;
        struct checkpoint *c;
        unsigned char *file = malloc(cases[i].size + 1);
        memset(file, ' ', cases[i].size);
        for (size_t b = 0; b < 8 && b < cases[i].size; b++)
            file[b] = (unsigned char)(cases[i].claimed >> (8 * b));
        assert_false(read_bytes(file, cases[i].size, &c, &st));
        if (!strstr(st.message, cases[i].words))
            fail_msg("case %zu: %s", i, st.message);
        checkpoint_close(c);
        free(file);
    }
}

/* 100,000 brackets: the parser's own depth limit must stop it, not the stack. */
static void test_deep_header(void **state)
{
    (void)state;
    size_t depth = 100000;
    char *header = malloc(depth + 16);
    strcpy(header, "{\"a\":");
    memset(header + 5, '[', depth);
    header[5 + depth] = '\0';
    expect_refused(header, 0, "not valid JSON");
    free(header);
}

static void test_long_name(void **state)
{
    (void)state;
    char header[LIMIT_TENSOR_NAME_BYTES + 200], name[LIMIT_TENSOR_NAME_BYTES + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", name);
    expect_refused(header, 4, "longer than");
}

/* --- directories ----------------------------------------------------------------------------- */

static char dir[64];

static void write_file(const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

static void write_tensors(const char *name, const char *header, size_t data_bytes)
{
    size_t size;
    unsigned char *file = make_file(header, data_bytes, &size);
    write_file(name, file, size);
    free(file);
}

static void new_dir(void)
{
    strcpy(dir, "/tmp/inferd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static void remove_dir(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* Two shards, a in the first, b and c in the second; then one index per case. */
static void test_hostile_indexes(void **state)
{
    static const struct {
        const char *index;
        const char *words; /* NULL: it must be taken */
    } cases[] = {
        { "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\"}}", NULL },
        { "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\"}}", "2.st: tensor 'c' is not in model" },
        { "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"1.st\",\"c\":\"2.st\"}}",
          "tensor 'b' is not in 1.st" },
        { "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\",\"d\":\"2.st\"}}",
          "tensor 'd' is not in 2.st" },
        { "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"3.st\"}}", "is missing: 3.st" },
        { "{\"weight_map\":{\"a\":\"../1.st\"}}", "not the name of a file" },
        { "{\"weight_map\":{\"a\":\"..\"}}", "not the name of a file" },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not the name of a file" },
        { "{\"weight_map\":{\"a\":\"\"}}", "not the name of a file" },
        { "{\"weight_map\":{\"a\":\"x\\ny\"}}", "not the name of a file" },
        { "{\"weight_map\":{\"a\":7}}", "said to be in 7" },
        { "{\"weight_map\":{\"a\\u001b[2J\":\"1.st\"}}", "not printable" },
        { "{\"weight_map\":{}}", "no weight_map" },
        { "{\"weight_map\":[]}", "no weight_map" },
        { "{}", "no weight_map" },
        { "[]", "not an object" },
        { "", "not valid JSON" },
        { "{\"weight_map\":{\"a\":\"sub\"}}", "sub: not a regular file" },
        { "{\"weight_map\":{\"a\":\"pipe\"}}", "pipe: not a regular file" },
        { "{\"weight_map\":{\"a\":\"empty\"}}", "empty: the file is empty" },
        { "{\"weight_map\":{\"a\":\"1.st\",\"x\":\"copy.st\"}}", "is in" },
    };
    char path[128];
    (void)state;
    new_dir();
    write_tensors("1.st", "{" F32("a", "[1]", 0, 4) "}", 4);
    write_tensors("copy.st", "{" F32("a", "[1]", 0, 4) "}", 4);
    write_tensors("2.st", "{" F32("b", "[1]", 0, 4) "," F32("c", "[1]", 4, 8) "}", 8);
    write_file("empty", "", 0);
    snprintf(path, sizeof path, "%s/sub", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct status st = { 0 };
        struct checkpoint *c = NULL;
        write_file("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        bool ok = safetensors_open(dir, &c, &st);
        if (ok != !cases[i].words || (!ok && !strstr(st.message, cases[i].words)))
            fail_msg("%s\n  message: %s", cases[i].index, ok ? "(taken)" : st.message);
        if (ok)
            assert_int_equal(c->num_tensors, 3);
        checkpoint_close(c);
    }
    remove_dir();
}

static void test_directories(void **state)
{
    struct status st = { 0 };
    struct checkpoint *c = NULL;
    (void)state;
    new_dir();
    assert_false(safetensors_open(dir, &c, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(st.message, "neither model.safetensors nor"));

    write_tensors("model.safetensors", "{" F32("a", "[1]", 0, 4) "}", 4);
    assert_true(safetensors_open(dir, &c, &st));
    assert_non_null(checkpoint_find(c, "a"));
    checkpoint_close(c);

    /* A cut file is refused, not read past its end. */
    write_tensors("model.safetensors", "{" F32("a", "[1]", 0, 4) "}", 3);
    assert_false(safetensors_open(dir, &c, &st));
    assert_non_null(strstr(st.message, "model.safetensors: tensor 'a'"));
    remove_dir();
}

/* Truncation and single-byte damage at every place of a good file: refused or harmless. */
static void test_every_damage(void **state)
{
    size_t size;
    unsigned char *file = make_file(
        "{" F32("a", "[2,1]", 0, 8) "," F32("b", "[1]", 8, 12) "," F32("c", "[0]", 12, 12) "}", 12,
        &size);
    (void)state;
    for (size_t at = 0; at < size; at++) {
        struct status st;
        struct checkpoint *c;
        unsigned char *cut = malloc(at + 1); /* exactly sized, so that asan sees an overrun */
        memcpy(cut, file, at);
        assert_false(read_bytes(cut, at, &c, &st));
        checkpoint_close(c);
        free(cut);
        for (int bit = 0; bit < 8; bit++) {
            file[at] ^= (unsigned char)(1 << bit);
            read_bytes(file, size, &c, &st);
            for (size_t i = 0; i < c->num_tensors; i++)
                if (c->tensors[i].data)
                    assert_true(c->tensors[i].data + c->tensors[i].size_bytes <= file + size);
            checkpoint_close(c);
            file[at] ^= (unsigned char)(1 << bit);
        }
    }
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file),       cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_hostile_lengths), cmocka_unit_test(test_deep_header),
        cmocka_unit_test(test_long_name),       cmocka_unit_test(test_hostile_indexes),
        cmocka_unit_test(test_directories),     cmocka_unit_test(test_every_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
