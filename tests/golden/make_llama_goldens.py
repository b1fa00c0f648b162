#!/usr/bin/env python3
"""Makes tests/golden/llama_tiny.json: what transformers computes for the presets of make_tiny.py.

    pip install -r tests/golden/requirements.txt
    python tests/golden/make_llama_goldens.py

Everything runs in float64 but the rotary angles, which transformers keeps in float32. Per prompt: its
ids; the logits at every position, of every eighth id; their logsumexp, minimum and maximum over all
ids, per position; and 32 greedy ids. `min_gap` is the smallest distance between the best and the
second logit over those steps: errors below half of it cannot change the ids.
"""
import json
import pathlib
import sys
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fixtures"))
import make_tiny  # noqa: E402

PRESETS = ["default", "untied", "linear", "llama3", "biases", "head_dim"]
# Every spelling of the rope settings gives the same model: the first is recorded, all are compared.
ROPE_STYLES = ["rope_scaling", "rope_scaling_type", "rope_parameters"]
PROMPT_LENGTHS = [7, 40]  # within one KV block of 16, and over three
NUM_GREEDY = 32
COLUMN_STEP = 8


def rounded(tensor):
    return [round(x, 6) for x in tensor.tolist()]


def golden_prompt(model, ids):
    logits = model(torch.tensor([ids])).logits[0]
    greedy, gaps, row = [], [], logits[-1]
    while len(greedy) < NUM_GREEDY:
        top = row.topk(2)
        greedy.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
        row = model(torch.tensor([ids + greedy])).logits[0, -1]
    return {"ids": ids, "greedy_ids": greedy, "min_gap": round(min(gaps), 6),
            "logsumexp": rounded(logits.logsumexp(-1)), "min": rounded(logits.min(-1).values),
            "max": rounded(logits.max(-1).values),
            "logits": [rounded(r) for r in logits[:, ::COLUMN_STEP]]}


def load(preset, style):
    with tempfile.TemporaryDirectory() as target:
        make_tiny.make(target, preset=preset, rope_style=style)
        return transformers.LlamaForCausalLM.from_pretrained(
            target, dtype=torch.float64, attn_implementation="eager").eval()


@torch.no_grad()
def golden_case(preset):
    models = [load(preset, style) for style in ROPE_STYLES]
    vocab = models[0].config.vocab_size
    prompts = []
    for i, length in enumerate(PROMPT_LENGTHS):
        random = make_tiny.random_integers(f"{preset} prompt {i}", 0, length - 1)
        ids = [1] + [3 + k % (vocab - 3) for k in random]
        prompts.append(golden_prompt(models[0], ids))
        first, *others = [m(torch.tensor([ids])).logits for m in models]
        assert all(torch.equal(first, other) for other in others)
    print(f"{preset}: smallest gap {min(p['min_gap'] for p in prompts)}, "
          f"{[len(set(p['greedy_ids'])) for p in prompts]} different ids")
    return prompts


def main():
    cases = {preset: golden_case(preset) for preset in PRESETS}
    golden = {"command": "python tests/golden/make_llama_goldens.py",
              "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
              "column_step": COLUMN_STEP, "cases": cases}
    text = json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[").replace('},"', '},\n"')
    (HERE / "llama_tiny.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
