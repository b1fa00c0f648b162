/* fuzz_tokenizer_json.c - a tokenizer.json and a text, both hostile.
 *
 *   clang -O1 -g -fsanitize=fuzzer,address,undefined ... && fuzz_tokenizer_json -timeout=30 CORPUS
 *
 * The input is the file, a NUL byte, the text. Seeds: tests/fixtures/tokenizers. Beyond not
 * crashing, what comes out must hold together: streamed text is UTF-8, and every id is known. */
#include "base/log.h"
#include "base/utf8.h"
#include "engine/text/detokenizer.h"
#include "engine/text/json_tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void check_stream(const struct tokenizer *t, const struct token_list *ids, bool skip)
{
    struct buf out;
    buf_init(&out, 0);
    struct detokenizer *d = detokenizer_new(t, ids->ids, ids->len / 3, skip);
    for (size_t i = ids->len / 3; i < ids->len; i++)
        detokenizer_push(d, ids->ids[i], &out);
    detokenizer_finish(d, &out);
    if (!utf8_valid(buf_str(&out), out.len))
        abort();
    buf_clear(&out);
    tokenizer_decode(t, ids->ids, ids->len, skip, &out);
    if (!utf8_valid(buf_str(&out), out.len))
        abort();
    detokenizer_free(d);
    buf_free(&out);
}

static const char SAMPLE[] =
    "The  quick\n<s> 123 caf\xC3\xA9 \xE4\xBD\xA0\xF0\x9F\x90\x99 abab </s>";

static void use(const struct tokenizer *t, const char *text, size_t len)
{
    struct token_list ids = { 0 };
    struct status st = { 0 };
    struct buf bytes;
    buf_init(&bytes, 0);
    if (tokenizer_encode(t, text, len, true, 100000, &ids, &st)) {
        for (size_t i = 0; i < ids.len; i++) {
            if (!tokenizer_id_to_piece(t, ids.ids[i]))
                abort();
            tokenizer_id_bytes(t, ids.ids[i], &bytes);
        }
        check_stream(t, &ids, false);
        check_stream(t, &ids, true);
    } else if (st.code == STATUS_OK || ids.len != 0) {
        abort();
    }
    buf_free(&bytes);
    token_list_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_init(LOG_LEVEL_OFF, false);
    const char *text = memchr(data, 0, size);
    size_t len = text ? (size_t)(text - (const char *)data) : size;
    struct tokenizer *t;
    struct status st = { 0 };
    if (!json_tokenizer_parse((const char *)data, len, NULL, &t, &st)) {
        if (st.code == STATUS_OK || t)
            abort();
        return 0;
    }
    if (text)
        use(t, text + 1, size - len - 1);
    use(t, SAMPLE, sizeof SAMPLE - 1);
    tokenizer_free(t);
    return 0;
}
