/* checkpoint.h - tensors by name, whatever file format they came in.
 *
 * A reader (safetensors.c) maps files, adds their tensors and seals the whole. Afterwards
 * immutable: any thread may look up and read. The data lies in private read-only mappings, so
 * reading it is reading the file. File sizes are checked when a file is mapped; a file that another
 * process truncates later raises SIGBUS on access. Replace checkpoints by renaming, never in place.
 */
#ifndef INFERD_ENGINE_MODEL_CHECKPOINT_H
#define INFERD_ENGINE_MODEL_CHECKPOINT_H

#include "base/arena.h"
#include "base/status.h"
#include "kernels/quant/quant_format.h"

enum { CHECKPOINT_MAX_DIMS = 8 };

/* How elements are stored. Types that no kernel reads have a size too, so that a file which holds
 * them is still checked to the last byte. */
struct checkpoint_type {
    const char *name; /* as the file writes it: "BF16" */
    int32_t size_bytes;
    bool is_float; /* has a `dtype` that weights can be read from */
    enum dtype dtype;
    /* Of elements that are encoded together (then size_bytes is a block's): how a row of them is to
     * be read. NULL for all others. */
    const struct quant_format *format;
};

struct checkpoint_tensor {
    const char *name;
    const char *file; /* its name within the directory, for messages */
    const struct checkpoint_type *type;
    int32_t num_dims;
    int64_t shape[CHECKPOINT_MAX_DIMS];
    const unsigned char *data; /* as aligned as the file made it: perhaps not at all */
    size_t size_bytes;
};

struct checkpoint_file {
    const char *name;
    const unsigned char *data;
    size_t size_bytes;
    int64_t changed_ns; /* when its content last changed, by the file system; 0 for memory */
    bool mapped;        /* unmapped by checkpoint_close; otherwise the caller's memory */
};

struct checkpoint {
    struct arena names; /* every string above */
    struct checkpoint_file *files;
    int32_t num_files;
    struct checkpoint_tensor *tensors; /* sealed: by rising name, no name twice */
    size_t num_tensors, tensor_capacity;
};

void checkpoint_close(struct checkpoint *c); /* NULL is fine */
/* NULL when there is none of that name. */
const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *c, const char *name);
/* The one positive float that the tensor holds: the scale of `what`, for messages. */
bool checkpoint_tensor_scale(const struct checkpoint_tensor *t, const char *what, float *out,
                             struct status *st);

/* Hints to the system about `size_bytes` at `data`, which lie in a mapping: soon wanted, or done
 * with. The first starts reading ahead, the second gives the pages back to the page cache. */
void checkpoint_will_need(const void *data, size_t size_bytes);
void checkpoint_done_with(const void *data, size_t size_bytes);
/* As checkpoint_done_with all of the mapped files; who reads on finds the same bytes. */
void checkpoint_release_pages(const struct checkpoint *c);

/* A shape as "[512, 64]". */
struct shape_shown {
    char text[96];
};
struct shape_shown shape_show(const int64_t *shape, int32_t num_dims);

/* --- for readers --- */
struct checkpoint *checkpoint_new(void);
/* Maps dir/name whole. STATUS_NOT_FOUND when it does not exist. */
bool checkpoint_map(struct checkpoint *c, const char *dir, const char *name,
                    const struct checkpoint_file **out, struct status *st);
/* Takes memory of the caller's in the place of a mapped file. */
const struct checkpoint_file *checkpoint_use_memory(struct checkpoint *c, const char *name,
                                                    const void *data, size_t size_bytes);
/* A zeroed entry to fill in; valid until the next call. */
struct checkpoint_tensor *checkpoint_add(struct checkpoint *c);
/* The tensors from `first` on, which lie in one file, by the place of their data; to be freed. */
const struct checkpoint_tensor **checkpoint_by_place(const struct checkpoint *c, size_t first);
/* Sorts; refuses a name that occurs twice. */
bool checkpoint_seal(struct checkpoint *c, struct status *st);

#endif
