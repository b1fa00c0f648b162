#!/usr/bin/env python3
"""Makes tests/golden/arch/*.json: what transformers computes for a tiny model of each architecture.

    pip install -r tests/golden/requirements.txt
    python tests/golden/make_arch_goldens.py [NAME ...]

A file holds everything a test needs, but for the weights, which both sides draw from the tensors'
names (make_tiny.random_integers): `configs`, spellings of one config.json; `tensors`, name -> shape,
offset and exponent, a value being offset + integer * 2^(exponent - 23); `prompts`, each with its ids,
the logits at every position and 32 greedy ids, computed in float32. `min_gap` is the smallest distance
between the best and the second logit over those steps: errors below half of it cannot change the ids.
`bf16_error` is how far the logits of transformers' own bfloat16 run are from those: `max` and `rms` over
all positions, each in parts of the range of a position's logits. With experts a single prompt says little,
because the error jumps where rounding sends a token to another expert: there `bf16` has many prompts with
the logits of their last position, and the `median` and `mean` over the prompts of the last position's rms
error.
`served_len` 0 stands for what config.json gives; a rope whose frequencies depend on a length takes it
from there, and its prompts are such that transformers takes the same at every step.
"""
import json
import math
import pathlib
import statistics
import sys
import tempfile

import torch
import transformers
from safetensors import safe_open

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fixtures"))
import make_tiny  # noqa: E402

NUM_GREEDY = 32
NUM_BF16_PROMPTS = 32
LENGTHS = [11, 45]  # within one KV block of 16, and over three; the second beyond every window
SIZES = dict(vocab_size=71, hidden_size=48, intermediate_size=70, num_hidden_layers=3,
             num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=128,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)


def old_rope(config, **top):
    """The spelling before transformers 5: rope_theta and rope_scaling apart."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    scaled = rope.get("rope_type", "default") != "default"
    config["rope_scaling"] = {("type" if k == "rope_type" else k): v
                              for k, v in rope.items()} if scaled else None
    config.update(top)
    return config


def old_gemma3(config):
    rope = config.pop("rope_parameters")
    full, sliding = rope["full_attention"], rope["sliding_attention"]
    config.update(rope_theta=full.pop("rope_theta"), rope_scaling=full,
                  rope_local_base_freq=sliding["rope_theta"], sliding_window_pattern=3)
    del config["layer_types"]
    return config


def old_neox(config):
    rope = config.pop("rope_parameters")
    config.update(rotary_emb_base=rope["rope_theta"], rotary_pct=rope["partial_rotary_factor"])
    return config


def old_phi3(config):
    config = old_rope(config)
    scaling = config["rope_scaling"]
    config["partial_rotary_factor"] = scaling.pop("partial_rotary_factor")
    config["original_max_position_embeddings"] = scaling.pop("original_max_position_embeddings")
    return config


def derived_layers(config):
    """Without the lists that follow from other keys."""
    for key in ("layer_types", "no_rope_layers"):
        config.pop(key, None)
    return config


LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.5,
                original_max_position_embeddings=64, short_factor=[1.0, 1.25],
                long_factor=[1.5, 4.75])

def old_experts(config):
    config = old_rope(config)
    config["num_experts"] = config.pop("num_local_experts")
    return config


LATENTS = dict(num_key_value_heads=6, kv_lora_rank=22, qk_nope_head_dim=10, qk_rope_head_dim=6,
               v_head_dim=14, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
               moe_intermediate_size=21, first_k_dense_replace=1, routed_scaling_factor=1.7,
               rms_norm_eps=1e-3)


def old_deepseek_v3(config):
    """As published, with keys that transformers' own class does not have."""
    config = old_rope(config)
    config.update(scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1)
    del config["head_dim"]
    return config


