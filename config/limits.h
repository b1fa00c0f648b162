/* limits.h - the hard limits that no option changes, each with its reason.
 *
 * What an operator may want to tune is an option (config/options.def). What stands here bounds the
 * memory or the time that one sender can take, far above any honest use. */
#ifndef INFERD_CONFIG_LIMITS_H
#define INFERD_CONFIG_LIMITS_H

enum {
    /* The JSON file of --config: all options with long values take under 100 KB. */
    LIMIT_CONFIG_FILE_BYTES = 1 << 20,

    /* A request line with all its headers; bearer keys and tracing headers take a few KB. Memory
     * for it is set aside per connection. */
    LIMIT_HTTP_HEADER_BYTES = 32 << 10,
    /* Nesting of a JSON body: deeper than any message or schema, shallow enough for the stack. */
    LIMIT_JSON_DEPTH = 128,

    /* Choices per prompt ("n", "best_of"): OpenAI's own ceiling. Each is a sequence of its own. */
    LIMIT_N = 128,
    /* Prompts in one completion request; a batch larger than this should be several requests. */
    LIMIT_PROMPTS_PER_REQUEST = 1024,
    /* Sequences that one HTTP request may make: prompts times n. Each costs a request struct. */
    LIMIT_SEQUENCES_PER_REQUEST = 1024,
    /* Stop strings: every one is searched for after every token. */
    LIMIT_STOP_STRINGS = 32,
    /* Bytes of one stop string: so many bytes of output must be held back from the client. */
    LIMIT_STOP_BYTES = 1024,
    /* Stop token ids: compared with every sampled token. */
    LIMIT_STOP_TOKEN_IDS = 256,
    /* Entries of logit_bias: applied to the logits at every step. OpenAI takes 300. */
    LIMIT_LOGIT_BIAS = 1024,
    /* Messages of one chat request; the body's size bounds their text. */
    LIMIT_CHAT_MESSAGES = 16384,

    /* Entries of a comma-separated option such as --bench-batch-size or --api-key. */
    LIMIT_LIST_ENTRIES = 64,
};

#endif
