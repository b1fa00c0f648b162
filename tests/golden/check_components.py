#!/usr/bin/env python3
"""Compares every component of tokenizer.json with the tokenizers library, one small file each.

    pip install tokenizers sentencepiece
    make build/tests/bench/tokenize_file
    python3 tests/golden/check_components.py [--count 300] [--driver PROGRAM] [PART OF A NAME ...]
"""
import argparse
import base64
import io
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "fixtures"))

from check_tokenizers import check  # noqa: E402
from make_tokenizers import CORPUS, small_tokenizers  # noqa: E402


def charsmap():
    """The precompiled nmt_nfkc charsmap, out of a SentencePiece model trained on the spot."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, vocab_size=150, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", minloglevel=2)
    model = pb.ModelProto.FromString(out.getvalue())
    return base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()


NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "StripAccents"},
    {"type": "Replace", "pattern": {"String": "ab"}, "content": "x"},
    {"type": "Replace", "pattern": {"Regex": r"\s{2,}|\p{Lu}+"}, "content": "_"},
    {"type": "Replace", "pattern": {"Regex": r"x*"}, "content": "-"},
    {"type": "Prepend", "prepend": "▁"}, {"type": "Nmt"}, {"type": "ByteLevel"},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
     "strip_accents": None, "lowercase": True},
    {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True,
     "strip_accents": True, "lowercase": False},
    {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"},
                                         {"type": "Lowercase"}]},
]

PATTERNS = [
    r"\s+", r"\w+|[^\w\s]+", r"[\p{L}\p{M}]+", r"\d{1,3}(?=(?:\d{3})*\b)", r"[^(\s|[.,!?…。，、।۔،])]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}++", r"\s+$", r"^.", r"(?m).", r"[[:alpha:]]+", r"[[:punct:]]",
    r"[a-z&&[^aeiou]]+", r"\p{Han}+", r"[^\r\n\p{L}\p{N}]?+\p{L}+", r"\p{N}{1,3}+", r"a{,2}", r"\h+", r"\S",
    r"[\S&&\D]", r"\bthe\b", r"x??", r"(?<=a)b|(?<!\s)c", r"[一-龥ࠀ-一가-퟿]+", r"\W", r"[\W_]+", r"\p{^Lu}\p{Ll}",
    r"(a|b)\1", r"(?>a+)b?", r"[\x{4e00}-\x{9fff}\u3040-\u30ff]", r"\s*[\r\n]+|\s+(?!\S)|\s+", r"\p{Latin}+",
    r"[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶ-ͷͻ-ͽͿΆΈ-ΊΌΎ-Ρ]+", r"[!-/:-~！-／：-～‘-‟　-。]+", r"\A\w", r"\w\z", r"[]a]+",
    r"\p{P}", r"\p{S}+", r"\p{Alpha}+", r"\p{Z}", r"[\s\p{P}]+", "", r"a(?i)b|c",
]

BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

PRE_TOKENIZERS = [
    *({"type": "Split", "pattern": {"Regex": p}, "behavior": BEHAVIORS[i % 5], "invert": i % 3 == 0}
      for i, p in enumerate(PATTERNS)),
    *({"type": "Split", "pattern": {"Regex": r"[aeiou ]"}, "behavior": b, "invert": i}
      for b in BEHAVIORS for i in (False, True)),
    *({"type": "Split", "pattern": {"String": " "}, "behavior": b, "invert": i}
      for b in BEHAVIORS for i in (False, True)),
    {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
    *({"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": r}
      for a in (False, True) for r in (False, True)),
    {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False},
    {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    *({"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": s}
      for p in ("always", "first", "never") for s in (False, True)),
    {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
    *({"type": "Punctuation", "behavior": b} for b in BEHAVIORS),
    {"type": "BertPreTokenizer"}, {"type": "CharDelimiterSplit", "delimiter": "e"},
    {"type": "FixedLength", "length": 3},
    {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]},
    {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]},
    {"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        {"type": "Split", "pattern": {"Regex": "Ġ"}, "behavior": "MergedWithNext",
         "invert": False}]},
]

DECODERS = [
    None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": ""},
    {"type": "Strip", "content": " ", "start": 1, "stop": 1},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": False}, {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Replace", "pattern": {"String": "ab"}, "content": "<>"},
        {"type": "Strip", "content": "e", "start": 2, "stop": 3}]},
]

POST_PROCESSORS = [
    {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
    {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True,
     "add_prefix_space": False},
    {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                            "</s>": {"id": "</s>", "ids": [2, 1], "tokens": ["</s>", "<s>"]}}}]},
]


def added(content, **flags):
    return {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": False} | flags


ADDED = [
    [added("<a>", lstrip=True), added("<b>", rstrip=True), added("<c>", lstrip=True, rstrip=True),
     added("the", single_word=True), added(" ", normalized=True), added("\n\n", rstrip=True)],
    [added("HELLO", normalized=True), added("é", normalized=True, single_word=True),
     added("World", special=True, normalized=True), added("Wor", special=True)],
    [added("ab", special=True), added("abc"), added("abcd", single_word=True), added("b"),
     added("<|x|>", special=True, lstrip=True, rstrip=True, single_word=True)],
]


def variants():
    """(name, tokenizer.json as a dict) for every component."""
    base = small_tokenizers()
    yield from base.items()
    for i, n in enumerate(NORMALIZERS + [{"type": "Precompiled",
                                          "precompiled_charsmap": charsmap()}]):
        for model in ("bpe_chars", "unigram"):
            yield f"normalizer-{i}-{model}", base[model] | {"normalizer": n}
    for i, p in enumerate(PRE_TOKENIZERS):
        yield f"pre-{i}", base["bpe_bytes"] | {"pre_tokenizer": p}
        yield f"pre-{i}-chars", base["bpe_chars"] | {"pre_tokenizer": p}
    for i, d in enumerate(DECODERS):
        for model in ("bpe_chars", "bpe_bytes", "wordpiece", "bpe_suffix"):
            yield f"decoder-{i}-{model}", base[model] | {"decoder": d}
    for i, p in enumerate(POST_PROCESSORS):
        yield f"post-{i}", base["bpe_chars"] | {"post_processor": p}
    for i, a in enumerate(ADDED):
        for n in (None, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"},
                  {"type": "Strip", "strip_left": True, "strip_right": True}):
            name = f"added-{i}-{n['type'] if n else 'plain'}"
            spec = base["bpe_chars"]
            if i == 0 and n and n["type"] == "Strip":
                continue  # " " normalizes to nothing, and the library cuts everywhere
            yield name, spec | {"normalizer": n, "added_tokens": spec["added_tokens"] + a}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--driver", default="build/tests/bench/tokenize_file")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, spec in variants():
            if args.names and not any(n in name for n in args.names):
                continue
            directory = os.path.join(scratch, name)
            os.mkdir(directory)
            with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
                json.dump(spec, f, ensure_ascii=False)
            if not check(directory, args.driver, args.count, 7):
                failed.append(name)
    print("differ: " + " ".join(failed) if failed else "no differences")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
