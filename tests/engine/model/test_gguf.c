/* test_gguf.c - hostile GGUF files, each with the words its message must hold; splits; which file a
 * path stands for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/gguf_type.h"
#include "tests/engine/model/gguf_builder.h"

#include <sys/stat.h>
#include <unistd.h>

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q4_K = 12, IQ2_XXS = 16 };

/* --- one file -------------------------------------------------------------------------------- */

static void expect_message(const struct status *st, bool taken, const char *words)
{
    if (taken || !strstr(st->message, words) || !strstr(st->message, "x.gguf") ||
        strchr(st->message, '\n'))
        fail_msg("expected: %s\n  message:  %s", words, taken ? "(taken)" : st->message);
}

static void expect_bytes_refused(const void *data, size_t size, const char *words)
{
    struct status st;
    struct gguf *g = read_memory(data, size, &st);
    expect_message(&st, g != NULL, words);
    gguf_close(g);
}

/* Frees what the builder holds. */
static void expect_refused(struct builder *b, const char *words)
{
    size_t size;
    unsigned char *file = builder_file(b, &size);
    expect_bytes_refused(file, size, words);
    free(file);
    builder_close(b);
    builder_open(b);
}

static void test_good_file(void **state)
{
    (void)state;
    struct builder b;
    struct status st;
    size_t size;
    const uint64_t dims[3] = { 32, 3, 2 };
    builder_open(&b);
    key_u32(&b, "general.alignment", 32);
    key_text(&b, "general.architecture", "llama");
    add_tensor(&b, "second", 64, 2, Q4_0, 64);
    add_tensor(&b, "first", 4, 4, F32, 0);
    add_tensor_full(&b, "third", 3, dims, F16, 160);
    add_tensor_full(&b, "scalar", 0, NULL, F32, 544);
    b.data_bytes = 544 + 4;
    unsigned char *file = builder_file(&b, &size);
    struct gguf *g = read_memory(file, size, &st);
    if (!g)
        fail_msg("%s", st.message);
    assert_int_equal(g->checkpoint->num_tensors, 4);
    const struct checkpoint_tensor *t = checkpoint_find(g->checkpoint, "second");
    const unsigned char *data = file + size - b.data_bytes;
    assert_int_equal(t->num_dims, 2);
    assert_int_equal(t->shape[0], 2); /* the other way round than in the file */
    assert_int_equal(t->shape[1], 64);
    assert_int_equal(t->size_bytes, 4 * 18);
    assert_ptr_equal(t->data, data + 64);
    assert_string_equal(t->type->name, "Q4_0");
    assert_string_equal(t->type->format->name, "q4_0");
    t = checkpoint_find(g->checkpoint, "third");
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[2], 32);
    assert_int_equal(t->size_bytes, 384);
    t = checkpoint_find(g->checkpoint, "scalar");
    assert_int_equal(t->num_dims, 0);
    assert_int_equal(t->size_bytes, 4);
    gguf_close(g);
    free(file);
    builder_close(&b);
}

static void test_version(void **state)
{
    static const struct {
        uint32_t version;
        const char *words;
    } cases[] = { { 1, "GGUF version 1; 2 and 3 are supported" },
                  { 4, "GGUF version 4" },
                  { 0, "big-endian" },
                  { 0x03000000, "a big-endian GGUF; only little-endian" },
                  { 0x02000000, "big-endian" } };
    (void)state;
    struct builder b;
    struct status st;
    size_t size;
    builder_open(&b);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        b.version = cases[i].version;
        expect_refused(&b, cases[i].words);
    }
    b.version = 2;
    unsigned char *file = builder_file(&b, &size);
    struct gguf *g = read_memory(file, size, &st);
    assert_non_null(g);
    gguf_close(g);
    free(file);
    expect_bytes_refused("GGML", 4, "does not begin with \"GGUF\"");
    expect_bytes_refused("GGU", 3, "does not begin with \"GGUF\"");
    builder_close(&b);
}

