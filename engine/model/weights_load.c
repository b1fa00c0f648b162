/* weights_load.c - linears cut into pieces of rows, packed by several threads.
 *
 * Pieces are taken in the order of the files, so that reading is sequential; the system is told a
 * few pieces ahead what comes, and behind what is done with. So the memory in use stays near that
 * of the packed weights, however large the checkpoint. */
#include "engine/model/weights_load.h"
#include "base/alloc.h"
#include "base/thread.h"
#include "engine/model/checkpoint.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES = 1 << 20,   /* of source: large enough to hide the hand-over, small to share out */
    PIECE_ROW_MULTIPLE = 64, /* packed tiles of rows are then written by one thread each */
    MAX_THREADS = 32,
    READ_AHEAD_PIECES = 16
};

/* Rows of one linear. `src` NULL: dummy values, made from slot, layer and row. */
struct piece {
    const struct linear *linear;
    const unsigned char *src;
    size_t src_bytes;
    size_t row_stride;    /* bytes from one row to the next */
    size_t column_stride; /* bytes from one element of a row to the next; 0: side by side */
    size_t skipped_bytes; /* of a row's blocks, before those that are meant */
    const struct quant_format *format; /* of src */
    const struct quant_source
        *quant;                    /* reads the rows; src only tells where in the files they are */
    int32_t src_row, src_row_step; /* for it */
    bool turned; /* its rows are columns of this linear; src_row counts columns, from src_col on */
    int32_t src_col;
    enum weight_slot slot;
    int32_t layer, expert, row_begin, num_rows;
};

struct packing {
    const struct device *device;
    struct piece *pieces;
    size_t num_pieces, capacity;
    size_t total_bytes, max_piece_bytes;
    atomic_size_t next, done_bytes;
};

/* --- dummy values ---------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood, 2014): one add and a mix per 64 bits. */
static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t dummy_seed(enum weight_slot slot, int32_t layer, int32_t row)
{
    uint64_t state = ((uint64_t)slot << 56) ^ ((uint64_t)(uint32_t)layer << 32) ^ (uint32_t)row;
    return splitmix64(&state);
}

/* Four bfloat16 at a time: random sign and mantissa around one exponent, so 2^e <= |w| < 2^(e+1).
 * With e chosen as below a row times a normalized input is of the order of one, whatever the sizes,
 * and nothing overflows on the way to the logits. */
static void dummy_row(uint16_t *dst, int32_t count, uint64_t seed, int exponent)
{
    uint64_t state = seed;
    uint64_t pattern = (uint64_t)(exponent + 127) << 7;
    pattern |= pattern << 16;
    pattern |= pattern << 32;
    for (int32_t i = 0; i < count; i += 4) {
        uint64_t bits = (splitmix64(&state) & 0x807f807f807f807fu) | pattern;
        memcpy(dst + i, &bits, (size_t)(count - i < 4 ? count - i : 4) * sizeof *dst);
    }
}

/* E[w^2] is 7/3 * 4^e for the values above; it shall not exceed 1 / in_features. */
static int dummy_exponent(int32_t in_features)
{
    return (int)floor(0.5 * log2(3.0 / (7.0 * in_features)));
}

float weights_dummy_bias(enum weight_slot slot, int32_t layer, int32_t row)
{
    uint16_t bits;
    dummy_row(&bits, 1, ~dummy_seed(slot, layer, row), -6);
    return bf16_to_f32(bits);
}

/* --- one piece ------------------------------------------------------------------------------- */

/* Where the entry's matrix, or vector, begins. */
static const unsigned char *entry_data(const struct tensor_map_entry *e)
{
    return (const unsigned char *)e->tensor->data +
           e->tensor->size_bytes / (size_t)e->stack_size * (size_t)e->stack_index;
}

void weights_read_vector(float *dst, const struct tensor_map_entry *e)
{
    enum dtype dtype = e->tensor->type->dtype;
    size_t size = dtype_size(dtype), count = (size_t)e->rows * (size_t)e->cols;
    const unsigned char *src = entry_data(e) + (size_t)e->src_row_begin * size;
    for (size_t i = 0; i < count; i++) {
        uint32_t aligned;
        memcpy(&aligned, src + i * (size_t)e->src_row_step * size, size);
        dtype_convert(dst + i, DTYPE_F32, &aligned, dtype, 1);
    }
}

static bool is_contiguous(const struct piece *piece)
{
    return !piece->quant && !piece->column_stride &&
           piece->row_stride == quant_row_bytes(piece->format, piece->linear->in_features);
}

/* Of each row its header and the blocks that are meant, one row after the other. */
static void gather_blocks(unsigned char *dst, const struct piece *piece, const unsigned char *src,
                          size_t stride)
{
    size_t row_bytes = quant_row_bytes(piece->format, piece->linear->in_features);
    size_t header = (size_t)piece->format->header_bytes;
    for (int32_t r = 0; r < piece->num_rows; r++, dst += row_bytes, src += stride) {
        memcpy(dst, src, header);
        memcpy(dst + header, src + header + piece->skipped_bytes, row_bytes - header);
    }
}

