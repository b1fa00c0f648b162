/* attention_body.h - attention in vectors, compiled once per instruction set.
 *
 * Every score is one chain of fused additions over rising elements of the head, every output
 * element one chain over rising positions of the tile, whichever of the paths below computes it;
 * so paths and row blocks may be chosen freely. Two paths: with many rows, the tile of K and V is
 * widened to float32 once and used by all (packed); with few, it is widened on the way into the
 * products (direct), which reads the cache at the speed of memory. Where the values are part of the
 * keys the tile is always packed, since it has to be turned over. */
#include "kernels/cpu/attention_kernel.h"

#include <math.h>
#include <string.h>

#define INLINE __attribute__((always_inline)) static inline

enum {
    TILE = ATTENTION_TILE,
    BLOCK = ATTENTION_ROW_BLOCK,
    GROUPS = TILE / VEC_LANES, /* vectors of positions in a tile */
    /* Rows of a product at a time, so that its sums fit in the registers: 8 x 2 or 4 x 2 vectors.
     */
    STEP_ROWS = VEC_LANES == 16 ? 8 : 4,
    STEP_VECS = 2
};

/* --- shared by both paths --------------------------------------------------------------------- */

/* Row r's part of the tile, as offsets from its first position. */
static inline int32_t row_low(const struct attention_tile *t, int32_t row, int32_t tile)
{
    return t->begin[row] > tile ? t->begin[row] - tile : 0;
}
static inline int32_t row_high(const struct attention_tile *t, int32_t row, int32_t tile)
{
    int32_t high = t->end[row] - tile;
    return high < TILE ? high : TILE;
}

/* The lanes of group g that lie in [low, high) of the tile. */
INLINE vm seen_lanes(int32_t g, int32_t low, int32_t high)
{
    return vm_and_not(vm_first(high - g * VEC_LANES), vm_first(low - g * VEC_LANES));
}

/* The row's max, sum and out are brought to a greater maximum. */
static void raise_max(const struct attention_tile *t, int32_t row, float new_max)
{
    const vf keep = vf_exp(vf_sub(vf_set1(t->max[row]), vf_set1(new_max)));
    float *out = t->out + (size_t)row * (size_t)t->padded_dim, kept[VEC_LANES];
    vf_store(kept, keep);
    t->sum[row] *= kept[0];
    t->max[row] = new_max;
    for (int32_t i = 0; i < t->padded_dim; i += VEC_LANES)
        vf_store(out + i, vf_mul(vf_load(out + i), keep));
}

/* Scores become exp(score - max) in [low, high), what the row sees of the tile, and 0 in the rest
 * of the groups that it touches. `full`: the row sees all of it. */
INLINE void softmax_lanes(const struct attention_tile *t, int32_t row, int32_t low, int32_t high,
                          bool full)
{
    const vf lowest = vf_set1(-INFINITY);
    float *scores = t->scores + (size_t)row * TILE;
    const int32_t first = full ? 0 : low / VEC_LANES;
    const int32_t last = full ? GROUPS - 1 : (high - 1) / VEC_LANES;
    vf max = lowest, sum = vf_zero();
    for (int32_t g = first; g <= last; g++) {
        vf s = vf_load(scores + g * VEC_LANES);
        if (!full)
            s = vf_select(seen_lanes(g, low, high), s, lowest);
        max = vf_max(s, max);
    }
    const float tile_max = vf_reduce_max(max);
    if (tile_max > t->max[row])
        raise_max(t, row, tile_max);
    max = vf_set1(t->max[row]);
    for (int32_t g = first; g <= last; g++) {
        vf p = vf_exp(vf_sub(vf_load(scores + g * VEC_LANES), max));
        if (!full)
            p = vf_select(seen_lanes(g, low, high), p, vf_zero());
        vf_store(scores + g * VEC_LANES, p);
        sum = vf_add(sum, p);
    }
    t->sum[row] += vf_reduce_add(sum);
}

/* Brings the scales of int8 tokens [low, high) of the tile together, since blocks lie anywhere. The
 * others are 0, so that whole vectors can be read. */