# name -> class prefix, changes to SIZES, other spellings, (prompt length, served length) of each prompt
CASES = {
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=9, max_window_layers=1),
              [derived_layers, old_rope], None),
    "qwen2_yarn": ("Qwen2", dict(tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh",
                                 rope_parameters=dict(rope_type="yarn", rope_theta=1000.0, factor=4.0,
                                                      original_max_position_embeddings=32)),
                   [old_rope], None),
    "qwen3": ("Qwen3", dict(head_dim=14, tie_word_embeddings=True, rms_norm_eps=1e-5),
              [old_rope], None),
    "qwen2_moe": ("Qwen2Moe", dict(num_hidden_layers=4, decoder_sparse_step=2, num_experts=6,
                                   num_experts_per_tok=3, moe_intermediate_size=21,
                                   shared_expert_intermediate_size=37), [derived_layers, old_rope],
                  None),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=14, num_experts=7, num_experts_per_tok=3,
                                   moe_intermediate_size=22, norm_topk_prob=True,
                                   mlp_only_layers=[1], rms_norm_eps=1e-5), [old_experts], None),
    "mistral": ("Mistral", dict(head_dim=10, sliding_window=13), [old_rope], None),
    "mixtral": ("Mixtral", dict(head_dim=10, intermediate_size=33, num_local_experts=5,
                                num_experts_per_tok=2, sliding_window=13), [old_rope], None),
    "gpt_oss": ("GptOss", dict(head_dim=10, intermediate_size=33, num_local_experts=5,
                               num_experts_per_tok=3, sliding_window=13, num_hidden_layers=4,
                               rope_parameters=dict(rope_type="yarn", rope_theta=1500.0, factor=4.0,
                                                    beta_fast=32.0, beta_slow=1.0, truncate=False,
                                                    original_max_position_embeddings=32)),
                [derived_layers, old_rope], None),
    "deepseek_v2": ("DeepseekV2", dict(LATENTS, q_lora_rank=20, attention_bias=True,
                                       topk_method="group_limited_greedy", n_group=4, topk_group=2,
                                       rope_parameters=dict(
                                           rope_type="yarn", rope_theta=1000.0, factor=4.0,
                                           mscale=0.8, mscale_all_dim=1.1, beta_fast=32.0,
                                           beta_slow=1.0, original_max_position_embeddings=32)),
                    [old_rope], None),
    "deepseek_v2_lite": ("DeepseekV2", dict(LATENTS, q_lora_rank=None, topk_method="greedy",
                                            routed_scaling_factor=1.0, first_k_dense_replace=0),
                         [old_rope], None),
    "deepseek_v3": ("DeepseekV3", dict(LATENTS, q_lora_rank=20, n_group=4, topk_group=2,
                                       n_routed_experts=12, num_experts_per_tok=4,
                                       n_shared_experts=1, norm_topk_prob=True,
                                       rope_parameters=dict(
                                           rope_type="yarn", rope_theta=1000.0, factor=4.0,
                                           mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0,
                                           beta_slow=1.0, original_max_position_embeddings=32)),
                    [old_rope, old_deepseek_v3], None),
    "deepseek_v3_halves": ("DeepseekV3", dict(LATENTS, q_lora_rank=None, n_group=1, topk_group=1,
                                              rope_interleave=False, norm_topk_prob=False,
                                              hidden_act="gelu", tie_word_embeddings=True),
                           [old_rope], None),
    "gemma2": ("Gemma2", dict(head_dim=10, query_pre_attn_scalar=24, sliding_window=9,
                              attn_logit_softcapping=2.5, final_logit_softcapping=4.0),
               [derived_layers, old_rope], None),
    "gemma3": ("Gemma3", dict(head_dim=10, query_pre_attn_scalar=24, sliding_window=9,
                              num_hidden_layers=4, layer_types=["sliding_attention"] * 2 +
                              ["full_attention", "sliding_attention"], rope_parameters=dict(
                                  full_attention=dict(rope_type="linear", rope_theta=50000.0,
                                                      factor=8.0),
                                  sliding_attention=dict(rope_type="default", rope_theta=100.0))),
               [old_gemma3], None),
    "phi3": ("Phi3", dict(rope_parameters=LONGROPE, original_max_position_embeddings=64,
                          sliding_window=20), [old_phi3], [(11, 64), (70, 0)]),
    "olmo2": ("Olmo2", dict(), [old_rope], None),
    "granite": ("Granite", dict(embedding_multiplier=3.5, attention_multiplier=0.2,
                                residual_multiplier=0.6, logits_scaling=1.75, attention_bias=True,
                                mlp_bias=True), [old_rope], None),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4, no_rope_layer_interval=3,
                                use_sliding_window=True, sliding_window=17),
                [derived_layers, old_rope], None),
    "starcoder2": ("Starcoder2", dict(sliding_window=11), [old_rope], None),
    "gpt_neox": ("GPTNeoX", dict(rope_parameters=dict(rope_type="default", rope_theta=5000.0,
                                                      partial_rotary_factor=0.25),
                                 hidden_size=64, num_attention_heads=4, attention_bias=True),
                 [old_neox], None),
    "gpt_neox_serial": ("GPTNeoX", dict(use_parallel_residual=False, hidden_act="gelu_fast",
                                        rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                             partial_rotary_factor=0.5),
                                        tie_word_embeddings=True), [old_neox], None),
    "gpt2": ("GPT2", dict(n_embd=48, n_layer=3, n_head=6, n_positions=128), [], None),
    # What a GGUF file can say of its family: the layers that slide, the scale of attention and the
    # activation follow from the family's name alone. For tests/engine/model/test_gguf_parity.c.
    "gguf_llama": ("Llama", dict(num_key_value_heads=3, head_dim=10, rope_parameters=dict(
        rope_type="llama3", rope_theta=1000.0, factor=8.0, low_freq_factor=1.0,
        high_freq_factor=4.0, original_max_position_embeddings=32)), [], None),
    "gguf_mixtral": ("Mixtral", dict(head_dim=10, intermediate_size=33, num_local_experts=5,
                                     num_experts_per_tok=2, sliding_window=None), [], None),
    "gguf_qwen2": ("Qwen2", dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=1000.0, factor=4.0, original_max_position_embeddings=32)), [],
        None),
    "gguf_qwen2_moe": ("Qwen2Moe", dict(num_experts=6, num_experts_per_tok=3,
                                        moe_intermediate_size=21,
                                        shared_expert_intermediate_size=37), [], None),
    "gguf_qwen3_moe": ("Qwen3Moe", dict(hidden_size=64, head_dim=16, num_experts=7,
                                        num_experts_per_tok=3, moe_intermediate_size=32,
                                        norm_topk_prob=True), [], None),  # whole blocks of 32
    "gguf_gemma2": ("Gemma2", dict(head_dim=10, query_pre_attn_scalar=10, sliding_window=9,
                                   attn_logit_softcapping=2.5, final_logit_softcapping=4.0), [],
                    None),
    "gguf_gemma3": ("Gemma3", dict(head_dim=10, query_pre_attn_scalar=10, sliding_window=9,
                                   num_hidden_layers=7, rope_parameters=dict(
                                       full_attention=dict(rope_type="linear", rope_theta=50000.0,
                                                           factor=8.0),
                                       sliding_attention=dict(rope_type="default",
                                                              rope_theta=100.0))), [], None),
    # transformers takes the length of the moment; up to max_position_embeddings it changes nothing.
    "llama_dynamic": ("Llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1000.0,
                                                         factor=3.0), max_position_embeddings=80),
                      [old_rope], [(11, 80), (45, 80)]),
}


