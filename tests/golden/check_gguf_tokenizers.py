#!/usr/bin/env python3
"""Compares tokenizers read from GGUF metadata with llama.cpp and with the tokenizers library.

    pip install gguf llama-cpp-python transformers sentencepiece
    make build/tests/bench/tokenize_file
    python3 tests/golden/check_gguf_tokenizers.py [--count 2000] SOURCE ...

SOURCE is one of
    FILE.gguf               a file as it is; compared with llama.cpp, and with what transformers
                            makes of the same file
    PRE=DIR                 a vocabulary-only GGUF file is written from DIR/tokenizer.json, with
                            tokenizer.ggml.pre PRE; compared with llama.cpp and with that json
    FILE.model              the same from a SentencePiece model; compared with llama.cpp
Ids are compared with and without special tokens around the text, with special tokens parsed; text
decoded from ids is compared with the library's. Exits with 1 where anything differs.
"""
import argparse
import json
import os
import sys
import tempfile

import gguf
from tokenizers import Tokenizer, pre_tokenizers

from check_tokenizers import Driver, Strings, attempt


def read_vocab(path):
    """The keys of a GGUF file as tests/engine/text/gguf_fixture.h takes them."""
    fields = gguf.GGUFReader(path).fields
    names = {"model": "tokenizer.ggml.model", "pre": "tokenizer.ggml.pre", "name": "general.name",
             "tokens": "tokenizer.ggml.tokens", "scores": "tokenizer.ggml.scores",
             "types": "tokenizer.ggml.token_type", "merges": "tokenizer.ggml.merges",
             "chat_template": "tokenizer.chat_template"}
    names |= {kind + "_id": f"tokenizer.ggml.{long}_token_id" for kind, long in
              (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"),
               ("eot", "eot"), ("eom", "eom"))}
    names |= {flag: f"tokenizer.ggml.{flag}" for flag in ("add_space_prefix",)}
    names |= {flag: f"tokenizer.ggml.{flag}_token" for flag in ("add_bos", "add_eos")}
    return {key: fields[name].contents() for key, name in names.items() if name in fields}


def writer_for(path, model, tokens, scores, types):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(0)
    w.add_context_length(4096)
    w.add_embedding_length(64)
    w.add_feed_forward_length(64)
    w.add_head_count(1)
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores:
        w.add_token_scores(scores)
    return w


def close_writer(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_from_json(directory, pre, path):
    with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as f:
        root = json.load(f)
    vocab = dict(root["model"]["vocab"])
    added = {t["id"]: t for t in root["added_tokens"]}
    vocab |= {t["content"]: t["id"] for t in root["added_tokens"]}
    by_id = {i: text for text, i in vocab.items()}
    tokens, types = [], []
    for i in range(max(by_id) + 1):
        tokens.append(by_id.get(i, f"[PAD{i}]"))
        types.append(3 if i in added and added[i]["special"] else 4 if i in added
                     else 1 if i in by_id else 5)
    merges = [m if isinstance(m, str) else " ".join(m) for m in root["model"]["merges"]]
    w = writer_for(path, "gpt2", tokens, None, types)
    w.add_tokenizer_pre(pre)
    w.add_token_merges(merges)
    special = [t["id"] for t in root["added_tokens"] if t["special"]] or [0]
    w.add_bos_token_id(special[0])
    w.add_eos_token_id(special[-1])
    w.add_add_bos_token(False)
    close_writer(w)


def write_from_sentencepiece(model, path):
    from sentencepiece import SentencePieceProcessor
    sp = SentencePieceProcessor(model_file=model)
    tokens, scores, types = [], [], []
    for i in range(sp.vocab_size()):
        tokens.append(sp.id_to_piece(i))
        scores.append(sp.get_score(i))
        types.append(2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i)
                     else 6 if sp.is_byte(i) else 1)
    w = writer_for(path, "llama", tokens, scores, types)
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    close_writer(w)


