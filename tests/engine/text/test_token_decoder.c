/* test_token_decoder.c - each decoder, whole and as a stream; stages behind Fuse must not care
 * where a chunk ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/token_decoder.h"

#include <stdlib.h>
#include <string.h>

static struct token_decoder *load(const char *spec)
{
    struct token_decoder *d;
    struct status st = { 0 };
    json_t *json = json_loads(spec, JSON_DECODE_ANY, NULL);
    if (!token_decoder_load(json, &d, &st))
        fail_msg("%s", st.message);
    json_decref(json);
    return d;
}

/* `pieces`: separated by '|'. */
static void check(const char *spec, bool exact, const char *pieces, const char *expected)
{
    struct token_decoder *d = load(spec);
    struct token_decoder_stream *s = token_decoder_stream_open(d, exact);
    struct buf out;
    buf_init(&out, 0);
    for (const char *p = pieces;; p++) {
        size_t n = strcspn(p, "|");
        token_decoder_stream_push(s, p, n, &out);
        p += n;
        if (!*p)
            break;
    }
    token_decoder_stream_finish(s, &out);
    if (strcmp(buf_str(&out), expected) != 0)
        fail_msg("%s of %s: \"%s\", expected \"%s\"", spec, pieces, buf_str(&out), expected);
    token_decoder_stream_close(s);
    token_decoder_free(d);
    buf_free(&out);
}

#define FUSED(stage) "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"}," stage "]}"
#define LLAMA                                                                                      \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},"   \
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","      \
    "\"content\":\" \",\"start\":1,\"stop\":0}]}"

static void test_each(void **state)
{
    (void)state;
    check("null", true, "a|b|c", "a b c");
    check("{\"type\":\"Fuse\"}", true, "a|b", "ab");
    check("{\"type\":\"ByteLevel\"}", true, "\xC4\xA0|\xC3\x83|\xC2\xA9|\xC3\x83",
          " \xC3\xA9\xEF\xBF\xBD");
    check("{\"type\":\"ByteLevel\"}", true, "a b|x", "a bx");
    check("{\"type\":\"Metaspace\",\"replacement\":\"_\"}", true, "__a|_b", "a b");
    check("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}", true,
          "_a|_b", " a b");
    check("{\"type\":\"WordPiece\"}", true, "it|'s|stop|##ping|.", "it's stopping.");
    check("{\"type\":\"BPEDecoder\"}", true, "a</w>|b|c</w>", "a bc");
    check("{\"type\":\"Strip\",\"content\":\"x\",\"start\":1,\"stop\":2}", true, "xxa|axxx",
          "xaax");
    check("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[ab]\"},\"content\":\"\"}", true, "ax|by",
          "xy");
    check(LLAMA, true, "_a|_b|<0xC3>|<0xA9>|c",
          "a b\xC3\xA9"
          "c");
}

/* A row of bytes that is broken as a whole: byte for byte in the list, character for character in
 * the stream. */
static void test_byte_rows(void **state)
{
    (void)state;
    const char *row = "<0xC3>|<0xA9>|<0xFF>|x";
    check(LLAMA, true, row, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx");
    check(LLAMA, false, row, "\xC3\xA9\xEF\xBF\xBDx");
    check(LLAMA, false, "<0xC3>", "\xEF\xBF\xBD");
}

static void test_joined_stages(void **state)
{
    (void)state;
    static const char *const replace =
        FUSED("{\"type\":\"Replace\",\"pattern\":{\"String\":\"abab\"},\"content\":\"X\"}");
    static const char *const strip =
        FUSED("{\"type\":\"Strip\",\"content\":\"a\",\"start\":2,\"stop\":2}");
    static const struct {
        const char *text, *replaced, *stripped;
    } cases[] = {
        { "ababab", "Xab", "babab" },    { "aababa", "aXa", "bab" },     { "aaa", "aaa", "" },
        { "abaabab", "abaX", "baabab" }, { "bbaaaa", "bbaaaa", "bbaa" }, { "b", "b", "b" },
    };
    srand(6);
    for (int round = 0; round < 400; round++) {
        size_t k = (size_t)rand() % (sizeof cases / sizeof *cases);
        char pieces[64];
        size_t n = 0;
        for (const char *c = cases[k].text; *c; c++) {
            if (n > 0 && rand() % 2)
                pieces[n++] = '|';
            pieces[n++] = *c;
        }
        pieces[n] = '\0';
        check(replace, false, pieces, cases[k].replaced);
        check(strip, false, pieces, cases[k].stripped);
    }
}

static void test_piece_bytes(void **state)
{
    (void)state;
    struct token_decoder *d = load(LLAMA);
    struct buf out;
    buf_init(&out, 0);
    token_decoder_piece_bytes(d, "_a", 2, &out);
    token_decoder_piece_bytes(d, "<0xE2>", 6, &out);
    assert_string_equal(buf_str(&out), " a\xE2");
    buf_free(&out);
    token_decoder_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_byte_rows),
        cmocka_unit_test(test_joined_stages),
        cmocka_unit_test(test_piece_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
