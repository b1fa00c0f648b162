/* generation.h - one HTTP request that generates: its choices, from submit to the last byte.
 *
 * What the generating endpoints share: a request per prompt and choice, waiting for all of them
 * on the connection's thread, text and stop strings, usage, cancellation when a stop string
 * matches or the client leaves, and the two ways to answer, whole or as a stream of events. An
 * endpoint parses its body into a generation_input and brings the functions that write its format.
 */
#ifndef INFERD_SERVER_GENERATION_H
#define INFERD_SERVER_GENERATION_H

#include "engine/request.h"
#include "engine/text/output_processor.h"
#include "server/http.h"
#include "server/sampling_fields.h"
#include "server/server.h"

struct prompt {
    const int32_t *ids;
    int32_t num_ids;
    const char *text; /* as given or decoded; for echo, else NULL */
    size_t text_len;
};

/* One sequence of the answer. index = prompt * n + number of the choice. */
struct choice {
    struct request *request;
    struct output_processor *processor;
    const struct prompt *prompt;
    int32_t index;
    int32_t num_tokens;        /* output tokens taken from the request so far */
    struct buf text;           /* all that may be shown of them */
    enum finish_reason reason; /* FINISH_NONE: still running */
    const char *stop_string;   /* the one that ended it, or NULL */
    /* How much a stream has already shown; written by generation.c after each chunk. */
    int32_t num_tokens_sent;
    size_t text_sent;
    bool end_sent;
    /* The format's own: characters of logprob text so far, and whether its first chunk is out. */
    size_t text_offset;
    bool begun;
};

struct generation;

struct generation_format {
    const char *id_prefix;    /* "cmpl-" */
    const char *prompt_param; /* the field to name when a prompt is too long */
    /* Appends the events for what the choice shows since num_tokens_sent and text_sent. */
    void (*chunk)(const struct generation *g, struct choice *c, struct buf *out);
    const char *chunk_object; /* "chat.completion.chunk" */
    /* Appends the whole answer. */
    void (*body)(const struct generation *g, struct buf *out);
};

struct generation_input {
    const struct generation_format *format;
    const struct generation_params *params; /* in the exchange's arena, like all of this */
    const char *model;                      /* the name to report */
    const struct prompt *prompts;
    int32_t num_prompts;
    const void *format_data;
};

struct generation {
    struct exchange *x;
    struct server *server;
    struct generation_input input;
    char id[64];
    int64_t created_unix_s;
    struct choice *choices;
    int32_t num_choices, num_finished;
    int32_t num_prompt_tokens;
    uint64_t keepalive_ns; /* when a silent stream is due a comment; UINT64_MAX: never */
    struct status error;   /* of a choice that failed */
};

/* Submits and answers, with an error where that is what comes out. Takes over the reference that
 * input->params->lists holds, in every case. */
void generation_run(struct exchange *x, const struct generation_input *input);

/* The prompts of a body, and what else its format has of its own; params are read already. */
typedef bool generation_prompts(struct exchange *x, const struct json_node *body,
                                struct generation_input *in, struct generation_params *params,
                                struct status *st);
/* What a generating endpoint does: reads the body, lets `prompts` read the rest, and runs. */
void generation_serve(struct exchange *x, enum generation_kind kind,
                      const struct generation_format *format, generation_prompts *prompts);

/* --- for formats --- */
/* "stop", "length", "abort", or NULL while the choice runs. */
const char *generation_finish_reason(const struct choice *c);
/* The keys finish_reason and stop_reason of a choice. */
void generation_put_finish(struct json_writer *w, const struct choice *c);
/* The key `usage` with all tokens of the answer so far. */
void generation_put_usage(const struct generation *g, struct json_writer *w);
/* The key `usage` of one chunk: nothing unless include_usage is set, null unless
 * continuous_usage_stats is, else the tokens of this choice, `num_tokens` of them new. */
void generation_put_chunk_usage(const struct generation *g, const struct choice *c,
                                int32_t num_tokens, struct json_writer *w);
/* The keys that every chunk and every answer begins with; opens the object. */
void generation_open_body(const struct generation *g, const char *object, struct json_writer *w);
void generation_put_ids(struct json_writer *w, const int32_t *ids, int32_t count);

#endif
