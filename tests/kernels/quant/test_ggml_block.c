/* test_ggml_block.c - every format of GGUF files against the `gguf` package, bit for bit, on random
 * blocks with scales of every kind (tests/golden/make_ggml_goldens.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/quant/ggml_formats.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS "tests/golden/ggml_blocks.json"

enum { SPECIAL_EVERY = 8 };

static json_int_t int_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

/* random_integers of tests/fixtures/make_tiny.py, seed 0, of the name in capitals; its low bytes.
 */
static void random_bytes(unsigned char *out, size_t count, const char *name)
{
    uint64_t state = 0xcbf29ce484222325u;
    for (; *name; name++)
        state = (state ^ (uint64_t)toupper((unsigned char)*name)) * 0x100000001b3u;
    for (size_t i = 0; i < count; i++) {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        out[i] = (unsigned char)((z ^ (z >> 31)) >> 40);
    }
}

static unsigned char *make_blocks(const json_t *root, const char *name, const json_t *golden)
{
    size_t num_blocks = (size_t)int_of(root, "num_blocks");
    size_t size = (size_t)int_of(golden, "block_bytes");
    const json_t *special = json_object_get(root, "special"), *offset;
    unsigned char *blocks = xmalloc(num_blocks * size);
    size_t i;
    random_bytes(blocks, num_blocks * size, name);
    for (size_t b = 0; b < num_blocks; b += SPECIAL_EVERY)
        json_array_foreach(json_object_get(golden, "halves"), i, offset)
        {
            size_t at = (size_t)json_integer_value(offset);
            size_t which = (b / SPECIAL_EVERY + at) % json_array_size(special);
            uint16_t bits = (uint16_t)json_integer_value(json_array_get(special, which));
            memcpy(blocks + b * size + at, &bits, sizeof bits);
        }
    return blocks;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0x7fc00000u : bits;
}

static uint64_t hash_of(const float *values, size_t count)
{
    uint64_t state = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++)
        for (int byte = 0; byte < 4; byte++)
            state = (state ^ (bits_of(values[i]) >> (8 * byte) & 255)) * 0x100000001b3u;
    return state;
}

static void check_format(const json_t *root, const char *name, const json_t *golden)
{
    const struct quant_format *f = quant_format_find(name);
    if (!f)
        fail_msg("there is no format %s", name);
    assert_int_equal(f->block_elements, int_of(golden, "block_elements"));
    assert_int_equal(f->block_bytes, int_of(golden, "block_bytes"));
    assert_int_equal(f->dtype, DTYPE_F32);
    size_t num_blocks = (size_t)int_of(root, "num_blocks");
    size_t count = num_blocks * (size_t)f->block_elements, i;
    unsigned char *blocks = make_blocks(root, name, golden);
    float *values = xmalloc(count * sizeof *values);
    const json_t *bits;
    char hash[17];
    f->dequantize(f, values, blocks, f->block_elements, f->block_elements);
    json_array_foreach(json_object_get(golden, "second"), i,
                       bits) if (bits_of(values[i]) != (uint32_t)json_integer_value(bits))
        fail_msg("%s: element %zu is %a (%08x), expected %08x", name, i, (double)values[i],
                 bits_of(values[i]), (unsigned)json_integer_value(bits));
    f->dequantize(f, values, blocks, 0, (int64_t)count);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash_of(values, count));
    assert_string_equal(hash, json_string_value(json_object_get(golden, "hash")));
    free(values);
    free(blocks);
}

static void test_dequantize(void **state)
{
    (void)state;
    json_error_t error;
    json_t *root = json_load_file(GOLDENS, 0, &error), *golden;
    const char *name;
    assert_non_null(root);
    json_t *types = json_object_get(root, "types");
    assert_int_equal(json_object_size(types), 13);
    json_object_foreach(types, name, golden) check_format(root, name, golden);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_dequantize) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
