#!/usr/bin/env python3
"""Prefill and decode speed of a GGUF file, inferd and llama.cpp in turn.

    pip install llama-cpp-python
    make && python3 tests/bench/bench_gguf.py MODEL.gguf [--threads N] [--rounds N] [--cpu-time]

Each round measures both, so that what else the machine does hits both; the best round of each counts.
With --cpu-time it is processor time that counts, not the clock's: on a busy machine, with one thread,
that says more.
"""
import argparse
import pathlib
import resource
import subprocess
import time

import llama_cpp

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT, PREFILL, DECODE = 16, 256, 64


def run_bench(args, prefill, decode):
    """Seconds of one run of `inferd bench` with these lengths."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([args.inferd, "bench", args.model, "--num-threads", str(args.threads),
                    "--bench-batch-size", "1", "--bench-input-len", str(prefill),
                    "--bench-output-len", str(decode), "--bench-context-len", str(CONTEXT),
                    "--bench-repeat", "1"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime if args.cpu_time else time.perf_counter() - begin


def run_inferd(args):
    """Tokens per second, from what longer runs take more than a short one."""
    short = run_bench(args, CONTEXT, 1)
    return (PREFILL / (run_bench(args, CONTEXT + PREFILL, 1) - short),
            DECODE / (run_bench(args, CONTEXT, 1 + DECODE) - short))


def run_llama(llm, args):
    clock = time.process_time if args.cpu_time else time.perf_counter
    ids = [(i * 37 + 11) % 40000 for i in range(CONTEXT + PREFILL)]
    llm.reset()
    begin = clock()
    llm.eval(ids[:PREFILL])
    prefill = PREFILL / (clock() - begin)
    llm.reset()
    llm.eval(ids[:CONTEXT])
    begin = clock()
    for i in range(DECODE):
        llm.eval([ids[CONTEXT + i]])
    return prefill, DECODE / (clock() - begin)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cpu-time", action="store_true")
    p.add_argument("--inferd", default=str(ROOT / "build" / "inferd"))
    args = p.parse_args()
    llm = llama_cpp.Llama(args.model, n_ctx=1024, n_batch=512, n_threads=args.threads,
                          n_threads_batch=args.threads, verbose=False)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(run_inferd(args))
        theirs.append(run_llama(llm, args))
        print("  prefill {:8.1f} {:8.1f}   decode {:7.1f} {:7.1f}".format(
            ours[-1][0], theirs[-1][0], ours[-1][1], theirs[-1][1]), flush=True)
    print(f"best of {args.rounds}, {args.threads} threads"
          f"{', processor time' if args.cpu_time else ''}: inferd, llama.cpp, ratio")
    for i, what in enumerate(("prefill", "decode")):
        a, b = max(r[i] for r in ours), max(r[i] for r in theirs)
        print(f"{what:8} {a:8.1f} {b:8.1f} {a / b:6.2f} tok/s")


if __name__ == "__main__":
    main()
