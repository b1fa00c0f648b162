#!/usr/bin/env python3
"""Compares inferd with transformers on a checkpoint of this machine: the daemon on loopback against a
forward pass in float32, at every position of some prompts and of the greedy tokens behind them.

    pip install -r tests/golden/requirements.txt
    python tests/golden/verify_checkpoint.py MODEL [--dtype bfloat16] [--prompt TEXT ...]

With float32 (the default, whatever the checkpoint holds) the log-probabilities may differ by --tolerance
in parts of the range of a position's logits, and every greedy token must be transformers' choice, or as
good as it within that. With bfloat16 the errors against float32 are held to those of transformers' own
bfloat16 run: rms by 1, maximum by 1.25 times. Then all prompts are sent again, at once, and must give the
same numbers to the last bit. Prints the worst differences and PASS or FAIL; exits with 0, 1, or 2 where
there is nothing to compare.

The daemon is $INFERD_BIN or build/inferd. It is served no more positions than the prompts need, so that
ropes which depend on a length have transformers' frequencies.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("INFERD_BIN", str(ROOT / "build" / "inferd"))
BLOCK = 16
CHANCE = 1.25  # room for the greatest error, which hangs on single roundings


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(2)


class Daemon:
    """`with Daemon(...) as d`: ready inside, ended outside."""

    def __init__(self, model, max_len, options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{s.getsockname()[1]}"
        blocks = 64 * (max_len // BLOCK + 2)
        self.command = [BIN, "serve", str(model), "--host", "127.0.0.1", "--port",
                        self.url.rsplit(":", 1)[1], "--max-model-len", str(max_len),
                        "--num-gpu-blocks-override", str(blocks), "--max-logprobs", "100", *options]

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERD_")}
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log,
                                        env=environment)
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def wait_ready(self):
        while True:
            if self.process.poll() is not None:
                self.log.seek(0)
                fail(f"the daemon did not start:\n{self.log.read().decode(errors='replace')}")
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)

    def complete(self, ids, max_tokens, top):
        body = {"prompt": ids, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
                "logprobs": top, "prompt_logprobs": top, "return_token_ids": True,
                "return_tokens_as_token_ids": True}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=3600) as answer:
                choice = json.loads(answer.read())["choices"][0]
        except urllib.error.HTTPError as e:
            fail(f"the daemon answers {e.code}: {e.read().decode(errors='replace')}")
        rows = [{int(i): e["logprob"] for i, e in row.items()}
                for row in choice["prompt_logprobs"][1:]]
        rows += [{int(i.split(":")[1]): p for i, p in row.items()}
                 for row in choice["logprobs"]["top_logprobs"]]
        return {"rows": rows, "ids": choice["token_ids"]}


def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].double()


def load(path, dtype, config):
    plain = {"attn_implementation": "eager"}
    if hasattr(config, "num_experts_per_tok"):
        plain["experts_implementation"] = "eager"
    return transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, **plain).eval()


class Errors:
    """Of log-probabilities, each in parts of the range of its position's logits."""

    def __init__(self):
        self.squares, self.count, self.max, self.where = 0.0, 0, 0.0, "nowhere"

    def add(self, error, where):
        self.squares += error * error
        self.count += 1
        if not error <= self.max:  # a NaN is the worst of all
            self.max, self.where = error, where

    @property
    def rms(self):
        return (self.squares / max(self.count, 1)) ** 0.5

    def __str__(self):
        return f"max {self.max:.3g} ({self.where}), rms {self.rms:.3g}, {self.count} compared"


def compare_rows(errors, rows, logits, name, others=None):
    """The daemon's rows, or `others` (the same log-probabilities of another run), with `logits`."""
    exact = logits.log_softmax(-1)
    ranges = logits.max(-1).values - logits.min(-1).values
    for at, row in enumerate(rows):
        for token, value in row.items():
            if others is not None:
                value = float(others[at, token])
            errors.add(abs(value - float(exact[at, token])) / float(ranges[at]),
                       f"{name}, position {at}, token {token}")


def worst_choice(answer, logits, num_prompt):
    """How far the greedy tokens are from transformers' best ones, in parts of the range; and how many
    of them are the best."""
    worst, same = 0.0, 0
    for n, token in enumerate(answer["ids"]):
        row = logits[num_prompt - 1 + n]
        gap = float(row.max() - row[token])
        same += gap == 0
        worst = max(worst, gap / float(row.max() - row.min()))
    return worst, same


def make_prompts(args, vocab_size, max_len):
    if args.prompt:
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True)
        return [tokenizer(text)["input_ids"] for text in args.prompt]
    draw = random.Random(args.seed)
    longest = max_len - args.max_tokens
    lengths = [n for n in args.lengths if 2 <= n <= longest]
    if not lengths:
        fail(f"no prompt of --lengths {args.lengths} fits {longest} positions")
    return [[draw.randrange(vocab_size) for _ in range(n)] for n in lengths]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prompt", action="append", help="text; random tokens without")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 33, 150],
                        help="of random prompts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=32, help="greedy tokens behind each")
    parser.add_argument("--top", type=int, default=50, help="log-probabilities of a position")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--daemon", action="append", default=[], metavar="OPTION",
                        help="an option of the daemon: --daemon=--num-threads=4")
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        fail(f"{args.model} holds no config.json")
    return args


@torch.no_grad()
def main():
    args = arguments()
    config = transformers.AutoConfig.from_pretrained(args.model, local_files_only=True)
    prompts = make_prompts(args, config.vocab_size, getattr(config, "max_position_embeddings", 2048))
    max_len = max(map(len, prompts)) + args.max_tokens
    top = min(args.top, 100, config.vocab_size)
    with Daemon(args.model, max_len, ["--dtype", args.dtype, *args.daemon]) as daemon:
        answers = [daemon.complete(ids, args.max_tokens, top) for ids in prompts]
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(lambda ids: daemon.complete(ids, args.max_tokens, top), prompts))
    ours, theirs, worst, same = Errors(), Errors(), 0.0, 0
    exact = load(args.model, torch.float32, config)
    rounded = load(args.model, torch.bfloat16, config) if args.dtype == "bfloat16" else None
    for n, (ids, answer) in enumerate(zip(prompts, answers)):
        text = ids + answer["ids"][:-1]
        logits = logits_of(exact, text)
        compare_rows(ours, answer["rows"], logits, f"prompt {n}")
        if rounded is not None:
            compare_rows(theirs, answer["rows"], logits, f"prompt {n}",
                         logits_of(rounded, text).log_softmax(-1))
        far, equal = worst_choice(answer, logits, len(ids))
        worst, same = max(worst, far), same + equal
    total = args.max_tokens * len(prompts)
    print(f"{args.model}, {args.dtype}: {ours}")
    print(f"greedy: {same} of {total} are transformers' choice in float32, "
          f"the others within {worst:.3g}")
    print(f"all at once: {'the same bits' if together == answers else 'DIFFERENT'}")
    good = together == answers
    if rounded is None:
        good = good and ours.max <= args.tolerance and worst <= 2 * args.tolerance
    else:
        print(f"transformers' bfloat16: {theirs}")
        good = good and ours.rms <= theirs.rms and ours.max <= CHANCE * theirs.max
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
