/* cuda_sizes.h - what weights and workspace take on a GPU: the arithmetic alone, without CUDA, so
 * that a plan can be made where there is none. */
#ifndef INFERD_KERNELS_CUDA_CUDA_SIZES_H
#define INFERD_KERNELS_CUDA_CUDA_SIZES_H

#include "kernels/device.h"
#include "kernels/tensor.h"

#include <string.h>

/* Kernels use it too. */
#ifdef __CUDACC__
#define CUDA_ON_BOTH __host__ __device__
#else
#define CUDA_ON_BOTH
#endif

enum {
    /* Rows of weights begin at a multiple of 16 bytes: elements of a row, rounded up to this. */
    CUDA_WEIGHT_ALIGN = 64,
    /* The context is taken in tiles of CUDA_ATTENTION_TILE positions; CUDA_ATTENTION_SPAN of them
     * make a span, which one block computes; spans are merged in rising order. Both are fixed, so
     * that a row's result depends on its own positions only. */
    CUDA_ATTENTION_TILE = 64,
    CUDA_ATTENTION_SPAN = 512,
    /* Rows (a query of one head each) that one warp's tile holds. The decode kernel takes sequences
     * of a few tiles in a step, as the heads of one query or of some drafts are, and cuts their
     * context into spans; the prefill kernel, of which a block walks through all of it, has the
     * others. The bits are the same. */
    CUDA_ATTENTION_ROWS = 16,
    CUDA_ATTENTION_DECODE_TILES = 4,
    CUDA_MAX_VALUE_DIM = 512,      /* elements of a value, of a latent too */
    CUDA_MAX_PARTIAL_SLOTS = 1024, /* (sequence, span, tile)s that decode attention does at once */
    /* Latent attention, whose partial results are many times larger. */
    CUDA_MLA_MAX_HEAD_DIM = 576,
    CUDA_MLA_MAX_VALUE_DIM = 512,
    CUDA_MLA_ROWS = 64,          /* of a block */
    CUDA_MLA_DECODE_QUERIES = 8, /* the most of a sequence of its decode kernel */
    CUDA_MLA_MAX_PARTIAL_SLOTS = 256,
    /* Of the messages of a collective that a rank receives at once; longer ones are taken in turns.
     */
    CUDA_COMM_BYTES = 16 << 20,
    CUDA_WORKSPACE_ALIGN = 256,
    /* A mixture of experts takes tokens in turns whose intermediate results fit into so many bytes,
     * or of CUDA_MOE_MIN_PAIRS (token, expert) pairs where that is more: with hundreds of experts
     * there are still enough rows for each. */
    CUDA_MOE_BYTES = 512 << 20,
    CUDA_MOE_MIN_PAIRS = 4096,
    /* What NVIDIA's documentation of cublasSetWorkspace recommends for Hopper and later, the most
     * it asks for any GPU. */
    CUDA_CUBLASLT_WORKSPACE_BYTES = 32 << 20,
    /* Codes of the words formats lie in chunks, see cuda_weight_layout. */
    CUDA_CODE_CHUNK = 64,
    CUDA_STEP_COLS = 32, /* of a product on tensor cores: what a warp takes at once */
    CUDA_ROW_ALIGN = 32, /* what one access to memory brings at least */
    CUDA_ONE_GROUP = 31  /* a shift that makes every column the first group's */
};

/* How a kernel reads weights. Up to CUDA_NF4 they are words, whose rows are rearranged; the others
 * are ggml's blocks as they are in the file. */
enum cuda_codec {
    CUDA_PLAIN,
    CUDA_INT4,
    CUDA_INT8,
    CUDA_FP8,
    CUDA_NF4,
    CUDA_Q4_0,
    CUDA_Q4_1,
    CUDA_Q5_0,
    CUDA_Q5_1,
    CUDA_Q8_0,
    CUDA_Q2_K,
    CUDA_Q3_K,
    CUDA_Q4_K,
    CUDA_Q5_K,
    CUDA_Q6_K,
    CUDA_IQ4_NL,
    CUDA_IQ4_XS,
    CUDA_MXFP4,
    NUM_CUDA_CODECS
};