def llama(path):
    try:
        import llama_cpp
    except ImportError:
        print("llama-cpp-python is not installed: not compared with it")
        return None
    return llama_cpp.Llama(path, vocab_only=True, verbose=False)


def reference(source, path, pre):
    """The tokenizers library's view, or None where there is none to compare with."""
    if source.endswith(".gguf"):
        from transformers import AutoTokenizer
        t = AutoTokenizer.from_pretrained(os.path.dirname(path) or ".",
                                          gguf_file=os.path.basename(path)).backend_tokenizer
        if pre == "smollm":
            # transformers cuts as GPT-2 does whatever the file's `pre`; SmolLM2's tokenizer.json
            # has Digits in front of that.
            t.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True),
                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif "=" in source:
        t = Tokenizer.from_file(os.path.join(source.split("=", 1)[1], "tokenizer.json"))
    else:
        return None
    t.no_truncation()
    t.no_padding()
    return t


def prepare(source, directory):
    path = os.path.join(directory, "vocab.gguf")
    if source.endswith(".gguf"):
        return source
    if "=" in source:
        pre, folder = source.split("=", 1)
        write_from_json(folder, pre, path)
    else:
        write_from_sentencepiece(source, path)
    return path


class Report:
    def __init__(self, source):
        self.source, self.counts = source, {}

    def compare(self, kind, what, expected, got):
        right, wrong = self.counts.get(kind, (0, 0))
        self.counts[kind] = (right + (expected == got), wrong + (expected != got))
        if expected != got and wrong < 5:
            print(f"{self.source}: {kind} of {what!r}\n  expected {expected!r}\n  got      {got!r}")

    def print(self):
        for kind, (right, wrong) in sorted(self.counts.items()):
            print(f"{self.source}: {kind}: {right + wrong} compared, {wrong} differ")
        return all(wrong == 0 for _, wrong in self.counts.values())


def check(source, driver, count, seed):
    with tempfile.TemporaryDirectory() as directory:
        path = prepare(source, directory)
        dump = os.path.join(directory, "vocab.json")
        vocab = read_vocab(path)
        with open(dump, "w", encoding="utf-8") as f:
            json.dump(vocab, f)
        cpp, library = llama(path), reference(source, path, vocab.get("pre"))
        answers = Driver(driver, dump)
        special = [t for t, kind in zip(vocab["tokens"], vocab["types"]) if kind in (3, 4)]
        strings = Strings(library, seed, special, vocab["tokens"])
        report = Report(source)
        for done in range(0, count, 500):
            batch = [strings.next() for _ in range(min(500, count - done))]
            batch = [text for text in batch if "\0" not in text]  # a C string's end to llama.cpp
            asked = [{"text": text, "add_special_tokens": i % 2 == 0}
                     for i, text in enumerate(batch)]
            got = answers.ask(asked)
            decode = []
            for request, reply in zip(asked, got):
                text, around = request["text"], request["add_special_tokens"]
                if cpp:
                    report.compare("ids (llama.cpp)", text,
                                   cpp.tokenize(text.encode(), add_bos=around, special=True),
                                   reply["ids"])
                if library:
                    ids = attempt(lambda: library.encode(text, add_special_tokens=around).ids)
                    if ids is not None and not around:
                        report.compare("ids (tokenizers)", text, ids, reply["ids"])
                decode.append({"ids": reply["ids"], "skip_special_tokens": not around})
            for request, reply in zip(decode, answers.ask(decode)):
                text = library and attempt(lambda: library.decode(
                    request["ids"], skip_special_tokens=request["skip_special_tokens"]))
                if text is not None:
                    report.compare("text (tokenizers)", request["ids"], text, reply["text"])
        return report.print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--driver", default="build/tests/bench/tokenize_file")
    parser.add_argument("sources", nargs="+")
    args = parser.parse_args()
    ok = True
    for source in args.sources:
        ok &= check(source, args.driver, args.count, args.seed)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