static void test_hostile_counts(void **state)
{
    (void)state;
    struct builder b;
    builder_open(&b);
    b.num_tensors = UINT64_MAX;
    expect_refused(&b, "18446744073709551615 tensors are claimed, at most 131072");
    b.num_keys = 1ull << 40;
    expect_refused(&b, "keys are claimed");
    b.num_keys = 1;
    expect_refused(&b, "a key reaches past the end");
    b.num_tensors = 1;
    expect_refused(&b, "a tensor's name reaches past the end");
}

static void test_hostile_keys(void **state)
{
    (void)state;
    struct builder b;
    char longer[LIMIT_GGUF_KEY_BYTES + 2];
    memset(longer, 'k', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    builder_open(&b);
    key_u32(&b, longer, 1);
    expect_refused(&b, "a key is longer than 256 bytes");
    key_u32(&b, "", 1);
    expect_refused(&b, "a key is empty or not printable");
    key_u32(&b, "a\nb", 1);
    expect_refused(&b, "not printable");
    put_u64(&b.keys, 3);
    put(&b.keys, "a\0b", 3);
    put_u32(&b.keys, GGUF_U32);
    put_u32(&b.keys, 1);
    b.num_keys = 1;
    expect_refused(&b, "holds a zero byte");
    put_u64(&b.keys, UINT64_MAX - 4);
    b.num_keys = 1;
    expect_refused(&b, "a key reaches past the end");
    key_u32(&b, "a", 1);
    key_u32(&b, "b", 1);
    key_u32(&b, "a", 2);
    expect_refused(&b, "key 'a' stands there twice");
    key_begin(&b, "a", 13);
    expect_refused(&b, "key 'a': unknown value type 13");
    put_text(&b.keys, "a");
    b.num_keys = 1;
    expect_refused(&b, "key 'a': its type reaches past the end");
    key_begin(&b, "a", GGUF_U64);
    put_u32(&b.keys, 1);
    expect_refused(&b, "key 'a': its value reaches past the end");
    key_begin(&b, "a", GGUF_STRING);
    put_u64(&b.keys, 1);
    expect_refused(&b, "key 'a': its string reaches past the end");
}

static void test_hostile_arrays(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t count;
        const char *words;
    } cases[] = { { GGUF_U8, 1, "its array reaches past the end" },
                  { GGUF_U64, 1ull << 61, "its array reaches past the end" },
                  { GGUF_F32, UINT64_MAX, "its array reaches past the end" },
                  { GGUF_STRING, 1ull << 62, "its string reaches past the end" },
                  { GGUF_ARRAY, 1, "its type reaches past the end" },
                  { 99, 1, "unknown value type 99" } };
    (void)state;
    struct builder b;
    builder_open(&b);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        key_begin(&b, "a", GGUF_ARRAY);
        put_u32(&b.keys, cases[i].type);
        put_u64(&b.keys, cases[i].count);
        expect_refused(&b, cases[i].words);
    }
    key_begin(&b, "a", GGUF_ARRAY);
    for (int depth = 0; depth < 6; depth++) {
        put_u32(&b.keys, GGUF_ARRAY);
        put_u64(&b.keys, 1);
    }
    expect_refused(&b, "arrays are nested deeper than 4");
    builder_close(&b);
}

