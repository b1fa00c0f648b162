#!/usr/bin/env python3
"""Makes tests/golden/quant/: a tiny checkpoint in each quantized format (a Llama; in MXFP4 a
gpt-oss, and a DeepSeek-V3), and what an independent reader makes of its linears.

    pip install -r tests/golden/requirements.txt compressed-tensors
    python tests/golden/make_quant_goldens.py [--corpus | --parallel] [NAME ...]

With --corpus it makes smaller ones, as inputs of tests/fuzz/fuzz_quant.c, in tests/fuzz/corpus; some also as a
DeepSeek-V3 with experts, a Qwen3-MoE or a gpt-oss, whose names end in _deepseek, _qwen3_moe and _gpt_oss. With --parallel
it makes larger ones, whose groups can be divided among 4 ranks, in tests/golden/parallel_quant (committed:
awq_g32 gptq_4bit_g32_v2 ct_w4a16_g32_asym fp8_block bnb_nf4_double mxfp4); several ranks are checked against one.

NAME/config.json and NAME/model.safetensors are the checkpoint; NAME/expected.json holds, for each
quantized linear, the FNV-1a hash of its dequantized matrix (little-endian float32, row after row) and
the first values. Where the numbers come from:

- compressed-tensors' own compressors write and read its formats;
- block-scaled FP8 is read by transformers (Fp8Dequantize);
- MXFP4 is read by transformers (convert_moe_packed_tensors);
- AWQ, GPTQ and bitsandbytes' nf4 are written and read by the functions below, which follow the
  published descriptions of the layouts: the packages that define them do not install everywhere.
"""
import json
import math
import pathlib
import shutil
import sys

import numpy as np
import torch
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save, save_file

HERE = pathlib.Path(__file__).resolve().parent
HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 64, 96, 4, 2, 64
if "--corpus" in sys.argv:
    HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 32, 32, 2, 1, 8
if "--parallel" in sys.argv:
    HIDDEN, INNER, HEADS, KV_HEADS = 128, 128, 8, 4
LINEARS = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
           "self_attn.v_proj": (HIDDEN // 2, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
           "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
           "mlp.down_proj": (HIDDEN, INNER)}


def fnv1a(data):
    state = 0xcbf29ce484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return state


# --- compressed-tensors ------------------------------------------------------------------------------

def ct_scales(weight, args, dtype):
    """Scales and zero points as plain minima and maxima give them."""
    rows, cols = weight.shape
    if args.strategy == "tensor":
        parts, shape = weight.reshape(1, 1, -1), (1,)
    elif args.strategy == "channel":
        parts, shape = weight.reshape(rows, 1, cols), (rows, 1)
    elif args.strategy == "group":
        parts, shape = weight.reshape(rows, cols // args.group_size, args.group_size), None
    else:
        bm, bn = args.block_structure
        grid = torch.empty(math.ceil(rows / bm), math.ceil(cols / bn))
        for i in range(grid.shape[0]):
            for j in range(grid.shape[1]):
                grid[i, j] = weight[i * bm:(i + 1) * bm, j * bn:(j + 1) * bn].abs().max() / 448
        return grid.to(dtype), None
    top, bottom = parts.amax(-1), parts.amin(-1)
    if args.type == "float":
        scale, zero = torch.maximum(top, -bottom) / 448, None
    elif args.symmetric:
        scale, zero = torch.maximum(top, -bottom) / (2 ** (args.num_bits - 1) - 1), None
    else:
        top, bottom = top.clamp(min=0), bottom.clamp(max=0)
        scale = (top - bottom) / (2 ** args.num_bits - 1)
        low = -2 ** (args.num_bits - 1)
        zero = (low - bottom / scale).round().clamp(low, -low - 1).to(torch.int8)
        zero = zero.reshape(shape) if shape else zero
    scale = scale.reshape(shape) if shape else scale
    return scale.to(dtype), zero


def compressed_tensors(fmt, weights, activations=None, scale_dtype=torch.bfloat16):
    args = QuantizationArgs(**weights)
    acts = QuantizationArgs(**activations) if activations else None
    scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=acts)
    compressor = (PackedQuantizationCompressor if fmt == "pack-quantized"
                  else NaiveQuantizationCompressor)

    def quantize(weight):
        scale, zero = ct_scales(weight, args, scale_dtype)
        state = {"weight": weight.to(scale_dtype), "weight_scale": scale}
        if zero is not None:
            state["weight_zero_point"] = zero
        packed = compressor.compress(state, scheme)
        back = compressor.decompress(packed, scheme)["weight"]
        if activations and not activations.get("dynamic"):
            packed["input_scale"] = torch.tensor([0.125], dtype=scale_dtype)
        return packed, back.float()

    group = {"targets": ["Linear"], "weights": json.loads(args.model_dump_json()),
             "input_activations": json.loads(acts.model_dump_json()) if acts else None,
             "output_activations": None}
    config = {"quant_method": "compressed-tensors", "format": fmt, "config_groups": {"group_0": group},
              "ignore": ["lm_head"], "quantization_status": "compressed", "kv_cache_scheme": None}
    return config, quantize


