#!/usr/bin/env python3
"""Compares what the daemon makes of a GGUF file with llama.cpp on the same file.

    pip install llama-cpp-python numpy
    make && python3 tests/golden/check_gguf.py MODEL.gguf [--text FILE] [--threads N] [--write]

Ten chat prompts: the prompt's text and its ids must be the same, and so must the first 16 tokens of the
greedy answer; where one differs, it must be a near tie, the two best logits of llama.cpp less than
0.05 apart. Then the perplexity of a fixed text, in windows of 1024 tokens, each predicted from those
before it in its window: within 0.5 %. Exits with 1 where something is off. With --write, what llama.cpp
gave goes to tests/golden/smollm2_gguf.json, for tests/e2e/test_smollm2.py.
"""
import argparse
import hashlib
import json
import math
import pathlib
import sys

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from conftest import Server  # noqa: E402

PROMPTS = [
    "What is the capital of France?", "Write a short poem about the sea.",
    "Explain why the sky is blue to a child.", "List three uses of a paper clip.",
    "Translate 'good morning' into Spanish and German.", "What is 17 + 25?",
    "Give me a recipe for pancakes.", "Who wrote Romeo and Juliet?",
    "Write a Python function that reverses a string.", "How do I keep tomato plants healthy?",
]
NUM_EQUAL = 16
NEAR_TIE = 0.05
WINDOW = 1024
PERPLEXITY_BOUND = 0.005


class Reference:
    def __init__(self, path, threads):
        self.llm = llama_cpp.Llama(path, n_ctx=2048, n_batch=512, n_threads=threads,
                                   n_threads_batch=threads, logits_all=True, verbose=False)
        keys = self.llm.metadata
        self.formatter = Jinja2ChatFormatter(
            keys["tokenizer.chat_template"], eos_token="<|im_end|>", bos_token="<|im_start|>",
            add_generation_prompt=True)

    def prompt(self, messages):
        return self.formatter(messages=messages).prompt

    def tokenize(self, text, special=True):
        return self.llm.tokenize(text.encode(), add_bos=False, special=special)

    def logits(self, ids):
        """[len(ids), vocabulary]"""
        self.llm.reset()
        self.llm.eval(ids)
        return self.llm.scores[:len(ids)].astype(np.float64)


    def greedy(self, ids, count):
        """Ids, and for each the second best and how far behind it is."""
        self.llm.reset()
        out, pending = [], ids
        for _ in range(count):
            self.llm.eval(pending)
            row = self.llm.scores[self.llm.n_tokens - 1]
            second, best = np.argsort(row)[-2:]
            out.append([int(best), int(second), round(float(row[best] - row[second]), 4)])
            pending = [int(best)]
        return out


def greedy(server, ids, count):
    body = server.complete(ids, max_tokens=count, ignore_eos=True, return_token_ids=True)
    return body["choices"][0]["token_ids"]


def check_prompt(server, reference, text):
    """Compares one chat; returns (tokens that were equal, the gap where one differed, or None)."""
    messages = [{"role": "user", "content": text}]
    _, body = server.post("/apply-template", {"messages": messages})
    expected = reference.prompt(messages)
    assert body["prompt"] == expected, (body["prompt"], expected)
    _, body = server.post("/tokenize", {"prompt": expected, "add_special_tokens": False})
    ids = reference.tokenize(expected)
    assert body["tokens"] == ids, (body["tokens"], ids)
    ours = greedy(server, ids, NUM_EQUAL)
    # One pass over our own answer tells whether each token was the reference's choice too.
    rows = reference.logits(ids + ours)[len(ids) - 1:-1]
    for i, (row, token) in enumerate(zip(rows, ours)):
        best = int(row.argmax())
        if best != token:
            return i, row[best] - row[token], row[best] - np.partition(row, -2)[-2]
    return len(ours), None, None


def check_answers(server, reference):
    bad = 0
    for text in PROMPTS:
        equal, gap, top_two = check_prompt(server, reference, text)
        tie = gap is not None and gap < NEAR_TIE and top_two < NEAR_TIE
        bad += gap is not None and not tie
        print(f"{equal:3} of {NUM_EQUAL} tokens equal"
              + (f"; then the two best are {top_two:.4f} apart" if gap is not None else "")
              + f": {text}")
    return bad == 0


def our_nll(server, ids):
    body = server.complete(ids, max_tokens=1, prompt_logprobs=0)
    rows = body["choices"][0]["prompt_logprobs"]
    return -sum(row[str(token)]["logprob"] for row, token in zip(rows[1:], ids[1:]))


def reference_nll(reference, ids):
    rows = reference.logits(ids)[:-1]
    top = rows.max(axis=1)
    norm = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return float((norm - rows[np.arange(len(rows)), ids[1:]]).sum())


def check_perplexity(server, reference, text):
    ids = reference.tokenize(text)
    _, body = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    assert body["tokens"] == ids, "the text's ids differ"
    windows = [ids[i:i + WINDOW] for i in range(0, len(ids), WINDOW)]
    windows = [w for w in windows if len(w) > 1]
    count = sum(len(w) - 1 for w in windows)
    ours = math.exp(sum(our_nll(server, w) for w in windows) / count)
    theirs = math.exp(sum(reference_nll(reference, w) for w in windows) / count)
    print(f"perplexity of {len(text.encode())} bytes, {len(ids)} tokens: {ours:.4f}, llama.cpp "
          f"{theirs:.4f}, {100 * (ours / theirs - 1):+.3f} %")
    return abs(ours / theirs - 1) <= PERPLEXITY_BOUND


def write_golden(path, reference, text):
    prompts = []
    for prompt in PROMPTS:
        ids = reference.tokenize(reference.prompt([{"role": "user", "content": prompt}]))
        prompts.append({"content": prompt, "ids": ids, "greedy": reference.greedy(ids, NUM_EQUAL)})
    window = reference.tokenize(text)[:WINDOW]
    golden = {"command": "python3 tests/golden/check_gguf.py MODEL.gguf --write",
              "llama_cpp": llama_cpp.__version__, "sha256": hashlib.sha256(
                  pathlib.Path(path).read_bytes()).hexdigest(),
              "prompts": prompts, "window": len(window), "nll": reference_nll(reference, window)}
    target = ROOT / "tests" / "golden" / "smollm2_gguf.json"
    target.write_text(json.dumps(golden, separators=(",", ":")).replace("},{", "},\n{") + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("--text", default=str(ROOT / "tests" / "golden" / "text.txt"))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--write", action="store_true")
    args = p.parse_args()
    server = Server(args.model, "--num-threads", str(args.threads), "--max-model-len", "2048",
                    "--kv-cache-memory-bytes", "256M")
    reference = Reference(args.model, args.threads)
    answers = check_answers(server, reference)
    text = pathlib.Path(args.text).read_text()
    perplexity = check_perplexity(server, reference, text)
    server.stop()
    if args.write:
        write_golden(args.model, reference, text)
    print("as llama.cpp" if answers and perplexity else "NOT as llama.cpp")
    return 0 if answers and perplexity else 1


if __name__ == "__main__":
    sys.exit(main())