static void load_scales(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high)
{
    const struct kv_layer *kv = t->kv;
    void *v = kv->v ? kv->v : kv->k;
    memset(t->k_scales, 0, TILE * sizeof *t->k_scales);
    memset(t->v_scales, 0, TILE * sizeof *t->v_scales);
    for (int32_t i = low; i < high;) {
        const int32_t block = t->block_table[(tile + i) / kv->block_size];
        const int32_t offset = (tile + i) % kv->block_size, left = kv->block_size - offset;
        const int32_t count = left < high - i ? left : high - i;
        const size_t at = (size_t)offset * sizeof(float), bytes = (size_t)count * sizeof(float);
        memcpy(t->k_scales + i, kv_head_scales(kv, kv->k, block, t->kv_head) + at, bytes);
        memcpy(t->v_scales + i, kv_head_scales(kv, v, block, t->kv_head) + at, bytes);
        i += count;
    }
}

/* The row's scores (or weights) in the groups of [low, high), each times its token's scale. */
static void scale_lanes(float *scores, const float *scales, int32_t low, int32_t high)
{
    for (int32_t i = low / VEC_LANES * VEC_LANES; i < high; i += VEC_LANES)
        vf_store(scores + i, vf_mul(vf_load(scores + i), vf_load(scales + i)));
}

static void softmax_row(const struct attention_tile *t, int32_t row, int32_t low, int32_t high)
{
    float *scores = t->scores + (size_t)row * TILE;
    if (t->kv->dtype == DTYPE_I8)
        scale_lanes(scores, t->k_scales, low, high);
    for (int32_t i = 0; i < TILE && t->softcap > 0; i += VEC_LANES) {
        vf s = vf_mul(vf_load(scores + i), vf_set1(1.0f / t->softcap));
        vf_store(scores + i, vf_mul(vf_set1(t->softcap), vf_tanh(s)));
    }
    if (low == 0 && high == TILE)
        softmax_lanes(t, row, 0, TILE, true);
    else
        softmax_lanes(t, row, low, high, false);
    if (t->kv->dtype == DTYPE_I8)
        scale_lanes(scores, t->v_scales, low, high);
}

/* From one element of a row in the cache to the next: in bfloat16 that of a second row lies between
 * (kv_layout.h). */
INLINE size_t element_step(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 ? 4 : dtype == DTYPE_F16 ? 2 : 1;
}
INLINE size_t element_size(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : dtype == DTYPE_BF16 || dtype == DTYPE_F16 ? 2 : 1;
}

/* --- packed: the tile is widened first -------------------------------------------------------- */

/* Any block_size and head_dim, one element at a time. */
static void pack_elements(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high)
{
    const struct kv_layer *kv = t->kv;
    for (int32_t i = low; i < high; i++) {
        const int32_t block = t->block_table[(tile + i) / kv->block_size];
        const int32_t offset = (tile + i) % kv->block_size;
        const char *k = kv_head_data(kv, kv->k, block, t->kv_head);
        float *values = t->v_tile + (size_t)i * (size_t)t->padded_dim;
        for (int32_t dim = 0; dim < t->head_dim; dim++)
            t->k_tile[(size_t)dim * TILE + i] = kv_read(k, kv_k_index(kv, offset, dim), kv->dtype);
        for (int32_t dim = 0; dim < t->value_dim && !kv->v; dim++)
            values[dim] = t->k_tile[(size_t)dim * TILE + i];
        for (int32_t dim = 0; dim < t->value_dim && kv->v; dim++)
            values[dim] = kv_read(kv_head_data(kv, kv->v, block, t->kv_head),
                                  kv_v_index(kv, offset, dim), kv->dtype);
        for (int32_t dim = t->value_dim; dim < t->padded_dim; dim++)
            values[dim] = 0;
    }
}

/* The values of a group where they are the leading elements of the keys: those of the tile, which
 * are widened already, turned over in squares of four. */