# --- FP8 of DeepSeek and Qwen --------------------------------------------------------------------------

def fp8(block):
    def quantize(weight):
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize
        rows, cols = weight.shape
        bm, bn = block or weight.shape
        blocks = weight.reshape(rows // bm, bm, cols // bn, bn)
        scale = (blocks.abs().amax((1, 3)) / 448).float()
        codes = (blocks / scale[:, None, :, None]).reshape(rows, cols).to(torch.float8_e4m3fn)
        back = Fp8Dequantize(None)._dequantize_one(codes, scale, torch.float32)
        if block is None:
            return {"weight": codes, "weight_scale": scale.reshape(()),
                    "input_scale": torch.tensor(0.25)}, back
        return {"weight": codes, "weight_scale_inv": scale}, back
    config = {"quant_method": "fp8", "activation_scheme": "dynamic" if block else "static", "fmt": "e4m3"}
    if block:
        config["weight_block_size"] = list(block)
    return config, quantize


# --- AWQ and GPTQ --------------------------------------------------------------------------------------

def integer_groups(weight, bits, group, symmetric):
    """Codes [out, in], scales and zero points [out, groups], the zero points as they are meant."""
    rows, cols = weight.shape
    parts = weight.reshape(rows, cols // group, group)
    top, bottom = parts.max(-1).clip(min=0), parts.min(-1).clip(max=0)
    if symmetric:
        scale = np.maximum(top, -bottom) / (2 ** (bits - 1) - 1)
        zero = np.full(scale.shape, 2 ** (bits - 1))
    else:
        scale = (top - bottom) / (2 ** bits - 1)
        zero = np.round(-bottom / scale)
    scale = scale.astype(np.float16)
    codes = np.round(parts / scale[..., None].astype(np.float32)) + zero[..., None]
    return codes.clip(0, 2 ** bits - 1).reshape(rows, cols).astype(np.int64), scale, zero.astype(np.int64)


def pack_words(values, bits, places):
    """The last axis, 32 / bits values in a word; value j at place places[j]."""
    in_word = 32 // bits
    values = values.reshape(*values.shape[:-1], -1, in_word).astype(np.uint64)
    words = np.zeros(values.shape[:-1], np.uint64)
    for j in range(in_word):
        words |= values[..., j] << np.uint64(bits * places[j])
    return words.astype(np.uint32).view(np.int32)


def unpack_words(words, bits, places):
    in_word = 32 // bits
    words = words.view(np.uint32).astype(np.uint64)
    parts = [(words >> np.uint64(bits * places[j])) & np.uint64(2 ** bits - 1) for j in range(in_word)]
    return np.stack(parts, -1).reshape(*words.shape[:-1], -1).astype(np.int64)


AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]


def awq(group):
    def quantize(weight):
        codes, scale, zero = integer_groups(weight.numpy(), 4, group, False)
        tensors = {"qweight": pack_words(codes.T, 4, AWQ_PLACES), "scales": np.ascontiguousarray(scale.T),
                   "qzeros": pack_words(zero.T, 4, AWQ_PLACES)}
        # Read back as autoawq's dequantize_gemm does: integers, less the zero points, times float16.
        w = unpack_words(tensors["qweight"], 4, AWQ_PLACES)
        z = unpack_words(tensors["qzeros"], 4, AWQ_PLACES).repeat(group, 0)
        back = ((w - z).astype(np.float16) * tensors["scales"].repeat(group, 0)).T
        return ({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()},
                torch.from_numpy(np.ascontiguousarray(back).astype(np.float32)))
    return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
            "version": "gemm", "modules_to_not_convert": None}, quantize