static void read_quantized(unsigned char *dst, const struct piece *piece)
{
    const struct quant_source *s = piece->quant;
    size_t stride = quant_row_bytes(piece->format, s->cols);
    bool whole = s->cols == piece->linear->in_features;
    unsigned char *rows = whole ? dst : xmalloc((size_t)piece->num_rows * stride);
    s->scheme->layout->read_rows(s, rows, piece->src_row, piece->num_rows, piece->src_row_step);
    if (whole)
        return;
    gather_blocks(dst, piece, rows, stride);
    free(rows);
}

/* Columns of the source become rows, in float32. */
static void read_turned(float *dst, const struct piece *piece)
{
    const struct quant_source *s = piece->quant;
    size_t cols = (size_t)piece->linear->in_features, stride = quant_row_bytes(s->format, s->cols);
    unsigned char *rows = xmalloc(cols * stride);
    float *values = xmalloc((size_t)s->cols * sizeof *values);
    s->scheme->layout->read_rows(s, rows, piece->src_col, (int32_t)cols, 1);
    for (size_t c = 0; c < cols; c++) {
        s->format->dequantize(s->format, values, rows + c * stride, 0, s->cols);
        for (int32_t r = 0; r < piece->num_rows; r++)
            dst[(size_t)r * cols + c] = values[piece->src_row + r];
    }
    free(values);
    free(rows);
}

/* The rows, one after the other. */
static void gather(unsigned char *dst, const struct piece *piece)
{
    size_t rows = (size_t)piece->num_rows, cols = (size_t)piece->linear->in_features;
    if (piece->turned) {
        read_turned((float *)(void *)dst, piece);
        return;
    }
    if (piece->quant) {
        read_quantized(dst, piece);
        return;
    }
    if (!piece->column_stride) {
        gather_blocks(dst, piece, piece->src, piece->row_stride);
        return;
    }
    size_t size = dtype_size(piece->format->dtype);
    for (size_t c = 0; c < cols; c++)
        for (size_t r = 0; r < rows; r++)
            memcpy(dst + (r * cols + c) * size,
                   piece->src + c * piece->column_stride + r * piece->row_stride, size);
}

/* `scratch` holds a piece that has to be made, gathered, or that the file left unaligned. */
static void pack_piece(const struct packing *p, const struct piece *piece, void *scratch)
{
    const struct linear *l = piece->linear;
    const void *rows = piece->src;
    if (!piece->src) {
        int exponent = dummy_exponent(l->in_features);
        for (int32_t r = 0; r < piece->num_rows; r++)
            dummy_row((uint16_t *)scratch + (size_t)r * (size_t)l->in_features, l->in_features,
                      dummy_seed(piece->slot, piece->layer,
                                 piece->expert * l->out_features + piece->row_begin + r),
                      exponent);
        rows = scratch;
    } else if (!is_contiguous(piece)) {
        gather(scratch, piece);
        rows = scratch;
    } else if (quant_format_is_plain(piece->format) &&
               (uintptr_t)piece->src % dtype_size(piece->format->dtype) != 0) {
        memcpy(scratch, piece->src, piece->src_bytes);
        rows = scratch;
    }
    p->device->backend->linear_pack(p->device, l, piece->row_begin, piece->num_rows, rows,
                                    piece->format);
    if (piece->src && is_contiguous(piece)) /* other pieces share the pages of scattered rows */
        checkpoint_done_with(piece->src, piece->src_bytes);
}

/* Takes pieces until there are none left. */
static void pack_pieces(struct packing *p, const struct weights_progress *progress)
{
    void *scratch = xmalloc(p->max_piece_bytes);
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->num_pieces;) {
        const struct piece *ahead =
            i + READ_AHEAD_PIECES < p->num_pieces ? &p->pieces[i + READ_AHEAD_PIECES] : NULL;
        if (ahead && ahead->src && is_contiguous(ahead))
            checkpoint_will_need(ahead->src, ahead->src_bytes);
        pack_piece(p, &p->pieces[i], scratch);
        size_t done = atomic_fetch_add(&p->done_bytes, p->pieces[i].src_bytes);
        if (progress && progress->report)
            progress->report(progress->arg, done + p->pieces[i].src_bytes, p->total_bytes);
    }
    free(scratch);
}

static void *pack_thread(void *arg)
{
    pack_pieces(arg, NULL);
    return NULL;
}

/* --- all pieces ------------------------------------------------------------------------------ */

