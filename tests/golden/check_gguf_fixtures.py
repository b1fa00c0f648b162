#!/usr/bin/env python3
"""Compares the GGUF files of tests/fixtures/make_gguf.py with those of llama.cpp's own conversion.

    pip install gguf torch transformers
    python3 tests/golden/check_gguf_fixtures.py LLAMA_CPP [NAME ...]

LLAMA_CPP is a directory with llama.cpp's conversion/ package (convert_hf_to_gguf.py's). For each golden
model that a GGUF can say (tests/golden/arch/), both write it in float32: every key about the model, and
every tensor, must be the same. Exits with 1 where one is not.
"""
import json
import math
import pathlib
import sys
import tempfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
import make_gguf  # noqa: E402
import make_tiny  # noqa: E402

NAMES = ["qwen3", "phi3", "gguf_llama", "gguf_mixtral", "gguf_qwen2", "gguf_qwen2_moe",
         "gguf_qwen3_moe", "gguf_gemma2", "gguf_gemma3"]
# Which the conversion takes from files that the tiny models have not.
IGNORED = ("general.", "tokenizer.", "GGUF.")


def write_checkpoint(golden, target):
    weights = {}
    for name, (shape, offset, exponent) in golden["tensors"].items():
        scale = 2.0 ** (exponent - 23)
        values = [offset + k * scale for k in make_tiny.random_integers(name, 1, math.prod(shape))]
        weights[name] = ("F32", shape, make_tiny.ENCODE["float32"][1](values))
    make_tiny.write_safetensors(target / "model.safetensors", weights)
    (target / "config.json").write_text(json.dumps(golden["configs"][0]))
    # Gemma's conversion cuts the embedding to the tokenizer's size.
    vocab = {f"<{i}>": i for i in range(golden["configs"][0]["vocab_size"])}
    (target / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab},
                                                       "added_tokens": []}))


def convert(source, target):
    from conversion import ModelBase, get_model_class
    hparams = ModelBase.load_hparams(source, False)
    cls = get_model_class(hparams["architectures"][0])
    cls.set_vocab = lambda self: None
    model = cls(source, gguf.LlamaFileType.ALL_F32, target, eager=True)
    model.write()


def fields(path):
    reader = gguf.GGUFReader(path)
    keys = {k: v.contents() for k, v in reader.fields.items() if not k.startswith(IGNORED)}
    return keys, {t.name: t for t in reader.tensors}


def same(a, b):
    return np.isclose(a, b, rtol=1e-6) if isinstance(a, float) else a == b


def compare(name, ours, theirs):
    problems = []
    (our_keys, our_tensors), (their_keys, their_tensors) = fields(ours), fields(theirs)
    for key in sorted(our_keys.keys() | their_keys.keys()):
        if key not in our_keys or key not in their_keys or not same(our_keys[key], their_keys[key]):
            problems.append(f"{key}: {our_keys.get(key)}, llama.cpp has {their_keys.get(key)}")
    for key in sorted(our_tensors.keys() | their_tensors.keys()):
        if key not in our_tensors or key not in their_tensors:
            problems.append(f"{key}: only one has it")
        elif not np.array_equal(our_tensors[key].data, their_tensors[key].data) and not (
                key.startswith("rope_f")
                and np.allclose(our_tensors[key].data, their_tensors[key].data, rtol=1e-5)):
            problems.append(f"{key}: values differ")
    print(f"{name}: {len(our_keys)} keys, {len(our_tensors)} tensors, {len(problems)} differences")
    for problem in problems:
        print("   ", problem)
    return not problems


def main():
    sys.path.insert(0, sys.argv[1])
    good = True
    for name in sys.argv[2:] or NAMES:
        golden = json.loads((ROOT / "tests/golden/arch" / f"{name}.json").read_text())
        with tempfile.TemporaryDirectory() as source:
            source = pathlib.Path(source)
            write_checkpoint(golden, source)
            make_gguf.make(source, source / "ours.gguf")
            convert(source, source / "theirs.gguf")
            good &= compare(name, source / "ours.gguf", source / "theirs.gguf")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