static void test_hostile_tensors(void **state)
{
    static const uint64_t five[5] = { 1, 1, 1, 1, 1 };
    static const struct {
        uint64_t cols, rows;
        uint32_t type;
        uint64_t offset, data_bytes;
        const char *words;
    } cases[] = {
        { 4, 0, F32, 0, 64, "'t': a dimension of it is 0" },
        { 1ull << 63, 1, F32, 0, 64, "a dimension of it is 9223372036854775808" },
        { 1ull << 40, 1ull << 40, F32, 0, 64, "a dimension of it is" },
        { 1ull << 62, 1, F32, 0, 64, "does not fit 64 bits" },
        { 1ull << 32, 1ull << 30, F32, 0, 64, "does not fit 64 bits" },
        { 4, 4, 4, 0, 64, "'t': unknown tensor type 4" }, /* withdrawn from the format */
        { 4, 4, 1000, 0, 64, "unknown tensor type 1000" },
        { 48, 2, Q4_0, 0, 640, "rows of 48 elements are no whole blocks of Q4_0" },
        { 128, 2, Q4_K, 0, 640, "no whole blocks of Q4_K, which hold 256" },
        { 4, 4, F32, 16, 96, "offset 16 is no multiple of the alignment 32" },
        { 4, 4, F32, 0, 63, "64 bytes at 0 lie outside the file, which holds 63 bytes" },
        { 4, 4, F32, 64, 64, "lie outside the file" },
        { 4, 4, F32, 1ull << 63, 64, "lie outside the file" },
        { 4, 4, F32, UINT64_MAX - 31, 64, "lie outside the file" },
        { 4, 4, F32, 0, 0, "which holds 0 bytes of data" },
    };
    (void)state;
    struct builder b;
    builder_open(&b);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        add_tensor(&b, "t", cases[i].cols, cases[i].rows, cases[i].type, cases[i].offset);
        b.data_bytes = cases[i].data_bytes;
        expect_refused(&b, cases[i].words);
    }
    add_tensor_full(&b, "t", 5, five, F32, 0);
    expect_refused(&b, "'t': it has 5 dimensions, at most 4");
    add_tensor_full(&b, "", 1, five, F32, 0);
    expect_refused(&b, "a tensor's name is empty");
    add_tensor(&b, "a", 4, 4, F32, 0);
    add_tensor(&b, "b", 4, 4, F32, 32);
    b.data_bytes = 96;
    expect_refused(&b, "tensor 'b' overlaps 'a'");
    add_tensor(&b, "a", 4, 4, F32, 0);
    put_text(&b.tensors, "b");
    b.num_tensors++;
    b.data_bytes = 0;
    expect_refused(&b, "tensor 'b': its entry reaches past the end");
    builder_close(&b);
}

static void test_twice(void **state)
{
    (void)state;
    struct builder b;
    struct status st;
    size_t size;
    builder_open(&b);
    add_tensor(&b, "a", 4, 4, F32, 0);
    add_tensor(&b, "a", 4, 4, F32, 64);
    b.data_bytes = 128;
    unsigned char *file = builder_file(&b, &size);
    assert_null(read_memory(file, size, &st));
    assert_non_null(strstr(st.message, "tensor 'a' is in x.gguf and again in x.gguf"));
    free(file);
    builder_close(&b);
}

static void test_alignment(void **state)
{
    (void)state;
    struct builder b;
    builder_open(&b);
    key_u32(&b, "general.alignment", 48);
    expect_refused(&b, "general.alignment is 48, which is no power of two");
    key_u32(&b, "general.alignment", 0);
    expect_refused(&b, "key 'general.alignment' is 0, expected a whole number from 1");
    key_u32(&b, "general.alignment", 1u << 31);
    expect_refused(&b, "is 2147483648, expected");
    key_text(&b, "general.alignment", "32");
    expect_refused(&b, "key 'general.alignment' is string, expected a whole number");
    key_u32(&b, "general.alignment", 64);
    add_tensor(&b, "t", 4, 4, F32, 32);
    b.data_bytes = 192;
    expect_refused(&b, "no multiple of the alignment 64");
    builder_close(&b);
}

