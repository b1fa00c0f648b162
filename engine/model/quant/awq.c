/* awq.c - AWQ's "gemm" layout: qweight [in, out / 8] and qzeros [groups, out / 8] hold eight
 * outputs of 4 bits in a word, scales [groups, out].
 *
 * In a word the outputs are interleaved for a kernel that unpacks two at a time: output j stands at
 * place nibble_of[j] (Lin et al., 2023, arXiv:2306.00978, and the code published with it). */
#include "engine/model/quant/quant_layout.h"
#include "kernels/quant/int_group.h"

enum { QWEIGHT, QZEROS, SCALES };
enum { IN_WORD = 8 };

static const int nibble_of[IN_WORD] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static bool check(struct quant_source *s, struct quant_format *format, struct status *st)
{
    int64_t groups = quant_num_groups(s), words = s->rows / IN_WORD;
    if (s->rows % IN_WORD != 0)
        return status_set(st, STATUS_INVALID, "%s: %d output features are no multiple of %d",
                          s->name, s->rows, IN_WORD);
    if (!quant_check_groups(s, st) ||
        !quant_check_tensor(s, QWEIGHT, "I32", (int64_t[]){ s->cols, words }, 2, st) ||
        !quant_check_tensor(s, QZEROS, "I32", (int64_t[]){ groups, words }, 2, st) ||
        !quant_check_tensor(s, SCALES, "float", (int64_t[]){ groups, s->rows }, 2, st))
        return false;
    *format = int_group_format(
        &(struct int_group_params){ .bits = 4,
                                    .group_size = quant_format_group(s),
                                    .offset = QUANT_OFFSET_ZERO,
                                    .scale_dtype = s->tensors[SCALES]->type->dtype });
    return true;
}

/* Of input or group `line`, output `row`. */
static uint32_t nibble_at(const struct checkpoint_tensor *t, int64_t line, int32_t rows,
                          int32_t row)
{
    uint32_t word = quant_word(t, line * (rows / IN_WORD) + row / IN_WORD);
    return word >> 4 * nibble_of[row % IN_WORD] & 15;
}

static int32_t zero_at(const struct quant_source *s, int32_t row, int32_t group)
{
    return (int32_t)nibble_at(s->tensors[QZEROS], group, s->rows, row);
}

static void read_rows(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    const struct quant_format *f = s->format;
    const struct checkpoint_tensor *codes = s->tensors[QWEIGHT];
    size_t row_bytes = quant_row_bytes(f, s->cols);
    for (int32_t i = 0; i < count; i++)
        quant_set_heads(s, (unsigned char *)dst + (size_t)i * row_bytes, first + i * step,
                        s->tensors[SCALES], true, zero_at);
    for (int32_t k = 0; k < s->cols; k += 2) { /* a line of the tensor is read once for all rows */
        unsigned char *at = (unsigned char *)dst + int_group_code_offset(f, k);
        for (int32_t i = 0; i < count; i++, at += row_bytes) {
            uint32_t low = nibble_at(codes, k, s->rows, first + i * step);
            uint32_t high =
                k + 1 < s->cols ? nibble_at(codes, k + 1, s->rows, first + i * step) : 0;
            *at = (unsigned char)(low | high << 4);
        }
    }
}

const struct quant_layout quant_layout_awq = {
    .name = "awq",
    .tensors = { { ".qweight", false }, { ".qzeros", false }, { ".scales", false } },
    .check = check,
    .read_rows = read_rows,
};
