#!/usr/bin/env python3
"""Compares what the daemon makes of a GGUF file with llama.cpp on the same file.

    pip install llama-cpp-python gguf numpy
    make && python3 tests/golden/check_gguf.py MODEL.gguf [--text FILE] [--threads N] [--write]

Ten chat prompts: the prompt's text and its ids must be the same. Then the first 16 tokens of the greedy
answers:
  - exactly (the plain kernels, which do not round x) and as served (the fast ones, which round x to 16
    bits), both against llama.cpp on the same weights written out as float32. Every token must be the
    same, or a near tie: the two best logits less than 0.05 apart.
  - as served against llama.cpp on the file itself, which rounds x to 8 bits and strays from the exact
    log-probabilities by tenths. Where the answers differ, how far apart its two best logits are is printed
    beside how far it strays at that token and at most; the first must be less than the last.
Then the perplexity of a fixed text, in windows of 1024 tokens, each predicted from those before it in
its window: within 0.5 %. Exits with 1 where something is off. With --write, what llama.cpp gave goes to
tests/golden/smollm2_gguf.json, for tests/e2e/test_smollm2.py.
"""
import argparse
import hashlib
import json
import math
import pathlib
import struct
import sys
import tempfile

import gguf
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
ALIGNMENT = 32
WINDOW = 1024
PERPLEXITY_BOUND = 0.005


def write_float32(source, target):
    """The same keys and tensors, these dequantized."""
    reader = gguf.GGUFReader(source)
    keys_end = reader.tensors[0].field.offset
    info, offset = b"", 0
    for t in reader.tensors:
        name = t.name.encode()
        info += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(t.shape))
        info += struct.pack(f"<{len(t.shape)}Q", *map(int, t.shape)) + struct.pack("<IQ", 0, offset)
        offset += -(-int(np.prod(t.shape)) * 4 // ALIGNMENT) * ALIGNMENT
    head = bytes(reader.data[:keys_end]) + info
    with open(target, "wb") as out:
        out.write(head + bytes(-len(head) % ALIGNMENT))
        for t in reader.tensors:
            data = gguf.dequantize(t.data, t.tensor_type).astype(np.float32).tobytes()
            out.write(data + bytes(-len(data) % ALIGNMENT))


class Reference:
    def __init__(self, path, threads):
        self.llm = llama_cpp.Llama(path, n_ctx=2048, n_batch=512, n_threads=threads,
                                   n_threads_batch=threads, logits_all=True, verbose=False,
                                   type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
                                   flash_attn=False)
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


def prompt_ids(server, reference, text):
    """Of one chat; both must render and tokenize it alike."""
    messages = [{"role": "user", "content": text}]
    _, body = server.post("/apply-template", {"messages": messages})
    expected = reference.prompt(messages)
    assert body["prompt"] == expected, (body["prompt"], expected)
    _, body = server.post("/tokenize", {"prompt": expected, "add_special_tokens": False})
    ids = reference.tokenize(expected)
    assert body["tokens"] == ids, (body["tokens"], ids)
    return ids


def log_softmax(rows):
    top = rows.max(axis=-1, keepdims=True)
    return rows - top - np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))


def strays(rows, exact):
    """How far the 20 best log-probabilities are from the exact ones, at each position."""
    best = np.argsort(exact, axis=-1)[:, -20:]
    difference = log_softmax(rows) - log_softmax(exact)
    return np.abs(np.take_along_axis(difference, best, axis=-1))


def compare(label, text, ours, rows, noise=None):
    """Where our greedy answer leaves the reference's: how far apart the best are, or 0."""
    for i, (row, token) in enumerate(zip(rows, ours)):
        second, best = np.argsort(row)[-2:]
        if best != token:
            gap = float(row[best] - row[token])
            stray = f", which strays by up to {noise[i].max():.3f} there" if noise is not None else ""
            print(f"  {label}: {i:2} of {NUM_EQUAL} tokens equal, then ours is {gap:.4f} behind and the "
                  f"two best are {row[best] - row[second]:.4f} apart{stray}: {text}")
            return gap
    print(f"  {label}: {len(ours)} of {NUM_EQUAL} tokens equal: {text}")
    return 0.0


def check_answers(server, scalar, reference, exact):
    gaps = {"exactly  ": [], "as served": []}
    file_gaps, noise = [], []
    for text in PROMPTS:
        ids = prompt_ids(server, reference, text)
        for label, ours_from in (("exactly  ", scalar), ("as served", server)):
            # One pass over our own answer tells whether each token was the reference's choice too.
            ours = greedy(ours_from, ids, NUM_EQUAL)
            exact_rows = exact.logits(ids + ours)[len(ids) - 1:-1]
            gaps[label].append(compare(label, text, ours, exact_rows))
        rows = reference.logits(ids + ours)[len(ids) - 1:-1]
        noise.append(strays(rows, exact_rows))
        file_gaps.append(compare("as served, llama.cpp on the file", text, ours, rows, noise[-1]))
    noise = np.concatenate(noise)
    print(f"llama.cpp on the file strays from exact log-probabilities by {noise.mean():.3f} on average, "
          f"{noise.max():.3f} at most")
    served, exactly = gaps["as served"], gaps["exactly  "]
    print(f"equal answers: {served.count(0)} of {len(served)} as served, {exactly.count(0)} of "
          f"{len(exactly)} exactly; {file_gaps.count(0)} of {len(file_gaps)} as served are those of "
          "llama.cpp on the file")
    return max(served + exactly) < NEAR_TIE and max(file_gaps) < noise.max()


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


def write_golden(path, reference, exact, text):
    prompts = []
    for prompt in PROMPTS:
        ids = reference.tokenize(reference.prompt([{"role": "user", "content": prompt}]))
        prompts.append({"content": prompt, "ids": ids, "greedy": exact.greedy(ids, NUM_EQUAL)})
    window = reference.tokenize(text)[:WINDOW // 2]
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    golden = {"command": "python3 tests/golden/check_gguf.py MODEL.gguf --write",
              "llama_cpp": llama_cpp.__version__, "sha256": digest, "prompts": prompts,
              "window": len(window), "nll": reference_nll(reference, window)}
    target = ROOT / "tests" / "golden" / "smollm2_gguf.json"
    target.write_text(json.dumps(golden, separators=(",", ":")).replace("},{", "},\n{") + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("--text", default=str(ROOT / "tests" / "golden" / "text.txt"))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--write", action="store_true")
    args = p.parse_args()
    options = ("--num-threads", str(args.threads), "--max-model-len", "2048",
               "--kv-cache-memory-bytes", "256M")
    server = Server(args.model, *options)
    scalar = Server(args.model, *options, "--cpu-isa", "scalar", "--kv-cache-dtype", "float32")
    reference = Reference(args.model, args.threads)
    text = pathlib.Path(args.text).read_text()
    with tempfile.TemporaryDirectory() as wide:
        write_float32(args.model, f"{wide}/float32.gguf")
        exact = Reference(f"{wide}/float32.gguf", args.threads)
        if args.write:
            write_golden(args.model, reference, exact, text)
        answers = check_answers(server, scalar, reference, exact)
    scalar.stop()
    perplexity = check_perplexity(server, reference, text)
    server.stop()
    print("as llama.cpp" if answers and perplexity else "NOT as llama.cpp")
    return 0 if answers and perplexity else 1


if __name__ == "__main__":
    sys.exit(main())