def gptq(bits, group, symmetric, act_order=False, v2=False, dtype=np.float16):
    def quantize(weight):
        w = weight.numpy()
        rows, cols = w.shape
        size = cols if group == -1 else group
        order = np.random.default_rng(cols).permutation(cols) if act_order else np.arange(cols)
        g_idx = np.empty(cols, np.int32)
        g_idx[order] = np.arange(cols) // size
        codes, scale, zero = integer_groups(w[:, order], bits, size, symmetric)
        codes[:, order] = codes.copy()
        plain = list(range(32 // bits))
        stored = zero if v2 else (zero - 1) % 2 ** bits
        tensors = {"qweight": np.ascontiguousarray(pack_words(codes, bits, plain).T),
                   "qzeros": pack_words(np.ascontiguousarray(stored.T), bits, plain),
                   "scales": np.ascontiguousarray(scale.T).astype(dtype), "g_idx": g_idx,
                   "bias": np.zeros(rows, np.float16)}
        # Read back as gptqmodel's TorchQuantLinear does: scales[g_idx] * (codes - zeros[g_idx]).
        q = unpack_words(np.ascontiguousarray(tensors["qweight"].T), bits, plain).T
        z = (unpack_words(tensors["qzeros"], bits, plain) + (0 if v2 else 1)) % 2 ** bits
        g = tensors["g_idx"]
        back = (tensors["scales"][g] * (q - z[g]).astype(dtype)).T
        return ({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()},
                torch.from_numpy(np.ascontiguousarray(back).astype(np.float32)))
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order,
            "sym": symmetric, "checkpoint_format": "gptq_v2" if v2 else "gptq",
            "lm_head": False}, quantize


# --- bitsandbytes --------------------------------------------------------------------------------------

NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
                -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
                0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)


def dynamic_map():
    """The signed 8-bit "dynamic tree" of bitsandbytes (Dettmers et al., 2021, arXiv:2110.02861)."""
    values = []
    for i in range(7):
        count = 2 ** i
        bounds = np.linspace(0.1, 1, count + 1, dtype=np.float64)
        means = (bounds[:-1] + bounds[1:]) / 2
        values += list(10.0 ** (i - 6) * means) + list(-(10.0 ** (i - 6)) * means)
    return np.array(sorted(values + [0.0, 1.0]), np.float32)