/* Whatever is cut off, the message says so; nothing crashes. */
static void test_truncated(void **state)
{
    (void)state;
    struct builder b;
    struct status st;
    size_t size;
    builder_open(&b);
    key_text(&b, "general.architecture", "llama");
    key_texts(&b, "tokenizer.ggml.tokens", 20);
    key_f32(&b, "x", 1.5f);
    add_tensor(&b, "a", 4, 4, F32, 0);
    add_tensor(&b, "b", 32, 4, Q4_0, 64);
    b.data_bytes = 136;
    unsigned char *file = builder_file(&b, &size);
    struct gguf *g = read_memory(file, size, &st);
    assert_non_null(g);
    gguf_close(g);
    for (size_t len = 0; len < size; len++) {
        unsigned char *cut = malloc(len + 1); /* of its own, so that a read beyond shows */
        memcpy(cut, file, len);
        g = read_memory(cut, len, &st);
        expect_message(&st, g != NULL, len < 4 ? "begin" : "");
        free(cut);
    }
    free(file);
    builder_close(&b);
}

static void test_types(void **state)
{
    (void)state;
    struct buf list;
    buf_init(&list, 0);
    gguf_type_list(&list);
    assert_string_equal(buf_str(&list), "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, "
                                        "Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4");
    for (uint32_t i = 0; i < 64; i++) {
        const struct gguf_type *t = gguf_type_find(i);
        if (t && t->type.format) {
            assert_int_equal(t->type.size_bytes, t->type.format->block_bytes);
            assert_int_equal(t->block_elements, t->type.format->block_elements);
        }
    }
    assert_null(gguf_type_find(4));
    assert_null(gguf_type_find(UINT32_MAX));
    assert_null(gguf_type_find(IQ2_XXS)->type.format);
    buf_free(&list);
}

/* --- files and splits ------------------------------------------------------------------------ */

struct place {
    char dir[64];
};

static void place_open(struct place *p)
{
    strcpy(p->dir, "/tmp/inferd-gguf-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
}

static void place_close(struct place *p)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", p->dir);
    assert_int_equal(system(command), 0);
}

static const char *place_path(const struct place *p, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    return path;
}

static void write_to(const struct place *p, const char *name, const struct builder *b)
{
    size_t size;
    unsigned char *bytes = builder_file(b, &size);
    FILE *file = fopen(place_path(p, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
}

struct split {
    const char *name;
    int32_t no, count, tensors; /* -1: without the key */
    const char *tensor;
};

static void write_split(const struct place *p, const struct split *s)
{
    struct builder b;
    builder_open(&b);
    if (s->no >= 0)
        key_u32(&b, "split.no", (uint32_t)s->no);
    if (s->count >= 0)
        key_u32(&b, "split.count", (uint32_t)s->count);
    if (s->tensors >= 0)
        key_u32(&b, "split.tensors.count", (uint32_t)s->tensors);
    add_tensor(&b, s->tensor, 4, 4, F32, 0);
    b.data_bytes = 64;
    write_to(p, s->name, &b);
    builder_close(&b);
}

static void expect_open_refused(const char *path, const char *words)
{
    struct gguf *g = NULL;
    struct status st;
    status_clear(&st);
    if (gguf_open(path, &g, &st) || !strstr(st.message, words))
        fail_msg("%s\n  expected: %s\n  message:  %s", path, words, st.message);
}

static void test_splits(void **state)
{
    (void)state;
    struct place p;
    struct gguf *g;
    struct status st;
    place_open(&p);
    write_split(&p, &(struct split){ "m-00001-of-00003.gguf", 0, 3, 3, "a" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"),
                        "file 2 of 3 of the model: m-00002-of-00003.gguf: cannot open");
    write_split(&p, &(struct split){ "m-00002-of-00003.gguf", 1, 3, 3, "b" });
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", 2, 3, 3, "c" });
    if (!gguf_open(place_path(&p, "m-00001-of-00003.gguf"), &g, &st))
        fail_msg("%s", st.message);
    assert_int_equal(g->checkpoint->num_tensors, 3);
    assert_string_equal(checkpoint_find(g->checkpoint, "c")->file, "m-00003-of-00003.gguf");
    gguf_close(g);
    expect_open_refused(place_path(&p, "m-00002-of-00003.gguf"),
                        "file 2 of 3 of a split model; give the first one");
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", 1, 3, 3, "c" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"),
                        "m-00003-of-00003.gguf: split.no 1 of split.count 3, expected 2 of 3");
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", 2, 4, 3, "c" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"), "split.no 2 of split.count 4");
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", -1, -1, -1, "c" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"), "split.no 0 of split.count 1");
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", 2, 3, 3, "a" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"),
                        "tensor 'a' is in m-00001-of-00003.gguf and again in "
                        "m-00003-of-00003.gguf");
    write_split(&p, &(struct split){ "m-00003-of-00003.gguf", 2, 3, 3, "c" });
    write_split(&p, &(struct split){ "m-00001-of-00003.gguf", 0, 3, 4, "a" });
    expect_open_refused(place_path(&p, "m-00001-of-00003.gguf"),
                        "split.tensors.count is 4, but the files hold 3 tensors");
    write_split(&p, &(struct split){ "other.gguf", 0, 3, 3, "a" });
    expect_open_refused(place_path(&p, "other.gguf"), "must be named NAME-00001-of-00003.gguf");
    write_split(&p, &(struct split){ "many.gguf", 0, 70000, 3, "a" });
    expect_open_refused(place_path(&p, "many.gguf"), "key 'split.count' is 70000, expected");
    place_close(&p);
}

