#!/usr/bin/env python3
"""Makes tests/golden/quant/NAME/logits.json of the checkpoints there whose activations are quantized too: what
transformers' Llama in float32 gives where each linear's input passes compressed-tensors' own fake_quantize first.

    pip install -r tests/golden/requirements.txt compressed-tensors
    python tests/golden/make_w8a8_goldens.py

Weights are codes times scales in float32. A token's scale is its greatest magnitude by 127 or 448, as vLLM's
kernels have it (compressed-tensors itself says 127.5 for int8).
"""
import json
import pathlib

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ["ct_w8a8_int8", "ct_fp8_dynamic", "ct_fp8_static", "fp8_tensor"]
IDS = [(i * 7 + 3) % 64 for i in range(24)]
ROWS = [0, 5, 11, 23]


def quantized_input(module, input_scale):
    kind = "float" if module.codes.dtype == torch.float8_e4m3fn else "int"
    args = QuantizationArgs(num_bits=8, type=kind, symmetric=True, strategy="tensor" if input_scale else "token",
                            dynamic=not input_scale)
    most = 448 if kind == "float" else 127

    def hook(_, inputs):
        x = inputs[0]
        scale = torch.tensor([input_scale]) if input_scale else x.abs().amax(-1, keepdim=True) / most
        return (fake_quantize(x, scale, torch.zeros_like(scale), args),)
    return hook


@torch.no_grad()
def make(name):
    folder = HERE / "quant" / name
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**{**config, "torch_dtype": "float32"})).float().eval()
    tensors = load_file(folder / "model.safetensors")
    state = {k: v.float() for k, v in tensors.items() if k.endswith("norm.weight") or "embed" in k}
    linears = [k[:-len(".weight_scale")] for k in tensors if k.endswith(".weight_scale")]
    for linear in linears:
        state[f"{linear}.weight"] = tensors[f"{linear}.weight"].float() * tensors[f"{linear}.weight_scale"].float()
    missing, surplus = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not surplus and len(linears) == 7
    model.tie_weights()
    for linear in linears:
        module = model.get_submodule(linear)
        module.codes = tensors[f"{linear}.weight"]
        static = tensors.get(f"{linear}.input_scale")
        module.register_forward_pre_hook(quantized_input(module, static.item() if static is not None else None))
    logits = model(torch.tensor([IDS])).logits[0]
    rows = {str(r): [float(f"{x:.7g}") for x in logits[r].tolist()] for r in ROWS}
    (folder / "logits.json").write_text(json.dumps({"ids": IDS, "logits": rows}) + "\n")
    print(name, "largest", logits.abs().max().item())


if __name__ == "__main__":
    for each in NAMES:
        make(each)