/* A row of weights in device memory: row_bytes, a multiple of CUDA_ROW_ALIGN.
 *
 * Words: the codes, in chunks of 64 bytes for 128 columns of 4 bits or 64 of 8. A product's step
 * takes 32 columns, of which four lanes take 8 each: a chunk is the first lane's codes of its steps
 * (4 or 2), then the second's, and so on, so that a lane reads them with one load of 16 bytes.
 * Whole numbers of 8 bits are stored less 128. Of 8 codes of 4 bits the even ones are the lower
 * half of their word, the odd ones the upper half. From heads_at on each group has its scale and,
 * as wide, its zero point (an integer) or minimum, if the format has them. Groups are of
 * 2^group_shift columns; what lies past the last column is zero. */
struct cuda_weight_layout {
    enum cuda_codec codec;
    enum dtype dtype;       /* of activations, which weights are rounded to for products */
    enum dtype scale_dtype; /* which weights are rounded to before, unless it is float32 */
    int64_t row_bytes, heads_at;
    int32_t group_shift, head_bytes;
    int32_t offset; /* enum quant_offset */
};

static inline int64_t cuda_weight_stride(int32_t cols)
{
    return ((int64_t)cols + CUDA_WEIGHT_ALIGN - 1) / CUDA_WEIGHT_ALIGN * CUDA_WEIGHT_ALIGN;
}

/* Rows (a query of one head each) that a slot of latent attention's partial results has: one
 * query's at least. */
CUDA_ON_BOTH static inline int32_t cuda_mla_slot_rows(int32_t num_heads)
{
    return (num_heads + CUDA_MLA_ROWS - 1) / CUDA_MLA_ROWS * CUDA_MLA_ROWS;
}

/* Tiles of rows that a sequence of attention's decode kernel may have: what the step's longest
 * needs, where none has more than a few, else what one query needs, since partial results of all
 * sequences are laid out for as many. 0: one query has too many. */
CUDA_ON_BOTH static inline int32_t cuda_decode_tiles(int32_t max_query_len, int32_t group)
{
    const int64_t rows = (int64_t)max_query_len * group, few = CUDA_ATTENTION_DECODE_TILES;
    const int64_t tiles = (rows + CUDA_ATTENTION_ROWS - 1) / CUDA_ATTENTION_ROWS;
    const int32_t of_one = (group + CUDA_ATTENTION_ROWS - 1) / CUDA_ATTENTION_ROWS;
    return tiles <= few ? (int32_t)tiles : of_one <= few ? of_one : 0;
}

/* float32s of decode attention's partial results per sequence, span and tile; of latent attention's
 * per sequence and span. */
static inline size_t cuda_attention_partial_floats(const struct workspace_desc *w)
{
    if (w->latent_dim > 0)
        return (size_t)cuda_mla_slot_rows(w->num_heads) * ((size_t)w->latent_dim + 2);
    return (size_t)w->num_kv_heads * CUDA_ATTENTION_ROWS * ((size_t)w->head_dim + 2);
}

/* The parts of the workspace, each a multiple of CUDA_WORKSPACE_ALIGN, in bytes. */
struct cuda_workspace_parts {
    size_t linear, attention, sampling, moe, comm, cublaslt;
    int32_t partial_slots;
};

static inline size_t cuda_workspace_total(const struct cuda_workspace_parts *p)
{
    return p->linear + p->attention + p->sampling + p->moe + p->comm + p->cublaslt;
}

static inline size_t cuda_workspace_aligned(size_t bytes)
{
    return (bytes + CUDA_WORKSPACE_ALIGN - 1) / CUDA_WORKSPACE_ALIGN * CUDA_WORKSPACE_ALIGN;
}

/* Where the parts of a mixture's workspace begin, in bytes. A pair is a token with one of its
 * experts; its place is its number in the order of experts. */
struct cuda_moe_parts {
    int32_t max_pairs;   /* of a turn */
    size_t ids, weights; /* [tokens, k] the choices */
    size_t places;       /* [tokens, k] where each pair went */
    size_t pairs;        /* [pairs] the pair at each place */
    size_t counts;       /* [num_experts] */
    size_t begin;        /* [num_experts + 1] each expert's places */
    size_t tiles;        /* [pairs] struct cuda_tile */
    size_t num_tiles;    /* [1] */
    size_t outer;        /* [pairs, stride of hidden_size] x, rounded; then what down gives */
    size_t inner;        /* [pairs, 2 * intermediate_size] what gate_up gives */
    size_t activated;    /* [pairs, stride of intermediate_size] rounded */
    size_t bytes;        /* of all */
};

