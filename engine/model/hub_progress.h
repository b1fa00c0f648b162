/* hub_progress.h - what a person sees of a download, on standard error: on a terminal one bar per
 * file and one for all, redrawn in place; otherwise a line now and then, with rates. One thread. */
#ifndef INFERD_ENGINE_MODEL_HUB_PROGRESS_H
#define INFERD_ENGINE_MODEL_HUB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct hub_progress_row {
    const char *path;
    uint64_t done_bytes, size_bytes;
};

struct hub_progress {
    bool bars;                         /* redraw in place */
    uint64_t total_bytes, found_bytes; /* of all files; what of them was here at the beginning */
    int32_t num_files;
    uint64_t begun_ns, shown_ns;
    uint64_t shown_bytes; /* at shown_ns, for the rate since then */
    int32_t num_lines;    /* on the screen, to go up by */
};

/* `bars_allowed` false: lines also on a terminal. */
void hub_progress_begin(struct hub_progress *p, uint64_t total_bytes, uint64_t found_bytes,
                        int32_t num_files, bool bars_allowed);
/* To be called often. `done_bytes` is of all files, those not among the rows included. */
void hub_progress_tick(struct hub_progress *p, const struct hub_progress_row *rows,
                       int32_t num_rows, uint64_t done_bytes, int32_t files_done);
/* The last picture and a line that sums up. */
void hub_progress_end(struct hub_progress *p, uint64_t done_bytes, int32_t files_done);

/* "1.23 GB", as disks are sold: powers of 1000. */
struct hub_size_shown {
    char text[24];
};
struct hub_size_shown hub_size_show(double bytes);

#endif
