#!/usr/bin/env python3
"""Makes tests/golden/parallel/*.json: a configuration of each architecture, with the shapes of its tensors,
whose sizes can be divided among 1, 2 and 4 ranks. KV heads are fewer than 4 where the family allows that.

    pip install -r tests/golden/requirements.txt
    python tests/golden/make_parallel_shapes.py [NAME ...]

The cases are those of make_arch_goldens.py with other sizes. There are no logits in these files: what one rank
computes is checked against transformers by the goldens, and several ranks are checked against one.
"""
import json
import sys

import make_arch_goldens as goldens

# Divisible by 4; the shares of the vocabulary are not equal, and those of an MLP are odd.
SIZES = dict(hidden_size=64, num_attention_heads=8, num_key_value_heads=2, intermediate_size=44,
             moe_intermediate_size=20, shared_expert_intermediate_size=12)
GPT2_SIZES = dict(n_embd=64, n_head=8)


def parallel_case(name):
    prefix, changes, _, _ = goldens.CASES[name]
    if prefix == "GPT2":
        sizes = {**changes, **GPT2_SIZES}
    else:
        known = {key: size for key, size in SIZES.items() if key in goldens.SIZES or key in changes}
        sizes = {**changes, **known}
        if "kv_lora_rank" in changes:  # as many KV heads as there are heads, by name
            sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    config, text = goldens.make_config(prefix, sizes)
    return {"command": "python tests/golden/make_parallel_shapes.py " + name, "configs": [text],
            "tensors": goldens.tensor_table(prefix, config)}


def main():
    target = goldens.HERE / "parallel"
    target.mkdir(exist_ok=True)
    for name in sys.argv[1:] or goldens.CASES:
        text = json.dumps(parallel_case(name), separators=(",", ":"))
        for at in ("],[", '},"', '],"'):
            text = text.replace(at, at[:2] + "\n" + at[2:])
        (target / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