static inline struct cuda_moe_parts cuda_moe_parts(const struct workspace_desc *w)
{
    struct cuda_moe_parts p;
    memset(&p, 0, sizeof p);
    if (w->num_experts == 0 || w->max_num_tokens == 0)
        return p;
    const size_t outer = (size_t)cuda_weight_stride(w->moe_hidden_size) * sizeof(float);
    const size_t inner = 2 * (size_t)w->moe_intermediate_size * sizeof(float);
    const size_t activated = (size_t)cuda_weight_stride(w->moe_intermediate_size) * sizeof(float);
    const size_t word = sizeof(int32_t), experts = (size_t)w->num_experts;
    const size_t fit = (size_t)CUDA_MOE_BYTES / (outer + inner + activated);
    const size_t k = (size_t)w->num_experts_per_tok;
    const size_t least = CUDA_MOE_MIN_PAIRS;
    size_t tokens = (fit > least ? fit : least) / k;
    tokens = tokens < 1 ? 1 : tokens;
    tokens = tokens < (size_t)w->max_num_tokens ? tokens : (size_t)w->max_num_tokens;
    const size_t pairs = tokens * k;
    p.max_pairs = (int32_t)pairs;
    p.weights = p.ids + cuda_workspace_aligned(pairs * word);
    p.places = p.weights + cuda_workspace_aligned(pairs * sizeof(float));
    p.pairs = p.places + cuda_workspace_aligned(pairs * word);
    p.counts = p.pairs + cuda_workspace_aligned(pairs * word);
    p.begin = p.counts + cuda_workspace_aligned(experts * word);
    p.tiles = p.begin + cuda_workspace_aligned((experts + 1) * word);
    p.num_tiles = p.tiles + cuda_workspace_aligned(pairs * 2 * word);
    p.outer = p.num_tiles + cuda_workspace_aligned(word);
    p.inner = p.outer + cuda_workspace_aligned(pairs * outer);
    p.activated = p.inner + cuda_workspace_aligned(pairs * inner);
    p.bytes = p.activated + cuda_workspace_aligned(pairs * activated);
    return p;
}

static inline int32_t cuda_num_spans(int32_t len)
{
    return (len + CUDA_ATTENTION_SPAN - 1) / CUDA_ATTENTION_SPAN;
}

/* Enough for one sequence of the greatest length; more sequences than fit are done in turns. */
static inline int32_t cuda_partial_slots(const struct workspace_desc *w)
{
    const int32_t tiles = w->latent_dim > 0 ? 1 : CUDA_ATTENTION_DECODE_TILES;
    const int64_t spans = (int64_t)cuda_num_spans(w->max_model_len) * tiles;
    const int64_t all = spans * w->max_num_seqs;
    const int64_t usual =
        w->latent_dim > 0 ? (int64_t)CUDA_MLA_MAX_PARTIAL_SLOTS : (int64_t)CUDA_MAX_PARTIAL_SLOTS;
    const int64_t most = spans > usual ? spans : usual;
    return (int32_t)(all < most ? all : most);
}

/* Room for all ranks' part of a row, and for more rows as long as it is no more than
 * CUDA_COMM_BYTES. */
static inline size_t cuda_comm_bytes(const struct workspace_desc *w, int32_t rows)
{
    const int32_t cols =
        w->max_in_features > w->max_out_features ? w->max_in_features : w->max_out_features;
    const size_t row = ((size_t)cols + 1) * (size_t)w->num_ranks * sizeof(float);
    const size_t all = row * (size_t)rows, usual = CUDA_COMM_BYTES;
    const size_t most = row > usual ? row : usual;
    return w->num_ranks > 1 ? all < most ? all : most : 0;
}

static inline struct cuda_workspace_parts cuda_workspace_parts(const struct workspace_desc *w)
{
    const int32_t rows =
        w->max_num_tokens > w->max_logits_rows ? w->max_num_tokens : w->max_logits_rows;
    struct cuda_workspace_parts p;
    p.partial_slots = cuda_partial_slots(w);
    p.linear = cuda_workspace_aligned(
        (size_t)rows * (size_t)cuda_weight_stride(w->max_in_features) * sizeof(float));
    p.attention = cuda_workspace_aligned((size_t)p.partial_slots *
                                         cuda_attention_partial_floats(w) * sizeof(float));
    p.sampling = cuda_workspace_aligned((size_t)w->max_logits_rows * 2 * (size_t)w->vocab_size *
                                        sizeof(float));
    p.moe = cuda_moe_parts(w).bytes;
    p.comm = cuda_workspace_aligned(cuda_comm_bytes(w, rows));
    p.cublaslt = w->batch_variant || w->int8_products ? CUDA_CUBLASLT_WORKSPACE_BYTES : 0;
    return p;
}

#endif
