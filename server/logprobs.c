/* logprobs.c - writes what the engine stored beside the tokens; each row holds the token itself,
 * then the best ones. */
#include "server/logprobs.h"

#include <stdio.h>
#include <string.h>

struct tokens {
    const struct tokenizer *tokenizer;
    bool as_ids;
    struct buf text; /* of the token asked for last */
};

static void tokens_open(struct tokens *t, const struct generation *g)
{
    t->tokenizer = engine_info(g->server->engine)->tokenizer;
    t->as_ids = g->input.params->tokens_as_token_ids;
    buf_init(&t->text, 0);
}

static void tokens_close(struct tokens *t)
{
    buf_free(&t->text);
}

static void load_bytes(struct tokens *t, int32_t id)
{
    buf_clear(&t->text);
    tokenizer_id_bytes(t->tokenizer, id, &t->text);
}

static void load_shown(struct tokens *t, int32_t id)
{
    buf_clear(&t->text);
    if (t->as_ids)
        buf_printf(&t->text, "token_id:%d", id);
    else
        tokenizer_id_bytes(t->tokenizer, id, &t->text);
}

static void put_shown(struct tokens *t, int32_t id, struct json_writer *w)
{
    load_shown(t, id);
    json_put_text(w, buf_str(&t->text), t->text.len);
}

/* Characters that begin in the text: an unfinished one is counted where it begins. */
static size_t count_characters(const struct buf *text)
{
    size_t count = 0;
    for (size_t i = 0; i < text->len; i++)
        count += ((unsigned char)text->data[i] & 0xc0) != 0x80;
    return count;
}

/* One position of the answer or of the prompt. */
struct row {
    int32_t id;
    const struct token_logprob *values; /* [1 + num_best]; NULL: the first token has none */
    int32_t num_best;
};

static struct row output_row(const struct choice *c, int32_t i)
{
    const struct request *r = c->request;
    int32_t k = r->params.num_logprobs;
    return (struct row){ .id = r->token_ids[r->num_prompt_tokens + i],
                         .values = &r->logprobs[(size_t)i * (size_t)(k + 1)],
                         .num_best = k };
}

static struct row prompt_row(const struct choice *c, int32_t i, int32_t num_best)
{
    const struct request *r = c->request;
    size_t stride = (size_t)r->params.num_prompt_logprobs + 1;
    return (struct row){ .id = r->token_ids[i],
                         .values = i == 0 ? NULL : &r->prompt_logprobs[(size_t)i * stride],
                         .num_best = num_best };
}

/* --- completions --------------------------------------------------------------------------------
 */

enum column { COLUMN_OFFSETS, COLUMN_LOGPROBS, COLUMN_TOKENS, COLUMN_BEST };

struct span {
    struct choice *choice;
    int32_t num_prompt; /* prompt tokens to begin with, 0 or all */
    int32_t from, to;   /* output tokens */
    int32_t num_best;
};

static struct row span_row(const struct span *s, int32_t i)
{
    return i < s->num_prompt ? prompt_row(s->choice, i, s->num_best)
                             : output_row(s->choice, s->from + i - s->num_prompt);
}

/* Keys of an object must differ, but two tokens may look alike: the more probable one is kept. */
static bool seen_before(struct tokens *t, const struct row *row, int32_t position)
{
    struct buf mine;
    bool seen = false;
    load_shown(t, row->values[position].token_id);
    mine = t->text;
    buf_init(&t->text, 0);
    for (int32_t i = 0; i < position && !seen; i++) {
        load_shown(t, row->values[i].token_id);
        seen = t->text.len == mine.len && memcmp(buf_str(&t->text), buf_str(&mine), mine.len) == 0;
    }
    buf_free(&t->text);
    t->text = mine;
    return seen;
}

static void put_best_by_text(struct tokens *t, const struct row *row, struct json_writer *w)
{
    json_open_object(w);
    for (int32_t i = 0; i <= row->num_best; i++) {
        if (row->values[i].token_id < 0 || seen_before(t, row, i))
            continue;
        json_put_key_text(w, buf_str(&t->text), t->text.len);
        json_put_float(w, row->values[i].logprob);
    }
    json_close_object(w);
}

static void put_cell(struct tokens *t, const struct span *s, enum column column,
                     const struct row *row, struct json_writer *w)
{
    switch (column) {
    case COLUMN_OFFSETS:
        load_bytes(t, row->id);
        json_put_int(w, (int64_t)s->choice->text_offset);
        s->choice->text_offset += count_characters(&t->text);
        break;
    case COLUMN_LOGPROBS:
        if (row->values)
            json_put_float(w, row->values[0].logprob);
        else
            json_put_null(w);
        break;
    case COLUMN_TOKENS:
        put_shown(t, row->id, w);
        break;
    case COLUMN_BEST:
        if (row->values)
            put_best_by_text(t, row, w);
        else
            json_put_null(w);
        break;
    }
}