static void turn_group(const struct attention_tile *t, int32_t g)
{
    const float *k = t->k_tile + g * VEC_LANES;
    float *out = t->v_tile + (size_t)g * VEC_LANES * (size_t)t->padded_dim;
    for (int32_t i = 0; i < VEC_LANES; i += 4) {
        float *rows[4];
        int32_t dim = 0;
        for (int r = 0; r < 4; r++)
            rows[r] = out + (size_t)(i + r) * (size_t)t->padded_dim;
        for (; dim + 4 <= t->value_dim; dim += 4) {
            const float *from = k + (size_t)dim * TILE + i;
            __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + TILE);
            __m128 c = _mm_loadu_ps(from + 2 * TILE), d = _mm_loadu_ps(from + 3 * TILE);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(rows[0] + dim, a);
            _mm_storeu_ps(rows[1] + dim, b);
            _mm_storeu_ps(rows[2] + dim, c);
            _mm_storeu_ps(rows[3] + dim, d);
        }
        for (; dim < t->padded_dim; dim++)
            for (int r = 0; r < 4; r++)
                rows[r][dim] = dim < t->value_dim ? k[(size_t)dim * TILE + i + r] : 0;
    }
}

/* The vector of positions that begins at offset g * VEC_LANES of the tile: it lies in one block. */
INLINE void pack_group(const struct attention_tile *t, int32_t tile, int32_t g, enum dtype dtype)
{
    const struct kv_layer *kv = t->kv;
    const int32_t position = tile + g * VEC_LANES, dim = t->head_dim, padded = t->padded_dim;
    const int32_t block = t->block_table[position / kv->block_size];
    const size_t offset = (size_t)(position % kv->block_size), step = element_step(dtype);
    const size_t k_row = (size_t)kv->block_size * element_size(dtype);
    const size_t v_row = (size_t)dim * element_size(dtype);
    const char *k = kv_head_data(kv, kv->k, block, t->kv_head) + offset * step;
    float *k_out = t->k_tile + g * VEC_LANES;
    float *v_out = t->v_tile + (size_t)g * VEC_LANES * (size_t)padded;
    for (int32_t i = 0; i < dim; i += 2) {
        struct vf_pair pair = vf_load_pair(k, k_row, dtype);
        vf_store(k_out + (size_t)i * TILE, pair.even);
        vf_store(k_out + (size_t)(i + 1) * TILE, pair.odd);
        k += 2 * k_row;
    }
    if (!kv->v) {
        turn_group(t, g);
        return;
    }
    const char *v = kv_head_data(kv, kv->v, block, t->kv_head) + offset * v_row;
    for (int32_t i = 0; i < VEC_LANES; i += 2) {
        for (int32_t at = 0; at < padded; at += VEC_LANES) {
            const char *from = v + (size_t)at * step;
            struct vf_pair pair =
                dim - at >= VEC_LANES
                    ? vf_load_pair(from, v_row, dtype)
                    : vf_load_pair_first(dim > at ? dim - at : 0, from, v_row, dtype);
            vf_store(v_out + (size_t)i * (size_t)padded + at, pair.even);
            vf_store(v_out + (size_t)(i + 1) * (size_t)padded + at, pair.odd);
        }
        v += 2 * v_row;
    }
}

static void pack(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high)
{
    const struct kv_layer *kv = t->kv;
    if (kv->block_size % VEC_LANES != 0 || t->head_dim % 2 != 0) {
        pack_elements(t, tile, low, high);
        return;
    }
    for (int32_t g = low / VEC_LANES; g <= (high - 1) / VEC_LANES; g++) {
        if (kv->dtype == DTYPE_BF16)
            pack_group(t, tile, g, DTYPE_BF16);
        else if (kv->dtype == DTYPE_F16)
            pack_group(t, tile, g, DTYPE_F16);
        else if (kv->dtype == DTYPE_F8_E4M3)
            pack_group(t, tile, g, DTYPE_F8_E4M3);
        else if (kv->dtype == DTYPE_I8)
            pack_group(t, tile, g, DTYPE_I8);
        else
            pack_group(t, tile, g, DTYPE_F32);
    }
}

/* scores[r][.] = q[r] . k for STEP_ROWS rows and STEP_VECS vectors of positions. */
INLINE void packed_scores(const float *q, const float *k, int32_t head_dim, float *scores)
{
    vf sum[STEP_ROWS][STEP_VECS];
    for (int r = 0; r < STEP_ROWS; r++)
        for (int j = 0; j < STEP_VECS; j++)
            sum[r][j] = vf_zero();
    for (int32_t i = 0; i < head_dim; i++, q += BLOCK, k += TILE) {
        vf kv[STEP_VECS];
        for (int j = 0; j < STEP_VECS; j++)
            kv[j] = vf_load(k + j * VEC_LANES);
        for (int r = 0; r < STEP_ROWS; r++)
            for (int j = 0; j < STEP_VECS; j++)
                sum[r][j] = vf_fma(vf_set1(q[r]), kv[j], sum[r][j]);
    }
    for (int r = 0; r < STEP_ROWS; r++)
        for (int j = 0; j < STEP_VECS; j++)
            vf_store(scores + r * TILE + j * VEC_LANES, sum[r][j]);
}

