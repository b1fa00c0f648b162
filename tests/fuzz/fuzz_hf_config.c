/* fuzz_hf_config.c - any text as config.json, and as generation_config.json beside a good one. What
 * is taken must be within the limits that everything after it relies on. */
#include "config/limits.h"
#include "engine/model/hf_config.h"
#include "engine/model/json_file.h"
#include "engine/model/rope_desc.h"
#include "engine/model/weight_slot.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_desc(const struct decoder_desc *d)
{
    static float inv_freq[LIMIT_HEAD_DIM / 2];
    check(d->hidden_size >= 1 && d->hidden_size <= LIMIT_HIDDEN_SIZE);
    check(d->num_hidden_layers >= 1 && d->num_hidden_layers <= LIMIT_NUM_LAYERS);
    check(d->head_dim >= 1 && d->head_dim <= LIMIT_HEAD_DIM);
    check(d->rope.rotary_dim >= 0 && d->rope.rotary_dim <= d->head_dim);
    check(d->rope.rotary_dim % 2 == 0 && d->sliding_rope.rotary_dim % 2 == 0);
    check(d->sliding_window >= 0 && d->sliding_rope.rotary_dim <= d->head_dim);
    check(d->num_key_value_heads >= 1 && d->num_attention_heads % d->num_key_value_heads == 0);
    check((unsigned)d->hidden_act < NUM_ACTIVATIONS);
    check(d->num_eos_token_ids >= 0 && d->num_eos_token_ids <= MAX_EOS_IDS);
    for (int32_t i = 0; i < d->num_eos_token_ids; i++)
        check(d->eos_token_ids[i] >= 0 && d->eos_token_ids[i] < d->vocab_size);
    check(d->bos_token_id >= -1 && d->bos_token_id < d->vocab_size);
    for (int slot = W_EMBEDDING; slot < NUM_WEIGHT_SLOTS; slot++) {
        struct weight_shape s = weight_slot_shape(d, (enum weight_slot)slot);
        check(!s.present || (s.rows > 0 && s.cols > 0));
    }
    rope_desc_inv_freq(&d->rope, inv_freq);
    for (int32_t i = 0; i < d->rope.rotary_dim / 2; i++)
        check(isfinite(inv_freq[i]) && inv_freq[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decoder_desc desc;
    struct hf_config hf;
    struct sampling_params params;
    struct status st;
    int32_t cap = 0;
    json_t *root = json_text_parse((const char *)data, size, "fuzz.json", &st);
    if (root && hf_config_read(root, &desc, &hf, &st))
        check_desc(&desc);
    else
        check(st.message[0] != '\0' && !strchr(st.message, '\n'));
    if (root) {
        struct decoder_desc good = { .vocab_size = 512 };
        sampling_params_defaults(&params);
        status_clear(&st);
        if (hf_generation_config_read(root, &good, &params, &cap, &st))
            check(params.temperature >= 0 && params.top_p > 0 && params.top_p <= 1 && cap >= 0);
        else
            check(st.message[0] != '\0');
    }
    json_decref(root);
    return 0;
}
