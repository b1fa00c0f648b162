/* fuzz_gguf_vocab.c - the text metadata of a GGUF file, hostile: any tokens, scores, types, merges
 * and ids, and a text to encode.
 *
 * The input is read as a row of numbers and short texts. Beyond not crashing, what comes out must
 * hold together: every id is known, streamed text is UTF-8, an error says something. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/utf8.h"
#include "engine/text/detokenizer.h"
#include "engine/text/gguf_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 400, MAX_MERGES = 200 };

struct input {
    const unsigned char *at, *end;
};

static unsigned next_byte(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static struct gguf_text next_text(struct input *in)
{
    size_t len = next_byte(in) & 31, left = (size_t)(in->end - in->at);
    struct gguf_text t = { (const char *)in->at, len < left ? len : left };
    in->at += t.len;
    return t;
}

static const char *pick(struct input *in, const char *const *names, unsigned count)
{
    return names[next_byte(in) % count];
}

static struct gguf_text text_of(const char *s)
{
    return (struct gguf_text){ s, s ? strlen(s) : 0 };
}

static void read_tokens(struct input *in, struct gguf_vocab *v, struct gguf_text *tokens,
                        float *scores, int32_t *types)
{
    static char bytes[256][8];
    bool with_bytes = next_byte(in) & 1;
    for (unsigned b = 0; with_bytes && b < 256; b++) {
        snprintf(bytes[b], sizeof bytes[b], "<0x%02X>", b);
        tokens[v->num_tokens++] = text_of(bytes[b]);
    }
    for (unsigned n = next_byte(in) % (MAX_TOKENS - 256); n > 0; n--)
        tokens[v->num_tokens++] = next_text(in);
    for (size_t i = 0; i < v->num_tokens; i++) {
        unsigned b = next_byte(in);
        uint32_t bits = b * 0x01030507u;
        memcpy(&scores[i], &bits, sizeof bits);
        types[i] = (int32_t)(b % 9) - 1;
    }
    v->tokens = tokens;
    v->num_scores = v->num_tokens - (next_byte(in) == 1);
    v->num_types = v->num_tokens;
    v->scores = next_byte(in) & 1 ? scores : NULL;
    v->types = next_byte(in) & 1 ? types : NULL;
}

static void read_rest(struct input *in, struct gguf_vocab *v, struct gguf_text *merges)
{
    static const char *const models[] = { "llama", "gpt2", "gpt2", "t5", NULL };
    static const char *const pres[] = { "default",  "llama-bpe", "smollm", "gpt-4o", "falcon",
                                        "superbpe", "bloom",     "none",   NULL };
    static const char *const names[] = { "Phi-3", "x", NULL };
    v->model = text_of(pick(in, models, 5));
    v->pre = text_of(pick(in, pres, 9));
    v->name = text_of(pick(in, names, 3));
    for (unsigned n = next_byte(in) % MAX_MERGES; n > 0; n--)
        merges[v->num_merges++] = next_text(in);
    v->merges = next_byte(in) ? merges : NULL;
    int64_t *ids[] = { &v->bos_id, &v->eos_id, &v->unk_id, &v->eot_id, &v->eom_id, &v->pad_id };
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        *ids[i] = (int64_t)next_byte(in) * (next_byte(in) == 255 ? INT32_MAX : 1) - 1;
    enum gguf_flag *flags[] = { &v->add_bos, &v->add_eos, &v->add_space_prefix };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        *flags[i] = (enum gguf_flag)((int)(next_byte(in) % 3) - 1);
    v->chat_template = next_text(in);
    v->chat_template_tool_use = next_text(in);
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void use(const struct tokenizer *t, const char *text, size_t len)
{
    struct token_list ids = { 0 };
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    if (tokenizer_encode(t, text, len, true, 100000, &ids, &st)) {
        struct detokenizer *d = detokenizer_new(t, ids.ids, 0, true);
        for (size_t i = 0; i < ids.len; i++) {
            check(tokenizer_id_to_piece(t, ids.ids[i]) != NULL);
            detokenizer_push(d, ids.ids[i], &out);
        }
        detokenizer_finish(d, &out);
        detokenizer_free(d);
        check(utf8_valid(buf_str(&out), out.len));
    } else {
        check(st.code != STATUS_OK && st.message[0]);
    }
    buf_free(&out);
    token_list_free(&ids);
}

static void load(const struct gguf_vocab *v, const char *text, size_t len)
{
    struct tokenizer *t;
    struct chat_template *c;
    struct token_list ends = { 0 };
    struct status st = { 0 };
    gguf_vocab_eog_ids(v, &ends);
    for (size_t i = 0; i < ends.len; i++)
        check(ends.ids[i] >= 0 && (size_t)ends.ids[i] < v->num_tokens);
    token_list_free(&ends);
    if (gguf_chat_template_load(v, NULL, &c, &st))
        chat_template_free(c);
    else
        check(st.message[0]);
    status_clear(&st);
    if (gguf_tokenizer_load(v, &t, &st)) {
        use(t, text, len);
        use(t, "ab  11 <s>\xC3\xA9\n", 12);
        tokenizer_free(t);
    } else {
        check(!t && st.code != STATUS_OK && st.message[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct gguf_text tokens[MAX_TOKENS], merges[MAX_MERGES];
    static float scores[MAX_TOKENS];
    static int32_t types[MAX_TOKENS];
    struct input in = { data, data + size };
    struct gguf_vocab v;
    log_init(LOG_LEVEL_OFF, false);
    gguf_vocab_init(&v);
    v.file = "fuzz.gguf";
    struct gguf_text text = next_text(&in);
    read_tokens(&in, &v, tokens, scores, types);
    read_rest(&in, &v, merges);
    load(&v, text.data, text.len);
    return 0;
}
