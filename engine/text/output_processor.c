/* output_processor.c - stop strings in a stream of text.
 *
 * Each stop string runs its own automaton (Knuth, Morris, Pratt, 1977) over the bytes: the state is
 * how many bytes of the stop string the text ends with. So a match is seen on its last byte however
 * the text was cut, every byte costs constant time on average, and the largest state is exactly
 * what must be held back. Of several stop strings the one that ends first wins, then list order:
 * what a client gets does not depend on where the tokens' borders lie. */
#include "engine/text/output_processor.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

struct stop_string {
    const char *text;
    int32_t len, state;
    int32_t *border; /* [len + 1]: longest proper prefix of text[0..i) that is also its suffix */
};

struct output_processor {
    struct detokenizer *detokenizer;
    struct stop_string *stops; /* [num_stop] */
    int32_t num_stop;
    bool include_stop, stopped;
    int32_t min_tokens, num_tokens;
    struct buf held;           /* text not handed out begins at held_from */
    size_t held_from, scanned; /* offsets in `held`; scanned: bytes the automata have seen */
    size_t text_len;           /* bytes handed out */
};

static void build_borders(struct stop_string *s)
{
    s->border = xcalloc((size_t)s->len + 1, sizeof *s->border);
    int32_t k = 0;
    for (int32_t i = 1; i < s->len; i++) {
        while (k > 0 && s->text[i] != s->text[k])
            k = s->border[k];
        if (s->text[i] == s->text[k])
            k++;
        s->border[i + 1] = k;
    }
}

struct output_processor *output_processor_new(const struct tokenizer *t,
                                              const struct output_processor_options *o)
{
    struct output_processor *p = xcalloc(1, sizeof *p);
    p->detokenizer = detokenizer_new(t, o->prompt_ids, o->num_prompt_ids, o->skip_special_tokens);
    p->num_stop = o->num_stop;
    p->include_stop = o->include_stop_str_in_output;
    p->min_tokens = o->min_tokens;
    p->stops = xcalloc((size_t)o->num_stop, sizeof *p->stops);
    for (int32_t i = 0; i < o->num_stop; i++) {
        p->stops[i] =
            (struct stop_string){ .text = o->stop[i], .len = (int32_t)strlen(o->stop[i]) };
        build_borders(&p->stops[i]);
    }
    buf_init(&p->held, 0);
    return p;
}

/* Feeds one byte; true when the stop string ends with it. */
static bool advance(struct stop_string *s, char byte)
{
    while (s->state > 0 && (s->state == s->len || s->text[s->state] != byte))
        s->state = s->border[s->state];
    if (s->text[s->state] == byte)
        s->state++;
    return s->state == s->len;
}

/* Runs the automata over what is new. Returns the index of the stop string found, with *end the
 * offset behind it, or -1. */
static int32_t scan(struct output_processor *p, bool may_stop, size_t *end)
{
    for (; p->scanned < p->held.len; p->scanned++) {
        int32_t found = -1;
        for (int32_t i = 0; i < p->num_stop; i++) {
            if (advance(&p->stops[i], p->held.data[p->scanned]) && found < 0)
                found = i;
        }
        if (found >= 0 && may_stop) {
            *end = ++p->scanned;
            return found;
        }
    }
    return -1;
}

/* Bytes at the end that may yet turn out to begin a stop string. */
static size_t held_back(const struct output_processor *p)
{
    int32_t most = 0;
    for (int32_t i = 0; i < p->num_stop; i++) {
        const struct stop_string *s = &p->stops[i];
        int32_t state = s->state == s->len ? s->border[s->len] : s->state;
        if (state > most)
            most = state;
    }
    return (size_t)most;
}

/* Hands out everything up to offset `to`. */
static void release(struct output_processor *p, size_t to, struct buf *out)
{
    if (to > p->held_from) {
        buf_append(out, p->held.data + p->held_from, to - p->held_from);
        p->text_len += to - p->held_from;
        p->held_from = to;
    }
    /* Move what is left only when the free part is at least as large: constant cost per byte. */
    size_t left = p->held.len - p->held_from;
    if (p->held_from > 0 && p->held_from >= left) {
        memmove(p->held.data, p->held.data + p->held_from, left);
        p->held.len = left;
        p->scanned -= p->held_from;
        p->held_from = 0;
    }
}

static int32_t process(struct output_processor *p, bool last, struct buf *out)
{
    size_t end;
    int32_t found = scan(p, p->num_tokens > p->min_tokens, &end);
    if (found >= 0) {
        p->stopped = true;
        release(p, p->include_stop ? end : end - (size_t)p->stops[found].len, out);
        return found;
    }
    release(p, last ? p->held.len : p->held.len - held_back(p), out);
    return -1;
}

int32_t output_processor_push(struct output_processor *p, int32_t id, struct buf *out)
{
    if (p->stopped)
        return -1;
    p->num_tokens++;
    detokenizer_push(p->detokenizer, id, &p->held);
    return process(p, false, out);
}

int32_t output_processor_finish(struct output_processor *p, struct buf *out)
{
    if (p->stopped)
        return -1;
    detokenizer_finish(p->detokenizer, &p->held);
    int32_t found = process(p, true, out);
    p->stopped = true;
    return found;
}

size_t output_processor_text_len(const struct output_processor *p)
{
    return p->text_len;
}

void output_processor_free(struct output_processor *p)
{
    if (!p)
        return;
    for (int32_t i = 0; i < p->num_stop; i++)
        free(p->stops[i].border);
    free(p->stops);
    detokenizer_free(p->detokenizer);
    buf_free(&p->held);
    free(p);
}
