/* test_mxfp4.c - gpt-oss's tensors of MXFP4: what is refused, by name and place, and where the
 * codes of a block go. That the values are right is for test_quant_layout.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/quant/quant_layout.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { STACK = 2, ROWS = 3, COLS = 64, BLOCKS = COLS / 32 };

static unsigned char codes[STACK * ROWS * BLOCKS * 16], scales[STACK * ROWS * BLOCKS];

struct fixture {
    struct quant_format format;
    struct checkpoint_tensor blocks, scale;
    struct quant_source source;
};

static void make(struct fixture *f)
{
    static const struct checkpoint_type u8 = { .name = "U8" };
    static const struct quant_scheme scheme = { .layout = &quant_layout_mxfp4 };
    for (size_t i = 0; i < sizeof codes; i++)
        codes[i] = (unsigned char)(rand() & 255);
    for (size_t i = 0; i < sizeof scales; i++)
        scales[i] = (unsigned char)(rand() % 255);
    f->blocks = (struct checkpoint_tensor){ .name = "m.blocks",
                                            .file = "x.safetensors",
                                            .type = &u8,
                                            .num_dims = 4,
                                            .shape = { STACK, ROWS, BLOCKS, 16 },
                                            .data = codes,
                                            .size_bytes = sizeof codes };
    f->scale = (struct checkpoint_tensor){ .name = "m.scales",
                                           .file = "x.safetensors",
                                           .type = &u8,
                                           .num_dims = 3,
                                           .shape = { STACK, ROWS, BLOCKS },
                                           .data = scales,
                                           .size_bytes = sizeof scales };
    f->source = (struct quant_source){ .scheme = &scheme,
                                       .name = "m",
                                       .tensors = { &f->blocks, &f->scale },
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .stack_size = STACK,
                                       .entry_rows = ROWS };
}

static bool check(struct fixture *f, struct status *st)
{
    return quant_layout_mxfp4.check(&f->source, &f->format, st);
}

static void refused(struct fixture *f, enum status_code code, const char *words)
{
    struct status st;
    assert_false(check(f, &st));
    assert_int_equal(st.code, code);
    if (!strstr(st.message, words))
        fail_msg("'%s' is not in: %s", words, st.message);
}

static void test_shapes(void **state)
{
    struct fixture f;
    struct status st;
    (void)state;
    make(&f);
    assert_true(check(&f, &st));
    assert_string_equal(f.format.name, "mxfp4");
    f.source.cols = COLS + 16;
    refused(&f, STATUS_INVALID, "no whole blocks of 32");
    make(&f);
    f.source.cols = COLS + 32;
    refused(&f, STATUS_INVALID, "m.blocks");
    make(&f);
    f.scale.shape[1] = ROWS + 1;
    refused(&f, STATUS_INVALID, "m.scales");
    make(&f);
    f.source.stack_size = INT_MAX / ROWS + 1;
    refused(&f, STATUS_UNSUPPORTED, "rows together");
}

/* A matrix by itself lacks the first dimension. */
static void test_one_matrix(void **state)
{
    struct fixture f;
    struct status st;
    (void)state;
    make(&f);
    f.source.stack_size = 1;
    refused(&f, STATUS_INVALID, "m.blocks");
    f.blocks.num_dims = 3;
    memcpy(f.blocks.shape, (int64_t[]){ ROWS, BLOCKS, 16 }, 3 * sizeof(int64_t));
    f.scale.num_dims = 2;
    memcpy(f.scale.shape, (int64_t[]){ ROWS, BLOCKS }, 2 * sizeof(int64_t));
    assert_true(check(&f, &st));
}

static void test_scales(void **state)
{
    struct fixture f;
    struct status st;
    (void)state;
    make(&f);
    assert_true(quant_layout_mxfp4.check_values(&f.source, &st));
    scales[(1 * ROWS + 2) * BLOCKS + 1] = 255;
    assert_false(quant_layout_mxfp4.check_values(&f.source, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_non_null(strstr(st.message, "block 1 of row 5"));
}

static void test_codes(void **state)
{
    static const float values[8] = { 0, 0.5F, 1, 1.5F, 2, 3, 4, 6 };
    unsigned char row[BLOCKS * 17];
    struct fixture f;
    struct status st;
    (void)state;
    make(&f);
    memset(scales, 127, sizeof scales); /* 2^0 */
    assert_true(check(&f, &st));
    f.source.format = &f.format;
    for (int r = 0; r < STACK * ROWS; r++) {
        float out[COLS];
        quant_layout_mxfp4.read_rows(&f.source, row, r, 1, 1);
        f.format.dequantize(&f.format, out, row, 0, COLS);
        for (int c = 0; c < COLS; c++) {
            int code = codes[(r * COLS + c) / 2] >> (c % 2 * 4) & 15;
            float value = code & 8 ? -values[code & 7] : values[code & 7];
            if (out[c] != value)
                fail_msg("row %d, column %d: %g, should be %g", r, c, (double)out[c],
                         (double)value);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_one_matrix),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
