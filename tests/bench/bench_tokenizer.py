#!/usr/bin/env python3
"""Encoding speed beside the tokenizers library: one core, the same lines, in one run.

    pip install tokenizers
    make build/tests/bench/tokenize_file
    python3 tests/bench/bench_tokenizer.py [--driver PROGRAM] [--text FILE] [NAME or DIR ...]

Both sides read the lines of FILE (default: this repository's own sources and README, repeated to
4 MB) and encode them one by one; the best of three passes counts. NAME is one of the tokenizers of
tests/golden/check_tokenizers.py.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "golden"))

from check_tokenizers import PACKAGES, fetch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402


def default_text(size=4 << 20):
    parts = []
    for path in sorted(glob.glob("**/*.[ch]", recursive=True) + glob.glob("**/*.md",
                                                                          recursive=True)):
        with open(path, encoding="utf-8", errors="replace") as f:
            parts.append(f.read())
    text = "\n".join(parts)
    return (text * (size // max(len(text), 1) + 1))[:size]


def library_seconds(directory, lines, passes):
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    best, count = float("inf"), 0
    for _ in range(passes):
        start = time.perf_counter()
        count = 0
        for line in lines:
            count += len(tokenizer.encode(line, add_special_tokens=False).ids)
        best = min(best, time.perf_counter() - start)
    return count, best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", default="build/tests/bench/tokenize_file")
    parser.add_argument("--text")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if args.text:
        with open(args.text, encoding="utf-8", errors="replace", newline="\n") as f:
            text = f.read()
    else:
        text = default_text()
    lines = text.split("\n")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n") as f:
        f.write("\n".join(lines))
        f.flush()
        megabytes = os.path.getsize(f.name) / 1e6
        print(f"{megabytes:.1f} MB in {len(lines)} lines, best of {args.passes}, one core")
        for name in args.names or PACKAGES:
            directory = fetch(name) if name in PACKAGES else name
            if not directory:
                continue
            done = subprocess.run([args.driver, directory, f.name, str(args.passes)], text=True,
                                  capture_output=True, check=True).stdout.split()
            count, seconds = int(done[0]), float(done[1])
            other_count, other = library_seconds(directory, lines, args.passes)
            same = "same ids" if count == other_count else f"DIFFERENT: {count} and {other_count}"
            print(f"{name:14} inferd {megabytes / seconds:6.2f} MB/s, {count / seconds / 1e6:5.2f} "
                  f"Mtok/s   tokenizers {megabytes / other:6.2f} MB/s   ratio "
                  f"{other / seconds:5.2f}   {same}")


if __name__ == "__main__":
    main()
