/* text_fixture.h - what the tests of engine/text share: a scratch directory to put tokenizer files
 * in, a small SentencePiece model written by hand, and shorthands. Include after cmocka. */
#ifndef INFERD_TESTS_TEXT_FIXTURE_H
#define INFERD_TESTS_TEXT_FIXTURE_H

#include "base/buf.h"
#include "engine/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fixture_dir[64];

static inline const char *fixture_make_dir(void)
{
    snprintf(fixture_dir, sizeof fixture_dir, "/tmp/inferd-text-XXXXXX");
    assert_non_null(mkdtemp(fixture_dir));
    return fixture_dir;
}

static inline void fixture_remove_dir(void)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model",
                                         "tokenizer_config.json", "special_tokens_map.json",
                                         "added_tokens.json" };
    char path[160];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", fixture_dir, names[i]);
        unlink(path);
    }
    rmdir(fixture_dir);
}

static inline void fixture_write(const char *name, const void *data, size_t len)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fixture_dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static inline void fixture_write_text(const char *name, const char *text)
{
    fixture_write(name, text, strlen(text));
}

static inline void fixture_varint(struct buf *b, unsigned value)
{
    for (; value >= 0x80; value >>= 7)
        buf_append_char(b, (char)(value | 0x80));
    buf_append_char(b, (char)value);
}

static inline void fixture_piece(struct buf *model, const char *text, float score, unsigned type)
{
    struct buf p;
    buf_init(&p, 0);
    buf_append_char(&p, 0x0A);
    fixture_varint(&p, (unsigned)strlen(text));
    buf_append_str(&p, text);
    buf_append_char(&p, 0x15);
    buf_append(&p, &score, 4);
    buf_append_char(&p, 0x18);
    fixture_varint(&p, type);
    buf_append_char(model, 0x0A);
    fixture_varint(model, (unsigned)p.len);
    buf_append(model, p.data, p.len);
    buf_free(&p);
}

/* A BPE model: <unk> <s> </s>, 256 byte pieces (ids 3 .. 258), then a few words. Neither trims nor
 * collapses spaces, as Llama's. */
static inline struct buf fixture_spm_model(void)
{
    static const char *const words[] = { "\xE2\x96\x81",
                                         "h",
                                         "e",
                                         "l",
                                         "o",
                                         "w",
                                         "r",
                                         "d",
                                         "he",
                                         "ll",
                                         "hell",
                                         "hello",
                                         "\xE2\x96\x81hello",
                                         "wo",
                                         "rl",
                                         "wor",
                                         "world",
                                         "ld",
                                         "\xE2\x96\x81w",
                                         "\xE2\x96\x81wo",
                                         "\xE2\x96\x81\xE2\x96\x81" };
    struct buf m;
    buf_init(&m, 0);
    fixture_piece(&m, "<unk>", 0, 2);
    fixture_piece(&m, "<s>", 0, 3);
    fixture_piece(&m, "</s>", 0, 3);
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        fixture_piece(&m, text, 0, 6);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        fixture_piece(&m, words[i], -(float)i, 1);
    /* trainer_spec { model_type: BPE, byte_fallback: true }, normalizer_spec {
     * add_dummy_prefix: true, remove_extra_whitespaces: false } */
    buf_append(&m, "\x12\x05\x18\x02\x98\x02\x01", 7);
    buf_append(&m, "\x1A\x04\x18\x01\x20\x00", 6);
    return m;
}

/* Loads from the scratch directory; fails the test with the loader's own message. */
static inline struct tokenizer *fixture_load(const char *dir)
{
    struct tokenizer *t;
    struct status st = { 0 };
    if (!tokenizer_load(dir, &t, &st))
        fail_msg("%s", st.message);
    return t;
}

static inline struct token_list fixture_encode(const struct tokenizer *t, const char *text,
                                               bool add_special_tokens)
{
    struct token_list list = { 0 };
    struct status st = { 0 };
    if (!tokenizer_encode(t, text, strlen(text), add_special_tokens, SIZE_MAX, &list, &st))
        fail_msg("%s", st.message);
    return list;
}

#define assert_encodes(t, text, add, ...)                                                          \
    do {                                                                                           \
        const int32_t expected_[] = { __VA_ARGS__ };                                               \
        struct token_list got_ = fixture_encode(t, text, add);                                     \
        assert_int_equal(got_.len, sizeof expected_ / sizeof *expected_);                          \
        assert_memory_equal(got_.ids, expected_, sizeof expected_);                                \
        token_list_free(&got_);                                                                    \
    } while (0)

#define assert_decodes(t, skip, text, ...)                                                         \
    do {                                                                                           \
        const int32_t ids_[] = { __VA_ARGS__ };                                                    \
        struct buf out_;                                                                           \
        buf_init(&out_, 0);                                                                        \
        tokenizer_decode(t, ids_, sizeof ids_ / sizeof *ids_, skip, &out_);                        \
        assert_string_equal(buf_str(&out_), text);                                                 \
        buf_free(&out_);                                                                           \
    } while (0)

#endif