static void expect_found(const struct place *p, const char *name)
{
    char *path = NULL;
    struct status st;
    if (!gguf_find_in(p->dir, &path, &st))
        fail_msg("%s", st.message);
    assert_string_equal(path, place_path(p, name));
    free(path);
}

static void test_find(void **state)
{
    (void)state;
    struct place p;
    struct status st;
    char *path = NULL;
    place_open(&p);
    assert_false(gguf_find_in(p.dir, &path, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    write_split(&p, &(struct split){ "m-00001-of-00002.gguf", 0, 2, 2, "a" });
    write_split(&p, &(struct split){ "m-00002-of-00002.gguf", 1, 2, 2, "b" });
    expect_found(&p, "m-00001-of-00002.gguf");
    write_split(&p, &(struct split){ "other.gguf", -1, -1, -1, "b" });
    assert_false(gguf_find_in(p.dir, &path, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_non_null(strstr(st.message, "2 GGUF models, 'm-00001-of-00002.gguf' and 'other.gguf'"));
    assert_true(gguf_is_file(place_path(&p, "other.gguf")));
    assert_false(gguf_is_file(p.dir));
    assert_false(gguf_is_file(place_path(&p, "none.gguf")));
    write_split(&p, &(struct split){ "blob", -1, -1, -1, "b" }); /* by what it begins with */
    assert_true(gguf_is_file(place_path(&p, "blob")));
    place_close(&p);
}

static void test_no_file(void **state)
{
    (void)state;
    struct place p;
    place_open(&p);
    expect_open_refused(place_path(&p, "x.gguf"), "x.gguf: cannot open");
    assert_int_equal(mkdir(place_path(&p, "x.gguf"), 0700), 0);
    expect_open_refused(place_path(&p, "x.gguf"), "x.gguf: not a regular file");
    FILE *file = fopen(place_path(&p, "y.gguf"), "wb");
    fclose(file);
    expect_open_refused(place_path(&p, "y.gguf"), "y.gguf: the file is empty");
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file),      cmocka_unit_test(test_version),
        cmocka_unit_test(test_hostile_counts), cmocka_unit_test(test_hostile_keys),
        cmocka_unit_test(test_hostile_arrays), cmocka_unit_test(test_hostile_tensors),
        cmocka_unit_test(test_twice),          cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_truncated),      cmocka_unit_test(test_types),
        cmocka_unit_test(test_splits),         cmocka_unit_test(test_find),
        cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