void logprobs_put_completion(const struct generation *g, struct choice *c, bool with_prompt,
                             int32_t from, int32_t to, struct json_writer *w)
{
    static const char *const keys[] = { "text_offset", "token_logprobs", "tokens", "top_logprobs" };
    struct tokens t;
    struct span s = { .choice = c,
                      .num_prompt = with_prompt ? c->request->num_prompt_tokens : 0,
                      .from = from,
                      .to = to,
                      .num_best = c->request->params.num_logprobs };
    tokens_open(&t, g);
    json_open_object(w);
    for (int column = COLUMN_OFFSETS; column <= COLUMN_BEST; column++) {
        json_key(w, keys[column]);
        json_open_array(w);
        for (int32_t i = 0; i < s.num_prompt + to - from; i++) {
            struct row row = span_row(&s, i);
            put_cell(&t, &s, (enum column)column, &row, w);
        }
        json_close_array(w);
    }
    json_close_object(w);
    tokens_close(&t);
}

/* --- chat ---------------------------------------------------------------------------------------
 */

static void put_bytes(const struct buf *text, struct json_writer *w)
{
    json_open_array(w);
    for (size_t i = 0; i < text->len; i++)
        json_put_int(w, (unsigned char)text->data[i]);
    json_close_array(w);
}

static void put_entry(struct tokens *t, const struct token_logprob *value, struct json_writer *w)
{
    json_key(w, "token");
    put_shown(t, value->token_id, w);
    json_key(w, "logprob");
    json_put_float(w, value->logprob);
    json_key(w, "bytes");
    load_bytes(t, value->token_id);
    put_bytes(&t->text, w);
}

void logprobs_put_chat(const struct generation *g, const struct choice *c, int32_t from, int32_t to,
                       struct json_writer *w)
{
    struct tokens t;
    tokens_open(&t, g);
    json_open_object(w);
    json_key(w, "content");
    json_open_array(w);
    for (int32_t i = from; i < to; i++) {
        struct row row = output_row(c, i);
        json_open_object(w);
        put_entry(&t, &row.values[0], w);
        json_key(w, "top_logprobs");
        json_open_array(w);
        for (int32_t k = 1; k <= row.num_best; k++) {
            if (row.values[k].token_id < 0)
                continue;
            json_open_object(w);
            put_entry(&t, &row.values[k], w);
            json_close_object(w);
        }
        json_close_array(w);
        json_close_object(w);
    }
    json_close_array(w);
    json_close_object(w);
    tokens_close(&t);
}

/* --- prompt -------------------------------------------------------------------------------------
 */

static bool same_id_before(const struct row *row, int32_t position)
{
    for (int32_t i = 0; i < position; i++)
        if (row->values[i].token_id == row->values[position].token_id)
            return true;
    return false;
}

static void put_best_by_id(struct tokens *t, const struct row *row, struct json_writer *w)
{
    char key[16];
    json_open_object(w);
    for (int32_t i = 0; i <= row->num_best; i++) {
        const struct token_logprob *value = &row->values[i];
        if (value->token_id < 0 || same_id_before(row, i))
            continue;
        snprintf(key, sizeof key, "%d", value->token_id);
        json_key(w, key);
        json_open_object(w);
        json_key(w, "logprob");
        json_put_float(w, value->logprob);
        json_key(w, "rank");
        json_put_int(w, value->rank);
        json_key(w, "decoded_token");
        load_bytes(t, value->token_id);
        json_put_text(w, buf_str(&t->text), t->text.len);
        json_close_object(w);
    }
    json_close_object(w);
}

void logprobs_put_prompt(const struct generation *g, const struct choice *c, struct json_writer *w)
{
    struct tokens t;
    json_key(w, "prompt_logprobs");
    if (!g->input.params->wants_prompt_logprobs) {
        json_put_null(w);
        return;
    }
    tokens_open(&t, g);
    json_open_array(w);
    for (int32_t i = 0; i < c->request->num_prompt_tokens; i++) {
        struct row row = prompt_row(c, i, c->request->params.num_prompt_logprobs);
        if (row.values)
            put_best_by_id(&t, &row, w);
        else
            json_put_null(w);
    }
    json_close_array(w);
    tokens_close(&t);
}
