/* tokenizer.c - picks the kind of tokenizer a model directory holds, and the parts all kinds share.
 */
#include "engine/text/tokenizer.h"
#include "base/utf8.h"
#include "engine/text/json_tokenizer.h"
#include "engine/text/spm_tokenizer.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_kind.h"

#include <stdlib.h>
#include <string.h>

bool tokenizer_load(const char *model_dir, struct tokenizer **out, struct status *st)
{
    struct tokenizer_config config;
    *out = NULL;
    if (!tokenizer_config_load(model_dir, &config, st))
        return false;
    bool ok = json_tokenizer_load(model_dir, &config, out, st);
    if (!ok && st->code == STATUS_NOT_FOUND) {
        status_clear(st);
        ok = spm_tokenizer_load(model_dir, &config, out, st);
        if (!ok && st->code == STATUS_NOT_FOUND)
            status_set(st, STATUS_NOT_FOUND,
                       "%s holds neither tokenizer.json nor tokenizer.model; copy the model's "
                       "tokenizer files there",
                       model_dir);
    }
    tokenizer_config_free(&config);
    return ok;
}

void tokenizer_free(struct tokenizer *t)
{
    if (t)
        t->kind->free(t);
}

/* A copy of `text` in which U+FFFD stands for what is not UTF-8. */
static void replace_invalid(const char *text, size_t len, struct buf *out)
{
    while (len > 0) {
        size_t n = utf8_valid_prefix(text, len);
        buf_append(out, text, n);
        text += n;
        len -= n;
        if (len > 0) {
            n = utf8_invalid_len(text, len);
            buf_append(out, "\xEF\xBF\xBD", 3);
            text += n;
            len -= n;
        }
    }
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                      bool add_special_tokens, size_t max_tokens, struct token_list *out,
                      struct status *st)
{
    size_t before = out->len;
    struct buf fixed;
    buf_init(&fixed, 0);
    if (!utf8_valid(text, len)) {
        replace_invalid(text, len, &fixed);
        text = buf_str(&fixed);
        len = fixed.len;
    }
    struct token_sink sink = { out, max_tokens > SIZE_MAX - before ? SIZE_MAX : before + max_tokens,
                               false };
    bool ok = t->kind->encode(t, text, len, add_special_tokens, &sink, st);
    if (ok && sink.full)
        ok = status_set(st, STATUS_INVALID, "the text has more than %zu tokens; shorten it",
                        max_tokens);
    if (!ok)
        out->len = before;
    buf_free(&fixed);
    return ok;
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                      bool skip_special_tokens, struct buf *out)
{
    t->kind->decode(t, ids, count, skip_special_tokens, out);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->vocab.size;
}

const char *tokenizer_id_to_piece(const struct tokenizer *t, int32_t id)
{
    const struct vocab_piece *p = vocab_piece(&t->vocab, id);
    return p ? p->text : NULL;
}

int32_t tokenizer_piece_to_id(const struct tokenizer *t, const char *piece)
{
    return vocab_find(&t->vocab, piece, strlen(piece));
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    const struct vocab_piece *p = vocab_piece(&t->vocab, id);
    return p && p->special;
}

void tokenizer_id_bytes(const struct tokenizer *t, int32_t id, struct buf *out)
{
    if (vocab_piece(&t->vocab, id))
        t->kind->id_bytes(t, id, out);
}

int32_t tokenizer_bos_id(const struct tokenizer *t)
{
    return t->bos_id;
}

int32_t tokenizer_eos_id(const struct tokenizer *t)
{
    return t->eos_id;
}