def tensor_rule(name, shape, gemma, tied):
    """Sizes that let every part of a model show in its logits, and keep it from repeating itself."""
    if name.endswith(".bias"):
        return 0.0, -3
    if len(shape) == 1:
        return (0.0 if gemma else 1.0), -2
    if any(part in name for part in ("embed", "wte", "wpe")):
        return 0.0, -4 if tied else -2
    if name.endswith("experts.gate_up_proj"):  # so large that gpt-oss's clamps show
        return 0.0, 0
    fan_in = shape[0] if ".h." in name else shape[-1]  # GPT-2 stores [in_features, out_features]
    return 0.0, round(math.log2(math.sqrt(3 / fan_in)))


def class_of(prefix, kind):
    if kind == "Model":
        return getattr(transformers, f"{prefix}LMHeadModel" if prefix == "GPT2"
                       else f"{prefix}ForCausalLM")
    return getattr(transformers, f"{prefix}{'Text' if prefix == 'Gemma3' else ''}Config")


def make_config(prefix, changes):
    settings = {} if prefix == "GPT2" else dict(SIZES)
    if prefix == "GPT2":
        settings = dict(vocab_size=SIZES["vocab_size"], bos_token_id=1, eos_token_id=2)
    config = class_of(prefix, "Config")(**{**settings, **changes})
    config.architectures = [class_of(prefix, "Model").__name__]
    config.dtype = torch.float32
    text = json.loads(config.to_json_string())
    text.pop("transformers_version", None)
    return config, text


