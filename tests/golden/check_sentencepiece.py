#!/usr/bin/env python3
"""Compares tokenizer.model with transformers' slow LlamaTokenizer, legacy and not, with and without
added tokens of every kind.

    pip install transformers sentencepiece protobuf
    make build/tests/bench/tokenize_file
    python3 tests/golden/check_sentencepiece.py [--count 300] [--driver PROGRAM] [MODEL ...]

MODEL is a tokenizer.model; without one, four are trained on the spot (BPE and Unigram, with byte
fallback and without).
"""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "fixtures"))

from check_tokenizers import Driver  # noqa: E402
from make_tokenizers import CORPUS  # noqa: E402

ATOMS = ["<s>", "</s>", "<unk>", "<|im|>", "<add>", "<L>", "<R>", "word", "<LR>", "<new>", "<|im|>x",
         "<|im", "▁", " ", "  ", "\n", "\t", "é", "日本", "🐙", "👩‍👩‍👧", "\u0301", "\x00", "\x01", "\u3000",
         "\xa0", "a", "hello", "world", ".", "swords", "<", ">", "\u2028", "⁇", "the quick brown",
         "don't", "\ufffd", "ﬁ", "①"]


def token(content, special=True, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False,
            "single_word": False, "special": special} | flags


def variants(size):
    """Configurations for a model of `size` pieces."""
    base = {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>")}
    more = base | {str(size + i): t for i, t in enumerate([
        token("<|im|>"), token("<add>", False), token("<L>", False, lstrip=True),
        token("<R>", False, rstrip=True), token("word", False, single_word=True),
        token("<LR>", lstrip=True, rstrip=True), token("<|im|>x", False)])}
    yield "legacy", {"legacy": True, "added_tokens_decoder": base}
    yield "plain", {"legacy": False, "added_tokens_decoder": base}
    yield "legacy-added", {"legacy": True, "added_tokens_decoder": more,
                           "additional_special_tokens": ["<|im|>"]}
    yield "added", {"legacy": False, "added_tokens_decoder": more,
                    "additional_special_tokens": ["<|im|>", "<new>"]}
    yield "no-prefix", {"legacy": False, "add_prefix_space": False, "add_eos_token": True,
                        "added_tokens_decoder": more}
    yield "legacy-no-prefix", {"legacy": True, "add_prefix_space": False, "add_bos_token": False,
                               "added_tokens_decoder": more}


def check(tokenizer, driver, count, name):
    rnd = random.Random(5)
    size, wrong = len(tokenizer), 0
    for _ in range(count):
        text = "".join(rnd.choice(ATOMS) for _ in range(rnd.randint(0, 9)))
        special = rnd.random() < 0.5
        ids = tokenizer(text, add_special_tokens=special)["input_ids"]
        row = [rnd.choice([rnd.randrange(size), rnd.choice(ids or [5]), rnd.randrange(3),
                           rnd.randrange(3, min(259, size))]) for _ in range(rnd.randint(1, 12))]
        requests = [{"text": text, "add_special_tokens": special}]
        expected = [{"ids": ids}]
        for skip in (True, False):
            decoded = {"text": tokenizer.decode(row, skip_special_tokens=skip)}
            requests.append({"ids": row, "skip_special_tokens": skip})
            expected.append(decoded)
            if skip:
                requests.append({"ids": row, "skip_special_tokens": skip, "prompt": 0})
                expected.append(decoded)
        for request, right, got in zip(requests, expected, driver.ask(requests)):
            if right != got:
                wrong += 1
                if wrong < 6:
                    print(f"{name}: {request!r}\n  expected {right!r}\n  got      {got!r}")
    print(f"{name}: {count} strings, {wrong} differences")
    return wrong == 0


def train(scratch):
    import sentencepiece
    for kind in ("bpe", "unigram"):
        for fallback in (True, False):
            prefix = os.path.join(scratch, f"{kind}-{'bytes' if fallback else 'unk'}")
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(CORPUS), model_prefix=prefix, model_type=kind,
                vocab_size=430 if fallback else 170, hard_vocab_limit=False,
                byte_fallback=fallback, normalization_rule_name="nmt_nfkc", minloglevel=2)
            yield prefix + ".model"


def main():
    from transformers import LlamaTokenizer
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--driver", default="build/tests/bench/tokenize_file")
    parser.add_argument("models", nargs="*")
    args = parser.parse_args()
    ok = True
    with tempfile.TemporaryDirectory() as scratch:
        for model in args.models or list(train(scratch)):
            import sentencepiece
            size = sentencepiece.SentencePieceProcessor(model).get_piece_size()
            for name, config in variants(size):
                directory = os.path.join(scratch, name)
                os.makedirs(directory, exist_ok=True)
                shutil.copy(model, os.path.join(directory, "tokenizer.model"))
                config |= {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>",
                           "eos_token": "</s>", "unk_token": "<unk>"}
                with open(os.path.join(directory, "tokenizer_config.json"), "w",
                          encoding="utf-8") as f:
                    json.dump(config, f)
                ok &= check(LlamaTokenizer.from_pretrained(directory),
                            Driver(args.driver, directory), args.count,
                            f"{os.path.basename(model)} {name}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