/* out[r][.] += p[r] V over positions [low, high) for `rows` rows and `vecs` vectors of elements. */
INLINE void packed_values(int rows, int vecs, const float *p, const float *v, int32_t low,
                          int32_t high, float *out, int32_t dim)
{
    vf sum[STEP_ROWS][STEP_VECS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            sum[r][j] = vf_load(out + (size_t)r * (size_t)dim + j * VEC_LANES);
    for (int32_t i = low; i < high; i++) {
        vf values[STEP_VECS];
        for (int j = 0; j < vecs; j++)
            values[j] = vf_load(v + (size_t)i * (size_t)dim + j * VEC_LANES);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vecs; j++)
                sum[r][j] = vf_fma(vf_set1(p[r * TILE + i]), values[j], sum[r][j]);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            vf_store(out + (size_t)r * (size_t)dim + j * VEC_LANES, sum[r][j]);
}

/* All elements of STEP_ROWS rows, or of one. */
INLINE void packed_values_all(int rows, const float *p, const float *v, int32_t low, int32_t high,
                              float *out, int32_t dim)
{
    int32_t at = 0;
    if (low >= high)
        return;
    for (; at + STEP_VECS * VEC_LANES <= dim; at += STEP_VECS * VEC_LANES)
        packed_values(rows, STEP_VECS, p, v + at, low, high, out + at, dim);
    for (; at < dim; at += VEC_LANES)
        packed_values(rows, 1, p, v + at, low, high, out + at, dim);
}

/* A step's rows see different parts of the tile only near its ends: what all see is done together,
 * the rest row by row, in the same order of positions. */
static void packed_values_step(const struct attention_tile *t, int32_t row, int32_t tile)
{
    const int32_t dim = t->padded_dim;
    const float *p = t->scores + (size_t)row * TILE;
    float *out = t->out + (size_t)row * (size_t)dim;
    /* Bounds never fall from row to row, so the last row begins last and the first ends first. */
    const int32_t low = row_low(t, row + STEP_ROWS - 1, tile), high = row_high(t, row, tile);
    const bool common = low < high;
    for (int r = 0; r < STEP_ROWS; r++) {
        int32_t from = row_low(t, row + r, tile), to = row_high(t, row + r, tile);
        packed_values_all(1, p + r * TILE, t->v_tile, from, common ? low : to,
                          out + (size_t)r * (size_t)dim, dim);
    }
    if (!common)
        return;
    packed_values_all(STEP_ROWS, p, t->v_tile, low, high, out, dim);
    for (int r = 0; r < STEP_ROWS; r++)
        packed_values_all(1, p + r * TILE, t->v_tile, high, row_high(t, row + r, tile),
                          out + (size_t)r * (size_t)dim, dim);
}

static void packed_tile(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high)
{
    const size_t dim = (size_t)t->head_dim;
    pack(t, tile, low, high);
    for (int32_t row = 0; row < t->num_rows; row += STEP_ROWS) {
        if (row_high(t, row + STEP_ROWS - 1, tile) <= 0 || row_low(t, row, tile) >= TILE)
            continue; /* none of these rows sees the tile */
        const float *q = t->q + (size_t)(row / BLOCK) * BLOCK * dim + row % BLOCK;
        for (int32_t g = low / VEC_LANES / STEP_VECS * STEP_VECS; g * VEC_LANES < high;
             g += STEP_VECS)
            packed_scores(q, t->k_tile + g * VEC_LANES, t->head_dim,
                          t->scores + (size_t)row * TILE + g * VEC_LANES);
        for (int32_t r = row; r < row + STEP_ROWS && r < t->num_rows; r++) {
            int32_t from = row_low(t, r, tile), to = row_high(t, r, tile);
            if (from < to)
                softmax_row(t, r, from, to);
        }
        packed_values_step(t, row, tile);
    }
}

/* --- direct: the cache is read as it lies ----------------------------------------------------- */

/* Into the second level: the first has no room for a tile more. */
INLINE void fetch_pair_ahead(const char *p, size_t row_bytes, enum dtype dtype)
{
    _mm_prefetch(p, _MM_HINT_T1);
    if (dtype == DTYPE_F32 || dtype == DTYPE_F16)
        _mm_prefetch(p + row_bytes, _MM_HINT_T1);
}

/* Scores of `rows` rows for `vecs` vectors of positions, from where k[j] lie in the cache. Beside
 * every load the same place of the next tile, next[j], is fetched ahead: blocks lie anywhere, so
 * the processor cannot guess it. */
INLINE void direct_scores(int rows, int vecs, const float *q, const char *const *k,
                          const char *const *next, size_t row_bytes, int32_t head_dim,
                          enum dtype dtype, float *scores)
{
    vf sum[8][4];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            sum[r][j] = vf_zero();
    for (int32_t i = 0; i < head_dim; i += 2, q += 2 * BLOCK) {
        struct vf_pair pair[4];
        for (int j = 0; j < vecs; j++) {
            fetch_pair_ahead(next[j] + (size_t)i * row_bytes, row_bytes, dtype);
            pair[j] = vf_load_pair(k[j] + (size_t)i * row_bytes, row_bytes, dtype);
        }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vecs; j++)
                sum[r][j] = vf_fma(vf_set1(q[r]), pair[j].even, sum[r][j]);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vecs; j++)
                sum[r][j] = vf_fma(vf_set1(q[BLOCK + r]), pair[j].odd, sum[r][j]);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            vf_store(scores + r * TILE + j * VEC_LANES, sum[r][j]);
}

