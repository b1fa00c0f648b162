/* rejection_sample.c - counts the drafts that count; so little that one thread does it. */
#include "kernels/cpu/cpu_ops.h"

void cpu_rejection_sample(struct device *d, int32_t *num_accepted,
                          const struct rejection_request *request)
{
    (void)d;
    for (int32_t seq = 0; seq < request->num_seqs; seq++) {
        const int32_t begin = request->row_start[seq], end = request->row_start[seq + 1];
        int32_t row = begin;
        while (row + 1 < end && request->sampled_ids[row] == request->draft_ids[row])
            row++;
        num_accepted[seq] = row - begin;
    }
}
