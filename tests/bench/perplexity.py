#!/usr/bin/env python3
"""Perplexity of a model on a text, measured through the server.

    tests/bench/perplexity.py MODEL [--text FILE] [--window N] [--inferd PROGRAM] [-- OPTION ...]

Starts `inferd serve MODEL OPTION ...` on a port of its own, cuts FILE (default: perplexity.txt beside
this script, 20 KB of this project's documentation as it once stood) into windows of N tokens, and asks
for the log probability of every token after a window's first. Prints tokens and perplexity.
"""
import argparse
import json
import math
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent


def post(base, path, body):
    request = urllib.request.Request(base + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def wait_until_ready(base, server):
    while True:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            with urllib.request.urlopen(base + "/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


def window_logprobs(base, model, ids):
    answer = post(base, "/v1/completions", {"model": model, "prompt": ids, "max_tokens": 1,
                                            "temperature": 0, "prompt_logprobs": 0})
    rows = answer["choices"][0]["prompt_logprobs"]
    return [row[str(token)]["logprob"] for token, row in zip(ids[1:], rows[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", default=HERE / "perplexity.txt")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--inferd", default=HERE.parent.parent / "build" / "inferd")
    own, _, options = " ".join(sys.argv[1:]).partition(" -- ")
    args = parser.parse_args(own.split())
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([args.inferd, "serve", args.model, "--host", "127.0.0.1", "--port",
                               str(port), "--log-level", "warning", "--max-model-len",
                               str(args.window + 1), "--served-model-name", "m", *options.split()])
    try:
        wait_until_ready(base, server)
        text = pathlib.Path(args.text).read_text(encoding="utf-8")
        ids = post(base, "/tokenize", {"model": "m", "prompt": text,
                                       "add_special_tokens": False})["tokens"]
        logprobs = []
        for begin in range(0, len(ids) - 1, args.window):
            logprobs += window_logprobs(base, "m", ids[begin:begin + args.window])
    finally:
        server.terminate()
        server.wait()
    print(f"{len(logprobs)} tokens, perplexity {math.exp(-sum(logprobs) / len(logprobs)):.4f}")


if __name__ == "__main__":
    main()
