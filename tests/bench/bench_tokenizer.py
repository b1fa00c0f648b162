#!/usr/bin/env python3
"""Encoding speed beside the tokenizers library: one core, the same lines, in one run.

    pip install tokenizers
    make build/tests/bench/tokenize_file
    python3 tests/bench/bench_tokenizer.py [--driver PROGRAM] [--text FILE] [NAME or DIR ...]

Both sides read the lines of FILE (default: this repository's own sources and README, repeated to
4 MB) and encode them one by one; the library does so a second time in one call of encode_batch,
without its threads, so that what a call from Python costs does not count. Times are CPU time of one
thread, the best of three passes. NAME is one of the tokenizers of tests/golden/check_tokenizers.py.
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


def one_by_one(tokenizer, lines):
    return sum(len(tokenizer.encode(line, add_special_tokens=False).ids) for line in lines)


def in_one_call(tokenizer, lines):
    return sum(len(e.ids) for e in tokenizer.encode_batch(lines, add_special_tokens=False))


def library_seconds(directory, lines, passes, encode):
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    best, count = float("inf"), 0
    for _ in range(passes):
        start = time.process_time()
        count = encode(tokenizer, lines)
        best = min(best, time.process_time() - start)
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
        print(f"{megabytes:.1f} MB in {len(lines)} lines, best of {args.passes}, CPU time")
        for name in args.names or PACKAGES:
            directory = fetch(name) if name in PACKAGES else name
            if not directory:
                continue
            done = subprocess.run([args.driver, directory, f.name, str(args.passes)], text=True,
                                  capture_output=True, check=True).stdout.split()
            count, seconds = int(done[0]), float(done[1])
            other_count, other = library_seconds(directory, lines, args.passes, one_by_one)
            batch_count, batch = library_seconds(directory, lines, args.passes, in_one_call)
            same = ("same number of ids" if count == other_count == batch_count else
                    f"DIFFERENT: {count}, {other_count} and {batch_count}")
            print(f"{os.path.basename(name):14} inferd {megabytes / seconds:6.2f} MB/s, "
                  f"{count / seconds / 1e6:5.2f} Mtok/s   tokenizers {megabytes / other:6.2f} MB/s "
                  f"({other / seconds:.1f} times), in one call {megabytes / batch:6.2f} MB/s "
                  f"({batch / seconds:.1f} times)   {same}")


if __name__ == "__main__":
    main()
