/* arch.h - how one family of checkpoints maps onto decoder_desc and onto the weights.
 *
 * An architecture is a table: what its config.json keys mean, and which tensor goes where. Rows
 * extend those of `base`; a row with the same key, or for the same place, replaces the base's. */
#ifndef INFERD_ENGINE_MODEL_ARCH_H
#define INFERD_ENGINE_MODEL_ARCH_H

#include "base/buf.h"
#include "base/status.h"
#include "engine/model/decoder_desc.h"
#include "engine/model/weight_slot.h"

#include <jansson.h>

/* --- config.json --- */

enum config_type {
    CONFIG_END, /* ends a table */
    CONFIG_INT,
    CONFIG_BOOL,
    CONFIG_FLOAT,
    CONFIG_DOUBLE,
    CONFIG_ACTIVATION,
    CONFIG_NAME, /* an enum, one of the row's `names` */
    /* No field: transformers' code for this family does not follow the key, or we do not. Its value
     * must be `fallback`, so that a model that means something else is refused. */
    CONFIG_FIXED,
    CONFIG_IGNORED /* no field, and any value: another key of this family says it */
};

enum config_need {
    OPTIONAL,
    REQUIRED,
    CONSTANT, /* no key of this family: the field is `fallback`, whatever a file has there */
    /* As optional, but null is not the same as absent: it means 0, "none". */
    NULLABLE
};

/* The type and the place of a member, from its declaration. */
#define FIELD(member)                                                                              \
    _Generic(((struct decoder_desc *)0)->member, int32_t                                           \
             : CONFIG_INT, bool                                                                    \
             : CONFIG_BOOL, float                                                                  \
             : CONFIG_FLOAT, double                                                                \
             : CONFIG_DOUBLE, enum activation                                                      \
             : CONFIG_ACTIVATION),                                                                 \
        offsetof(struct decoder_desc, member)
/* A member that is an enum; the row lists the `names` that this family knows. */
#define NAMED(member) CONFIG_NAME, offsetof(struct decoder_desc, member)
#define FIXED         CONFIG_FIXED, 0
#define IGNORED       CONFIG_IGNORED, 0

struct config_name {
    const char *name;
    int value; /* of the enum */
};

struct config_key {
    const char *key;
    enum config_type type;
    size_t offset;
    enum config_need need;
    double fallback;                 /* when the key is absent or null; bounds do not apply to it */
    double min, max;                 /* of a number, both included */
    const struct config_name *names; /* of CONFIG_NAME, ended by a zeroed one */
};

/* --- tensors --- */

/* How a tensor is divided between the ranks of tensor parallelism. */
enum partition {
    REPLICATED,
    COLUMN_PARALLEL, /* by out_features; the results stay apart */
    ROW_PARALLEL,    /* by in_features; the results are summed */
    VOCAB_PARALLEL
};

/* How the rows of a tensor that fills several parts lie. */
enum row_order {
    ROWS_BY_PART,    /* one part after the other: all of q, all of k, all of v */
    ROWS_BY_HEAD,    /* q, k and v of the first head, then of the second, ... */
    ROWS_INTERLEAVED /* the first row of each part, then the second, ...; the parts are equal */
};

struct tensor_rule {
    /* Without ".weight" or ".bias", whole with W_IGNORED and where it is bare, only the beginning
     * with W_IGNORED_LAYER; the first {} is the layer, the second the expert. */
    const char *name;
    enum weight_slot slot;
    enum partition partition;
    int32_t part;      /* of a fused linear, in the order of its rows */
    int32_t num_parts; /* how many of them this tensor holds, from `part` on; 0 stands for 1 */
    enum row_order row_order;
    bool transposed; /* stored as [in_features, out_features] */
    bool bare;       /* a parameter by itself: NAME and NAME_bias, not NAME.weight and NAME.bias */
    /* The weights of all experts, [num_experts, ...]; or of all heads, as the shape's stack_rows
     * say. */
    bool stacked;
};

enum { ARCH_MAX_NAMES = 4 };

struct model_arch {
    const char *architectures[ARCH_MAX_NAMES]; /* as config.json names it */
    /* For the table of the README: well-known models, and what is not as in Llama; NULL: nothing.
     */
    const char *models, *differs;
    const char *source;                  /* __FILE__ */
    const struct model_arch *base;       /* NULL: none */
    const struct config_key *config;     /* NULL, or ended by a zeroed row */
    const struct tensor_rule *tensors;   /* NULL, or ended by a zeroed row */
    const struct decoder_traits *traits; /* NULL: those of the base, or else Llama's */
    const char *optional_prefix; /* of tensor names: checkpoints have them with it or without */
    /* What rows cannot say; after all of them were applied. May be NULL. */
    bool (*finish)(struct decoder_desc *desc, const json_t *config, struct status *st);
};

/* registry.c: the table of all, ended by NULL. */
extern const struct model_arch *const model_archs[];

/* NULL when there is none of that name. */
const struct model_arch *model_arch_find(const char *architecture);
/* The names of all, separated by commas. */
void model_arch_list(struct buf *out);
/* The table of the README, in Markdown. */
void model_arch_table(struct buf *out);

#endif