/* Positions [low, high) of one group against `vecs` vectors of elements of `rows` rows, the last
 * of which has `lanes` elements if `partial`. */
INLINE void direct_values_group(int rows, int vecs, vf sum[8][4], const float *p, const char *v,
                                const char *next, size_t row_bytes, int32_t low, int32_t high,
                                int32_t partial, enum dtype dtype)
{
    const size_t vec_bytes = VEC_LANES * element_step(dtype);
    for (int32_t i = low & ~1; i < high; i += 2) {
        struct vf_pair pair[4];
        const char *at = v + (size_t)i * row_bytes;
        for (int j = 0; j < vecs; j++) {
            fetch_pair_ahead(next + (size_t)i * row_bytes + (size_t)j * vec_bytes, row_bytes,
                             dtype);
            pair[j] = partial ? vf_load_pair_first(partial, at, row_bytes, dtype)
                              : vf_load_pair(at + (size_t)j * vec_bytes, row_bytes, dtype);
        }
        /* The other position of a pair may be outside of what these rows see. */
        if (i >= low)
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < vecs; j++)
                    sum[r][j] = vf_fma(vf_set1(p[r * TILE + i]), pair[j].even, sum[r][j]);
        if (i + 1 < high)
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < vecs; j++)
                    sum[r][j] = vf_fma(vf_set1(p[r * TILE + i + 1]), pair[j].odd, sum[r][j]);
    }
}

struct direct {
    const struct attention_tile *t;
    const char *k[GROUPS], *v[GROUPS];           /* where each group of the tile lies */
    const char *next_k[GROUPS], *next_v[GROUPS]; /* and of the next tile, or again of this one */
};

/* out += p V over offsets [low, high) of the tile, elements from `at` on. */
INLINE void direct_values(int rows, int vecs, const struct direct *d, int32_t row, int32_t low,
                          int32_t high, int32_t at, int32_t partial, enum dtype dtype)
{
    const struct attention_tile *t = d->t;
    const size_t row_bytes = (size_t)t->head_dim * element_size(dtype);
    const size_t column = (size_t)at * element_step(dtype);
    float *out = t->out + (size_t)row * (size_t)t->padded_dim + at;
    const float *p = t->scores + (size_t)row * TILE;
    vf sum[8][4];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            sum[r][j] = vf_load(out + (size_t)r * (size_t)t->padded_dim + j * VEC_LANES);
    for (int32_t g = low / VEC_LANES; g * VEC_LANES < high; g++) {
        int32_t base = g * VEC_LANES;
        int32_t from = low > base ? low - base : 0;
        int32_t to = high - base < VEC_LANES ? high - base : VEC_LANES;
        direct_values_group(rows, vecs, sum, p + base, d->v[g] + column, d->next_v[g] + column,
                            row_bytes, from, to, partial, dtype);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vecs; j++)
            vf_store(out + (size_t)r * (size_t)t->padded_dim + j * VEC_LANES, sum[r][j]);
}

