/* quant_layout.h - how checkpoints store a quantized linear: several tensors, read back as rows of
 * one of the formats of kernels/quant.
 *
 * A layout is a row: the tensors' suffixes, a check of their shapes and dtypes that chooses the
 * format, and the reader of rows. A quant_method of config.json fills in a scheme, which names the
 * layout and the parameters of some modules. */
#ifndef INFERD_ENGINE_MODEL_QUANT_QUANT_LAYOUT_H
#define INFERD_ENGINE_MODEL_QUANT_QUANT_LAYOUT_H

#include "base/status.h"
#include "engine/model/checkpoint.h"
#include "kernels/quant/input_quant.h"
#include "kernels/quant/quant_format.h"

enum { QUANT_MAX_TENSORS = 6 };

struct quant_layout;

/* What quantization_config says of the modules that `targets` matches. */
struct quant_scheme {
    const struct quant_layout *layout;
    int32_t bits;
    int32_t group_size;          /* elements of a row that share a scale; 0: all of them */
    int32_t block_rows;          /* rows that share them too; 0: none */
    bool whole_tensor;           /* one scale for the tensor */
    bool symmetric;              /* no zero points are stored */
    bool act_order;              /* columns belong to groups by g_idx */
    int32_t zero_bias;           /* what was subtracted from zero points to store them */
    enum input_quant_kind input; /* what activations are rounded to, where weights allow it */
    bool input_static;           /* with the module's input_scale, not one for each row */
    const char **targets;        /* names, "re:" and an expression, or "Linear"; none: everything */
    size_t num_targets;
};

/* One quantized matrix of a checkpoint. Immutable after quant_source_check. */
struct quant_source {
    const struct quant_scheme *scheme;
    const char *name;                                           /* of the module, for messages */
    const struct checkpoint_tensor *tensors[QUANT_MAX_TENSORS]; /* as in the layout; NULL: none */
    int32_t rows, cols;                                         /* of the matrix */
    int32_t stack_size; /* the tensors hold so many of them, the rows of all numbered through */
    int32_t entry_rows; /* of the rows, those of one entry's matrix: all, or those of a head */
    const struct quant_format *format; /* of the rows that are read */
    bool has_order; /* the columns of the rows come in the order of quant_source_order */
};

struct quant_layout {
    const char *name;
    /* After the module's name. The first tells, by being there (and not of a float dtype, where it
     * is named as a plain weight), that the module is quantized. */
    struct {
        const char *suffix;
        bool optional;
    } tensors[QUANT_MAX_TENSORS];
    bool stacked; /* also knows tensors that hold several matrices */
    /* Shapes and dtypes of s->tensors for [rows, cols]; fills in the format, and s->has_order. */
    bool (*check)(struct quant_source *s, struct quant_format *format, struct status *st);
    /* Rows first, first + step, ..., `count` of them, in s->format. Any thread. */
    void (*read_rows)(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step);
    /* What only values can tell; before read_rows is called. NULL: nothing. */
    bool (*check_values)(const struct quant_source *s, struct status *st);
};

/* Finds the format among `formats`, or adds it. */
bool quant_source_check(struct quant_source *s, struct quant_format_set *formats,
                        struct status *st);

/* order[p] is the column that stands at place p: by rising g_idx, then by rising column. False, by
 * name, where the groups are not those of the format. Only with has_order. */
bool quant_source_order(const struct quant_source *s, int32_t *order, struct status *st);

/* --- for layouts --- */

/* Whether the tensor is of that dtype (a name of safetensors, or "float" for any that weights can
 * have), and of that shape. A dims[i] of -1 fits anything. */
bool quant_check_tensor(const struct quant_source *s, int tensor, const char *dtype,
                        const int64_t *dims, int32_t num_dims, struct status *st);
/* For groups of group_size over cols columns: fails when it does not divide them, or is one that no
 * format holds. */
bool quant_check_groups(const struct quant_source *s, struct status *st);
int32_t quant_num_groups(const struct quant_source *s);
/* The size of the groups of the format: those of the scheme, cut where they are too long for it; 0
 * where each row has one group. */
int32_t quant_format_group(const struct quant_source *s);

/* A grid of scales or zero points: one for each block_rows by group_size elements. */
int64_t quant_grid_at(const struct quant_source *s, int32_t row, int32_t group);
bool quant_check_grid(const struct quant_source *s, int tensor, struct status *st);

/* For formats of int_group with scales [groups, out] (transposed) or a grid: writes the numbers
 * that begin each group of a row. `zero_at` gives a zero point as the format counts it; NULL where
 * it has none. */
void quant_set_heads(const struct quant_source *s, void *row_data, int32_t row,
                     const struct checkpoint_tensor *scales, bool transposed,
                     int32_t (*zero_at)(const struct quant_source *s, int32_t row, int32_t group));

/* A little-endian word of an I32 tensor, at any address. */
uint32_t quant_word(const struct checkpoint_tensor *t, int64_t index);

extern const struct quant_layout quant_layout_awq, quant_layout_gptq, quant_layout_fp8,
    quant_layout_fp8_block, quant_layout_pack, quant_layout_int8, quant_layout_nf4,
    quant_layout_mxfp4;

#endif
