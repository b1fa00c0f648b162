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

    /* Drafts of a sequence in a step: each is a row of the step, accepted or not, and what comes
     * behind the first wrong one was for nothing. */
    LIMIT_SPECULATIVE_TOKENS = 31,
    /* Tokens that are looked up to find a draft. */
    LIMIT_PROMPT_LOOKUP = 64,

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
    /* Keys of one GGUF file, and the length of one: real files have below 100 keys of below 64
     * bytes. An entry takes 64 bytes of memory. */
    LIMIT_GGUF_KEYS = 1 << 16,
    LIMIT_GGUF_KEY_BYTES = 256,
    /* Tensors of one GGUF file: real ones have below 3000, since experts are stacked. */
    LIMIT_GGUF_TENSORS = 1 << 17,
    /* Where GGUF tensors begin: the format's default is 32; a huge page is the most that could ever
     * help. */
    LIMIT_GGUF_ALIGNMENT = 2 << 20,
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
    /* Ranks that share one model: what the largest published deployments use on one machine. */
    LIMIT_TENSOR_PARALLEL_SIZE = 64,
    /* Positions must stay exact as float32, in which rotary angles are computed: 2^24. */
    LIMIT_MODEL_LEN = 1 << 24,
};

/* --- hub: what a server of models may make us do --- */
enum {
    /* The answer that lists a repository's files: some 250 bytes each, besides a model card. Parsed
     * it takes up to forty times that while the parse lasts. */
    LIMIT_HUB_ANSWER_BYTES = 8 << 20,
    /* Files of one repository; the largest models, with all their checkpoints, have some thousand.
     */
    LIMIT_HUB_FILES = 32768,
    /* Size of one file, in GiB: the largest single files published are below 100. */
    LIMIT_HUB_FILE_GIB = 16 << 10,
    /* A file's path within its repository, and one name of it (the file systems' own limit). */
    LIMIT_HUB_PATH_BYTES = 1024,
    LIMIT_HUB_NAME_BYTES = 255,
    /* A branch, a tag or a commit: git's own ref names stay below this. */
    LIMIT_HUB_REVISION_BYTES = 255,
    /* ORG and NAME of a repository, each: the hub's own limit. */
    LIMIT_HUB_REPO_NAME_BYTES = 96,
    /* A URL that a redirect leads to; signed ones take one to two KB. */
    LIMIT_HUB_URL_BYTES = 16 << 10,
    /* Redirects of one request; the hub needs two. */
    LIMIT_HUB_REDIRECTS = 8,
    /* Failures in a row, without a megabyte in between, after which a download is given up: with
     * the pauses that double in between, about half a minute. */
    LIMIT_HUB_FAILURES = 8,
    /* The longest pause that a server may ask for; beyond that the operator should know. */
    LIMIT_HUB_RETRY_AFTER_SECONDS = 300,
    /* An answer that is no file must be whole by then. */
    LIMIT_HUB_ANSWER_SECONDS = 60,
    /* Connections of one download: servers cut each to some 50 MB/s, and refuse hundreds. */
    LIMIT_HUB_CONNECTIONS = 8,
    /* A file is fetched in parts of this size, each by one request: large enough that the request
     * costs nothing, small enough that the last ones end together. */
    LIMIT_HUB_PART_BYTES = 16 << 20,
    /* Beginning of a GGUF file that `inferd plan` fetches: tensor table and vocabulary take up to
     * ten MB. */
    LIMIT_HUB_GGUF_HEAD_BYTES = 16 << 20,
    /* Files in a snapshot's directory, and directories one in another. */
    LIMIT_HUB_SNAPSHOT_FILES = 65536,
    LIMIT_HUB_SNAPSHOT_DEPTH = 8,
    /* The token file: one line of some 40 bytes. */
    LIMIT_HUB_TOKEN_BYTES = 4096,
};

#endif