INLINE void direct_values_all(int rows, int vecs, const struct direct *d, int32_t row, int32_t low,
                              int32_t high, enum dtype dtype)
{
    const int32_t dim = d->t->head_dim;
    int32_t at = 0;
    if (low >= high)
        return;
    for (; at + vecs * VEC_LANES <= dim; at += vecs * VEC_LANES)
        direct_values(rows, vecs, d, row, low, high, at, 0, dtype);
    for (; at + VEC_LANES <= dim; at += VEC_LANES)
        direct_values(rows, 1, d, row, low, high, at, 0, dtype);
    if (at < dim)
        direct_values(rows, 1, d, row, low, high, at, dim - at, dtype);
}

/* The same for one row: what the ends of a tile of several need. Never inlined, since there are two
 * places of it in every direct_tile, and each copy costs seconds of compilation. */
#define DIRECT_ONE(name, dtype)                                                                    \
    static __attribute__((noinline)) void direct_one_##name(const struct direct *d, int32_t row,   \
                                                            int32_t low, int32_t high)             \
    {                                                                                              \
        direct_values_all(1, 4, d, row, low, high, dtype);                                         \
    }
DIRECT_ONE(f32, DTYPE_F32)
DIRECT_ONE(bf16, DTYPE_BF16)
DIRECT_ONE(f16, DTYPE_F16)
DIRECT_ONE(f8, DTYPE_F8_E4M3)
DIRECT_ONE(i8, DTYPE_I8)

INLINE void direct_values_one(const struct direct *d, int32_t row, int32_t low, int32_t high,
                              enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        direct_one_bf16(d, row, low, high);
    else if (dtype == DTYPE_F16)
        direct_one_f16(d, row, low, high);
    else if (dtype == DTYPE_F8_E4M3)
        direct_one_f8(d, row, low, high);
    else if (dtype == DTYPE_I8)
        direct_one_i8(d, row, low, high);
    else
        direct_one_f32(d, row, low, high);
}

/* Where the groups of [low, high) of a tile lie. */
static void locate(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high,
                   const char **k, const char **v)
{
    const struct kv_layer *kv = t->kv;
    const size_t v_row = (size_t)t->head_dim * dtype_size(kv->dtype);
    for (int32_t g = low / VEC_LANES; g * VEC_LANES < high; g++) {
        const int32_t position = tile + g * VEC_LANES;
        const int32_t block = t->block_table[position / kv->block_size];
        const size_t offset = (size_t)(position % kv->block_size);
        k[g] = kv_head_data(kv, kv->k, block, t->kv_head) + offset * element_step(kv->dtype);
        v[g] = kv_head_data(kv, kv->v, block, t->kv_head) + offset * v_row;
    }
}