def tensor_table(prefix, config):
    """Names as checkpoints have them, which is not always what the module calls them."""
    with tempfile.TemporaryDirectory() as target:
        class_of(prefix, "Model")(config).save_pretrained(target)
        with safe_open(pathlib.Path(target) / "model.safetensors", "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    tied = config.tie_word_embeddings
    return {name: [shape, *tensor_rule(name, shape, prefix.startswith("Gemma"), tied)]
            for name, shape in sorted(shapes.items())}


def values(name, shape, offset, exponent):
    scale = 2.0 ** (exponent - 23)
    return [offset + k * scale for k in make_tiny.random_integers(name, 1, math.prod(shape))]


def load(prefix, config, weights, dtype=torch.float32):
    with tempfile.TemporaryDirectory() as target:
        target = pathlib.Path(target)
        (target / "config.json").write_text(json.dumps(config))
        make_tiny.write_safetensors(target / "model.safetensors", weights)
        model, info = class_of(prefix, "Model").from_pretrained(
            target, dtype=dtype, attn_implementation="eager", output_loading_info=True,
            **(dict(experts_implementation="eager") if "num_experts_per_tok" in config else {}))
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


def forward(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def golden_prompt(model, ids, served_len):
    logits = forward(model, ids)
    greedy, gaps, row = [], [], logits[-1]
    while len(greedy) < NUM_GREEDY:
        top = row.topk(2)
        greedy.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
        row = forward(model, ids + greedy)[-1]
    return {"served_len": served_len, "ids": ids, "greedy_ids": greedy,
            "min_gap": round(min(gaps), 5),
            "logits": [[round(x, 5) for x in row] for row in logits.tolist()]}


def logits_error(expected, logits):
    """As the test computes it."""
    size = expected.max(-1, keepdim=True).values - expected.min(-1, keepdim=True).values
    error = (logits.double() - expected) / size
    return {"max": float(f"{error.abs().max():.3g}"),
            "rms": float(f"{error.pow(2).mean().sqrt():.3g}")}


def add_bf16_errors(name, prefix, config, weights, prompts):
    """To the prompts; or returns what stands for all of them where the model has experts."""
    model = load(prefix, json.loads(json.dumps(config)), weights, torch.bfloat16)
    if "num_experts_per_tok" not in config:
        for prompt in prompts:
            expected = torch.tensor(prompt["logits"], dtype=torch.float64)
            prompt["bf16_error"] = logits_error(expected, forward(model, prompt["ids"]))
        return None
    exact, many, errors = load(prefix, config, weights), [], []
    for length in range(6, 6 + NUM_BF16_PROMPTS):
        random = make_tiny.random_integers(f"{name} bf16 {length}", 1, length)
        ids = [k % SIZES["vocab_size"] for k in random]
        logits = [round(x, 5) for x in forward(exact, ids)[-1].tolist()]
        expected = torch.tensor([logits], dtype=torch.float64)
        errors.append(logits_error(expected, forward(model, ids)[-1:])["rms"])
        many.append({"ids": ids, "logits": logits})
    return {"median": float(f"{statistics.median(errors):.3g}"),
            "mean": float(f"{statistics.fmean(errors):.3g}"), "prompts": many}


def choose_prompt(model, name, length, served_len):
    """The first random prompt whose greedy choices are far from ties, and not always the same."""
    best, best_score = None, None
    for seed in range(30):
        random = make_tiny.random_integers(f"{name} {length}", seed, length)
        ids = [k % SIZES["vocab_size"] for k in random]
        prompt = golden_prompt(model, ids, served_len)
        score = (prompt["min_gap"] > 2e-3, min(len(set(prompt["greedy_ids"])), 8))
        if best is None or score > best_score:
            best, best_score = prompt, score
        if score == (True, 8):
            break
    return best


@torch.no_grad()
def golden_case(name):
    prefix, changes, spellings, prompts = CASES[name]
    config, text = make_config(prefix, changes)
    tensors = tensor_table(prefix, config)
    weights = {}
    for tensor, (shape, offset, exponent) in tensors.items():
        kind, encode = make_tiny.ENCODE["float32"]
        weights[tensor] = (kind, shape, encode(values(tensor, shape, offset, exponent)))
    model = load(prefix, text, weights)
    result = [choose_prompt(model, name, length, served)
              for length, served in prompts or [(n, 0) for n in LENGTHS]]
    bf16 = add_bf16_errors(name, prefix, text, weights, result)
    configs = [text] + [change(json.loads(json.dumps(text))) for change in spellings]
    for other in configs[1:]:
        again = load(prefix, json.loads(json.dumps(other)), weights)
        assert torch.equal(forward(model, result[-1]["ids"]), forward(again, result[-1]["ids"]))
    print(f"{name}: smallest gap {min(p['min_gap'] for p in result)}, "
          f"{[len(set(p['greedy_ids'])) for p in result]} different ids, "
          f"{sum(math.prod(t[0]) for t in tensors.values())} weights")
    return {"command": "python tests/golden/make_arch_goldens.py " + name,
            "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
            "configs": configs, "tensors": tensors, "prompts": result,
            **({"bf16": bf16} if bf16 else {})}


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        text = json.dumps(golden_case(name), separators=(",", ":"))
        for at in ("],[", '},"', '],"'):
            text = text.replace(at, at[:2] + "\n" + at[2:])
        (HERE / "arch" / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
