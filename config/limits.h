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
    /* A new connection's first header must be whole by then; half-open ones are cheap to make. */
    LIMIT_HEADER_SECONDS = 10,
    /* The same for a body, from its header on: 32 MiB in this time need only 1 Mbit/s. */
    LIMIT_BODY_SECONDS = 300,
    /* Stack of a connection's thread. Touched pages count, not this number; templates recurse. */
    LIMIT_CONNECTION_STACK_BYTES = 1 << 20,
    /* Bodies being received over all connections: many large ones at once are an attack. */
    LIMIT_BODIES_BYTES = 1 << 30,
    /* Values in a JSON body: a number costs about 40 bytes of memory for 2 of text; an object or an
     * array costs as much as that many numbers. */
    LIMIT_JSON_COST = 4 << 20,
    LIMIT_JSON_CONTAINER_COST = 6,
    /* Bodies above this size are parsed only so many at a time: a tree of the costliest kind takes
     * 200 MB, and the others can wait the second that it lives. */
    LIMIT_LARGE_BODY_BYTES = 1 << 20,
    LIMIT_LARGE_BODIES = 4,
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

    /* Tools of one chat request: OpenAI's own ceiling. */
    LIMIT_TOOLS = 128,
    /* Token ids, log-probabilities and the like that all sequences of one HTTP request may take;
     * pages that are never reached are never touched. */
    LIMIT_REQUEST_BYTES = 256 << 20,

    /* Entries of a comma-separated option such as --bench-batch-size or --api-key. */
    LIMIT_LIST_ENTRIES = 64,
};

/* --- model: checkpoints and their description --- */
enum {
    /* config.json and generation_config.json: real ones are a few KiB, long label maps included. */
    LIMIT_MODEL_CONFIG_BYTES = 4 << 20,
    /* Header of one safetensors file, or the index of a sharded one: some 130 bytes per tensor, and
     * the largest published checkpoints have about 100,000 tensors. Parsed, it takes up to a
     * hundred times its size while the parse lasts, so it is kept below the format's own 100 MB. */
    LIMIT_SAFETENSORS_HEADER_BYTES = 32 << 20,
    /* Shards of one checkpoint: each is one mapping; the largest published have below 200. */
    LIMIT_CHECKPOINT_FILES = 4096,
    /* Length of a tensor's name, so that messages stay readable; real ones are below 100. */
    LIMIT_TENSOR_NAME_BYTES = 256,
    /* The sizes of a model: about four times the largest published. Row counts and row lengths of
     * every tensor, fused ones included, then fit 32 bits, and all byte counts 64. */
    LIMIT_HIDDEN_SIZE = 1 << 16,
    LIMIT_INTERMEDIATE_SIZE = 1 << 20,
    LIMIT_NUM_LAYERS = 1024,
    LIMIT_NUM_HEADS = 1024,
    LIMIT_HEAD_DIM = 1024,
    LIMIT_VOCAB_SIZE = 1 << 22,
    /* Groups of layers in the KV cache (engine/model/kv_cache_spec.h): each has block tables of its
     * own, which cost memory and time per sequence; the models known come out with 2 to 13. */
    LIMIT_KV_CACHE_GROUPS = 16,
    /* Positions must stay exact as float32, in which rotary angles are computed: 2^24. */
    LIMIT_MODEL_LEN = 1 << 24,
};

#endif