/* `rows` rows, of which t->num_rows count; the others repeat the last. */
INLINE void direct_tile(int rows, int vecs, const struct attention_tile *t, int32_t tile,
                        int32_t low, int32_t high, enum dtype dtype)
{
    const size_t k_row = (size_t)t->kv->block_size * element_size(dtype);
    const int32_t left = t->end[t->num_rows - 1] - tile - TILE;
    struct direct d = { .t = t }; /* the groups outside of [low, high) are not used */
    int32_t g = low / VEC_LANES;
    locate(t, tile, low, high, d.k, d.v);
    memcpy(d.next_k, d.k, sizeof d.k);
    memcpy(d.next_v, d.v, sizeof d.v);
    if (left > 0)
        locate(t, tile + TILE, 0, left < TILE ? left : TILE, d.next_k, d.next_v);
    for (; (g + vecs) * VEC_LANES < high + VEC_LANES; g += vecs)
        direct_scores(rows, vecs, t->q, d.k + g, d.next_k + g, k_row, t->head_dim, dtype,
                      t->scores + g * VEC_LANES);
    for (; g * VEC_LANES < high; g++)
        direct_scores(rows, 1, t->q, d.k + g, d.next_k + g, k_row, t->head_dim, dtype,
                      t->scores + g * VEC_LANES);
    for (int32_t r = 0; r < t->num_rows; r++) {
        int32_t from = row_low(t, r, tile), to = row_high(t, r, tile);
        if (from < to)
            softmax_row(t, r, from, to);
    }
    const int32_t common_low = row_low(t, rows - 1, tile), common_high = row_high(t, 0, tile);
    const bool common = common_low < common_high;
    for (int r = 0; r < t->num_rows; r++)
        direct_values_one(&d, r, row_low(t, r, tile), common ? common_low : row_high(t, r, tile),
                          dtype);
    if (!common)
        return;
    if (rows == 1)
        direct_values_one(&d, 0, common_low, common_high, dtype);
    else
        direct_values_all(rows, vecs, &d, 0, common_low, common_high, dtype);
    for (int r = 0; r < t->num_rows; r++)
        direct_values_one(&d, r, common_high, row_high(t, r, tile), dtype);
}

/* Sums of 16 vectors (8 on AVX2) at most, so that they stay in registers. */
INLINE void direct_tile_rows(const struct attention_tile *t, int32_t tile, int32_t low,
                             int32_t high, enum dtype dtype)
{
    if (t->num_rows == 1)
        direct_tile(1, 4, t, tile, low, high, dtype);
    else if (t->num_rows == 2)
        direct_tile(2, VEC_LANES == 16 ? 4 : 2, t, tile, low, high, dtype);
    else if (t->num_rows <= 4)
        direct_tile(4, VEC_LANES == 16 ? 4 : 2, t, tile, low, high, dtype);
    else
        direct_tile(8, VEC_LANES == 16 ? 2 : 1, t, tile, low, high, dtype);
}

#define DIRECT_TILE(name, dtype)                                                                   \
    static void direct_tile_##name(const struct attention_tile *t, int32_t tile, int32_t low,      \
                                   int32_t high)                                                   \
    {                                                                                              \
        direct_tile_rows(t, tile, low, high, dtype);                                               \
    }
DIRECT_TILE(f32, DTYPE_F32)
DIRECT_TILE(bf16, DTYPE_BF16)
DIRECT_TILE(f16, DTYPE_F16)
DIRECT_TILE(f8, DTYPE_F8_E4M3)
DIRECT_TILE(i8, DTYPE_I8)

/* --- the row of the table --------------------------------------------------------------------- */

static void attention_partition(const struct attention_tile *t, int32_t begin, int32_t end)
{
    const struct kv_layer *kv = t->kv;
    const int32_t padded = (t->num_rows + BLOCK - 1) / BLOCK * BLOCK;
    void (*run_tile)(const struct attention_tile *t, int32_t tile, int32_t low, int32_t high) =
        packed_tile;
    if (kv->v && t->num_rows <= BLOCK && kv->block_size % VEC_LANES == 0 && t->head_dim % 2 == 0)
        run_tile = kv->dtype == DTYPE_BF16      ? direct_tile_bf16
                   : kv->dtype == DTYPE_F16     ? direct_tile_f16
                   : kv->dtype == DTYPE_F8_E4M3 ? direct_tile_f8
                   : kv->dtype == DTYPE_I8      ? direct_tile_i8
                                                : direct_tile_f32;
    for (int32_t row = 0; row < padded; row++) {
        t->max[row] = -INFINITY;
        t->sum[row] = 0;
    }
    memset(t->out, 0, (size_t)padded * (size_t)t->padded_dim * sizeof *t->out);
    for (int32_t tile = begin; tile < end; tile += TILE) {
        int32_t low = row_low(t, 0, tile), high = row_high(t, t->num_rows - 1, tile);
        if (high > end - tile)
            high = end - tile;
        if (low >= high)
            continue;
        if (kv->dtype == DTYPE_I8)
            load_scales(t, tile, low, high);
        run_tile(t, tile, low, high);
    }
}

const struct attention_kernel VEC_NAME(attention_kernel) = { VEC_NEEDS, attention_partition };