def nf4(double):
    def quantize(weight):
        w = weight.numpy()
        blocks = w.reshape(-1, 32)
        absmax = np.abs(blocks).max(1).astype(np.float32)
        codes = np.abs(blocks[..., None] / absmax[:, None, None] - NF4).argmin(-1)
        tensors = {"weight": (codes[:, 0::2] << 4 | codes[:, 1::2]).astype(np.uint8).reshape(-1, 1),
                   "weight.quant_map": NF4.copy()}
        state = {"quant_type": "nf4", "blocksize": 32, "dtype": "bfloat16", "shape": list(w.shape)}
        scale = absmax
        if double:
            table, offset = dynamic_map(), np.float32(absmax.mean())
            padded = np.zeros(-(-len(absmax) // 256) * 256, np.float32)
            padded[:len(absmax)] = absmax - offset
            nested = np.abs(padded.reshape(-1, 256)).max(1).astype(np.float32)
            small = np.abs(padded.reshape(-1, 256, 1) / nested[:, None, None] - table).argmin(-1)
            small = small.reshape(-1)[:len(absmax)].astype(np.uint8)
            tensors.update({"weight.absmax": small, "weight.nested_absmax": nested,
                            "weight.nested_quant_map": table})
            state.update(nested_blocksize=256, nested_dtype="float32", nested_offset=float(offset))
            scale = table[small] * nested.repeat(256)[:len(absmax)] + offset
        else:
            tensors["weight.absmax"] = absmax
        text = json.dumps(state).encode()
        tensors["weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8).copy()
        back = torch.from_numpy((NF4[codes] * scale[:, None].astype(np.float32)).reshape(w.shape))
        return {k: torch.from_numpy(v) for k, v in tensors.items()}, back.to(torch.bfloat16).float()
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double,
            "bnb_4bit_compute_dtype": "bfloat16"}, quantize


# --- MXFP4 of gpt-oss ----------------------------------------------------------------------------------

def mxfp4():
    def quantize(weight):
        from transformers.integrations.mxfp4 import FP4_VALUES, convert_moe_packed_tensors
        *shape, cols = weight.shape
        parts = weight.reshape(*shape, cols // 32, 32)
        scales = (torch.floor(torch.log2(parts.abs().amax(-1))) - 2 + 127).to(torch.uint8)
        scaled = parts * torch.exp2(127 - scales.float())[..., None]
        codes = (scaled.abs()[..., None] - torch.tensor(FP4_VALUES[:8])).abs().argmin(-1)
        codes = (codes + 8 * scaled.signbit()).to(torch.uint8)
        blocks = codes[..., 0::2] | codes[..., 1::2] << 4
        scales.view(-1)[3:6] = torch.arange(3)  # the least, of which two give subnormal floats
        back = convert_moe_packed_tensors(blocks.reshape(-1, *blocks.shape[-3:]),
                                          scales.reshape(-1, *scales.shape[-2:]), dtype=torch.float32)
        back = back.transpose(1, 2).reshape(weight.shape)
        return {"blocks": blocks, "scales": scales}, back + 0.0  # 0 has no sign in the format's rows
    return {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}, quantize


# --- cases ---------------------------------------------------------------------------------------------

INT8_TOKEN = dict(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
FP8_TOKEN = dict(num_bits=8, type="float", symmetric=True, strategy="token", dynamic=True)
FP8_STATIC = dict(num_bits=8, type="float", symmetric=True, strategy="tensor", dynamic=False)
CASES = {
    "awq_g32": awq(32),
    "gptq_4bit_g32_sym": gptq(4, 32, True),
    "gptq_4bit_row": gptq(4, -1, False),
    "gptq_4bit_g16_act_order": gptq(4, 16, False, act_order=True),
    "gptq_4bit_g32_v2": gptq(4, 32, False, v2=True),
    "gptq_8bit_g32_act_order": gptq(8, 32, True, act_order=True),
    "ct_w4a16_g32": compressed_tensors("pack-quantized", dict(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)),
    "ct_w4a16_g32_asym": compressed_tensors("pack-quantized", dict(
        num_bits=4, type="int", symmetric=False, strategy="group", group_size=32)),
    "ct_w8a16_channel": compressed_tensors("pack-quantized", dict(
        num_bits=8, type="int", symmetric=True, strategy="channel"), scale_dtype=torch.float16),
    "ct_w8a8_int8": compressed_tensors("int-quantized", dict(
        num_bits=8, type="int", symmetric=True, strategy="channel"), INT8_TOKEN),
    "ct_w8a8_int8_asym": compressed_tensors("int-quantized", dict(
        num_bits=8, type="int", symmetric=False, strategy="channel"), INT8_TOKEN,
        scale_dtype=torch.float32),
    "ct_fp8_static": compressed_tensors("float-quantized", dict(
        num_bits=8, type="float", symmetric=True, strategy="tensor"), FP8_STATIC),
    "ct_fp8_dynamic": compressed_tensors("float-quantized", dict(
        num_bits=8, type="float", symmetric=True, strategy="channel"), FP8_TOKEN),
    "ct_fp8_block": compressed_tensors("float-quantized", dict(
        num_bits=8, type="float", symmetric=True, strategy="block", block_structure=[48, 32])),
    "fp8_block": fp8((16, 32)),
    "fp8_tensor": fp8(None),
    "fp8_block_deepseek": fp8((16, 32)),
    "bnb_nf4": nf4(False),
    "bnb_nf4_double": nf4(True),
    "mxfp4": mxfp4(),
}
CORPUS_CASES = {
    "ct_w4a16_g32_deepseek": CASES["ct_w4a16_g32"],
    "bnb_nf4_deepseek": CASES["bnb_nf4"],
    "awq_g32_qwen3_moe": CASES["awq_g32"],
    "gptq_4bit_g16_act_order_qwen3_moe": CASES["gptq_4bit_g16_act_order"],
    "fp8_block_qwen3_moe": CASES["fp8_block"],
    "mxfp4_gpt_oss": CASES["mxfp4"],
}


def model_config(quantization):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
            "quantization_config": quantization}


EXPERTS = 3
STACK_INNER = 2 * INNER if "--corpus" in sys.argv else INNER  # two ranks can share its blocks
STACKS = {"mlp.experts.gate_up_proj": (EXPERTS, 2 * STACK_INNER, HIDDEN),
          "mlp.experts.down_proj": (EXPERTS, HIDDEN, STACK_INNER)}


def gpt_oss_config(quantization):
    return {**model_config(quantization), "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
            "head_dim": HIDDEN // HEADS, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
            "sliding_window": 13, "tie_word_embeddings": False,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                             "original_max_position_embeddings": 32, "truncate": False}}


# Sizes that blocks of 16 x 32 divide.
NOPE, ROPE, VALUE, LATENT, QUERY_LATENT = 16, 16, 16, 32, 32
DEEPSEEK = {"self_attn.q_a_proj": (QUERY_LATENT, HIDDEN),
            "self_attn.q_b_proj": (HEADS * (NOPE + ROPE), QUERY_LATENT),
            "self_attn.kv_a_proj_with_mqa": (LATENT + ROPE, HIDDEN),
            "self_attn.kv_b_proj": (HEADS * (NOPE + VALUE), LATENT),
            "self_attn.o_proj": (HIDDEN, HEADS * VALUE),
            **{k: v for k, v in LINEARS.items() if "mlp" in k}}


# What experts add in the corpus: one after another, the shared one of DeepSeek-V3 by itself.
CORPUS_EXPERTS = {f"mlp.experts.{e}.{k}_proj": (INNER, HIDDEN)
                  for e in range(2) for k in ("gate", "up", "down")}
CORPUS_SHARED = {f"mlp.shared_experts.{k}_proj": (INNER, HIDDEN) for k in ("gate", "up", "down")}


def attention_of(linears):
    return {k: v for k, v in linears.items() if "attn" in k}


def corpus_linears(name):
    if name.endswith("_deepseek"):
        return {**attention_of(DEEPSEEK), **CORPUS_EXPERTS, **CORPUS_SHARED}
    if name.endswith("_qwen3_moe"):
        return {**attention_of(LINEARS), **CORPUS_EXPERTS}
    return STACKS if name.endswith("_gpt_oss") else LINEARS


def corpus_plain(name):
    """What else such a model has: routers, and norms on the heads of q and k."""
    if not name.endswith(("_deepseek", "_qwen3_moe")):
        return {}
    tensors = {"mlp.gate.weight": torch.randn(2, HIDDEN).bfloat16()}
    if name.endswith("_deepseek"):
        tensors["mlp.gate.e_score_correction_bias"] = torch.randn(2)
    else:
        for norm in ("q", "k"):
            tensors[f"self_attn.{norm}_norm.weight"] = torch.ones(HIDDEN // HEADS).bfloat16()
    return {f"model.layers.0.{key}": value for key, value in tensors.items()}


def deepseek_config(quantization):
    return {**model_config(quantization), "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3", "num_key_value_heads": HEADS, "q_lora_rank": QUERY_LATENT,
            "kv_lora_rank": LATENT, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE,
            "v_head_dim": VALUE, "first_k_dense_replace": 1, "n_routed_experts": 4,
            "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "moe_intermediate_size": 32, "routed_scaling_factor": 1.0, "scoring_func": "sigmoid",
            "topk_method": "noaux_tc", "norm_topk_prob": True, "rope_theta": 10000.0}


def gpt_oss_plain():
    """What is not quantized of the one layer, and the head."""
    tensors = {"lm_head.weight": torch.randn(VOCAB, HIDDEN) / 4,
               "model.layers.0.self_attn.sinks": torch.randn(HEADS)}
    for linear, (rows, cols) in {**{k: v for k, v in LINEARS.items() if "attn" in k},
                                 "mlp.router": (EXPERTS, HIDDEN)}.items():
        tensors[f"model.layers.0.{linear}.weight"] = torch.randn(rows, cols) / math.sqrt(cols)
        tensors[f"model.layers.0.{linear}.bias"] = torch.randn(rows) / 4
    for stack, shape in STACKS.items():
        tensors[f"model.layers.0.{stack}_bias"] = torch.randn(shape[:2]) / 4
    return {key: value.bfloat16() for key, value in tensors.items()}


def make(name, config, quantize):
    torch.manual_seed(fnv1a(name.encode()) & 0xffffffff)
    folder = "parallel_quant" if "--parallel" in sys.argv else "quant"
    target = HERE / ("corpus" if "--corpus" in sys.argv else folder) / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tensors = {"model.embed_tokens.weight": torch.randn(VOCAB, HIDDEN).bfloat16(),
               "model.norm.weight": torch.ones(HIDDEN).bfloat16()}
    for norm in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{norm}.weight"] = (1 + torch.randn(HIDDEN) / 8).bfloat16()
    expected = {}
    corpus, deepseek = "--corpus" in sys.argv, name.endswith("_deepseek")
    gpt_oss = name.endswith("_gpt_oss") or (name == "mxfp4" and not corpus)
    linears = STACKS if gpt_oss else DEEPSEEK if deepseek else LINEARS
    if corpus:
        linears = corpus_linears(name)
        tensors.update(corpus_plain(name))
    if gpt_oss:
        tensors.update(gpt_oss_plain())
    if deepseek:
        for norm, size in (("q_a", QUERY_LATENT), ("kv_a", LATENT)):
            tensors[f"model.layers.0.self_attn.{norm}_layernorm.weight"] = torch.ones(size).bfloat16()
    for linear, shape in linears.items():
        packed, back = quantize(torch.randn(shape) / math.sqrt(shape[-1]))
        for suffix, tensor in packed.items():
            tensors[f"model.layers.0.{linear}{'_' if gpt_oss else '.'}{suffix}"] = tensor.contiguous()
        data = back.numpy().astype("<f4")
        assert data.shape == shape and np.isfinite(data).all()
        expected[linear] = {"fnv1a": f"{fnv1a(data.tobytes()):016x}",
                            "first": [float(x) for x in data.reshape(-1)[:4]]}
    if corpus:
        shutil.rmtree(target)
        file = HERE.parent / "fuzz" / "corpus" / "fuzz_quant" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(json.dumps(config).encode() + b"\0" + save(tensors))
        return
    save_file(tensors, target / "model.safetensors")
    config = (gpt_oss_config if gpt_oss else deepseek_config if deepseek else model_config)(config)
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if "--parallel" not in sys.argv:
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(name, (target / "model.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    cases = {**CASES, **CORPUS_CASES} if "--corpus" in sys.argv else CASES
    for case in [arg for arg in sys.argv[1:] if not arg.startswith("--")] or cases:
        make(case, *cases[case])