/* Cuts `piece` into several. */
static void add_pieces(struct packing *p, const struct piece *piece)
{
    size_t row_bytes = quant_row_bytes(piece->format, piece->linear->in_features);
    int32_t rows = (int32_t)(PIECE_BYTES / row_bytes) / PIECE_ROW_MULTIPLE * PIECE_ROW_MULTIPLE;
    if (rows == 0)
        rows = PIECE_ROW_MULTIPLE;
    for (int32_t at = 0; at < piece->num_rows; at += rows) {
        struct piece part = *piece;
        part.row_begin += at;
        part.num_rows = piece->num_rows - at < rows ? piece->num_rows - at : rows;
        part.src_bytes = (size_t)part.num_rows * row_bytes;
        part.src_row += at * piece->src_row_step;
        if (piece->src && !piece->quant)
            part.src = piece->src + (size_t)at * piece->row_stride;
        if (p->num_pieces == p->capacity) {
            p->capacity = p->capacity ? 2 * p->capacity : 256;
            p->pieces = xrealloc(p->pieces, p->capacity * sizeof *p->pieces);
        }
        p->pieces[p->num_pieces++] = part;
        p->total_bytes += part.src_bytes;
        if (part.src_bytes > p->max_piece_bytes)
            p->max_piece_bytes = part.src_bytes;
    }
}

static int by_source(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    return x->src < y->src ? -1 : x->src > y->src;
}

static void cut_checkpoint(const struct model *m, struct weights *w, struct packing *p)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        struct linear *l = e->is_bias ? NULL : weights_linear(w, e->slot, e->layer, e->expert);
        const struct quant_format *format = tensor_map_entry_format(e);
        size_t size = dtype_size(format->dtype); /* only plain tensors are transposed */
        int64_t last_dim = e->tensor->shape[e->tensor->num_dims - 1];
        size_t row_bytes = e->transposed ? size : quant_row_bytes(format, last_dim);
        size_t column_stride = e->transposed ? (size_t)last_dim * size : 0;
        size_t skipped =
            (size_t)(e->src_col_begin / format->block_elements) * (size_t)format->block_bytes;
        struct piece piece = { .linear = l,
                               .quant = e->quant,
                               .src = entry_data(e) + (size_t)e->src_row_begin * row_bytes +
                                      (size_t)e->src_col_begin * column_stride,
                               .row_stride = row_bytes * (size_t)e->src_row_step,
                               .column_stride = column_stride,
                               .skipped_bytes = e->transposed ? 0 : skipped,
                               .format = format,
                               .slot = e->slot,
                               .layer = e->layer,
                               .row_begin = e->row_begin,
                               .num_rows = e->rows };
        if (!l)
            continue;
        if (e->quant) {
            piece.src = e->tensor->data;
            piece.src_row = e->stack_index * e->quant->entry_rows + e->src_row_begin;
            piece.src_row_step = e->src_row_step;
        }
        if (e->quant && e->transposed) {
            piece.turned = true;
            piece.format = &quant_format_float32;
            piece.src_row = e->src_row_begin;
            piece.src_col = e->stack_index * e->quant->entry_rows + e->src_col_begin;
        }
        for (; piece.row_begin >= piece.linear->out_features; piece.linear = piece.linear->next)
            piece.row_begin -= piece.linear->out_features;
        add_pieces(p, &piece);
    }
    if (p->num_pieces > 0)
        qsort(p->pieces, p->num_pieces, sizeof *p->pieces, by_source);
}

static void cut_dummy(const struct model *m, struct weights *w, struct packing *p)
{
    for (int s = W_EMBEDDING; s < NUM_WEIGHT_SLOTS; s++) {
        enum weight_slot slot = (enum weight_slot)s;
        struct weight_shape shape = weight_slot_shape(&m->desc, slot);
        int32_t layers = weight_slot_is_per_layer(slot) ? m->desc.num_hidden_layers : 1;
        for (int32_t layer = 0; shape.present && !shape.is_vector && layer < layers; layer++) {
            int32_t experts = weight_slot_in_layer(&m->desc, slot, layer) ? shape.num_experts : 0;
            for (int32_t e = 0; e < experts; e++) {
                struct piece piece = { .linear = weights_linear(w, slot, layer, e),
                                       .format = quant_format_of_dtype(DTYPE_BF16),
                                       .slot = slot,
                                       .layer = layer,
                                       .expert = e,
                                       .num_rows = shape.rows };
                add_pieces(p, &piece);
            }
        }
    }
}

void weights_pack_all(const struct model *m, const struct device *d, struct weights *w,
                      const struct weights_progress *progress)
{
    struct packing p = { .device = d };
    pthread_t threads[MAX_THREADS];
    struct status ignored; /* fewer threads than wanted cost time, nothing else */
    int32_t started = 0;
    if (m->checkpoint)
        checkpoint_release_pages(m->checkpoint); /* what lay around the vectors came in too */
    if (m->checkpoint)
        cut_checkpoint(m, w, &p);
    else
        cut_dummy(m, w, &p);
    int32_t wanted = thread_allowed_cpus(NULL, 0) - 1;
    if (wanted > MAX_THREADS)
        wanted = MAX_THREADS;
    while (started < wanted && (size_t)started + 1 < p.num_pieces &&
           thread_start(&threads[started], "load-weights", pack_thread, &p, &ignored))
        started++;
    pack_pieces(&p, progress);
    for (int32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (m->checkpoint)
        checkpoint_release_pages(m->checkpoint);
    if (progress->report)
        progress->report(progress->arg, p.total_bytes, p.total_bytes);
    free(p.pieces);
}
