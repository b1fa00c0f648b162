#!/usr/bin/env python3
"""Everything that wants a real GPU to be tested on: the ops against the CPU, under compute-sanitizer too,
goldens of all architectures, and the daemon with 64 clients. Ends with a line per part.

    make test-gpu          or, in a bundle,          ./test-gpu

Needs Python's standard library alone. --emulated --tiny tries the same on the emulated device."""
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import sys
import time

import harness
from harness import Daemon, Skipped, left

from golden_model import write_checkpoint

# Beside those of tests/kernels/cuda: graphs, and the logits of tiny models of all architectures.
MORE_PROGRAMS = ("engine/exec/test_graph_pool", "engine/model/test_arch_cuda")
# Programs at a time: the host's share of each is what takes long.
JOBS = 6
# Tests make calls fail on purpose, for want of memory: those are no findings.
SANITIZER_TOOLS = {"memcheck": ["--tool", "memcheck", "--report-api-errors", "no"],
                   "racecheck": ["--tool", "racecheck"]}
SANITIZER_FINDING = re.compile(r"^========= (Invalid|Misaligned|Out-of-range|Error|Race|Program hit)", re.M)
GOLDEN_OPTIONS = ["--dtype", "float32", "--kv-cache-memory-bytes", "16M", "--max-num-seqs", "4"]


def programs(args, places):
    if args.tiny:
        found = [places.programs / "test_device_cuda"]
    else:
        found = sorted(p for p in places.programs.glob("test_*") if os.access(p, os.X_OK) and not p.suffix)
        if not harness.BUNDLE:
            found += [places.programs.parents[1] / name for name in MORE_PROGRAMS]
    if not found:
        raise RuntimeError(f"no test programs in {places.programs}")
    return found


def run_programs(args, places, end, prefix, log_name, **env):
    """{name: (exit code or None, output)} of all, JOBS at a time."""
    def one(program):
        return program.name, places.run_until([*prefix, program], left(end), f"{log_name}-{program.name}",
                                              INFERD_TEST_PLUGIN=str(places.plugin), **env)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return dict(pool.map(one, programs(args, places)))


def ops(args, places, end):
    results = run_programs(args, places, end, [], "ops")
    for name, (code, text) in results.items():
        if code != 0:
            print(f"{name}: " + ("no time was left" if code is None else f"ended with {code}"))
            print(text[-4000:], flush=True)
    bad = [name for name, (code, _) in results.items() if code != 0]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(results)} programs: {', '.join(bad)}")
    return f"passed, {len(results)} programs"


def sanitizer(args, places, tool, end):
    """What it gets through in its time: a finding fails, a program that is not through is named."""
    command = args.sanitizer or shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if args.emulated and not args.sanitizer:
        raise Skipped("it watches a real device")
    if not os.access(command, os.X_OK):
        raise Skipped("compute-sanitizer is not installed")
    # A fixed seed: both tools see the same shapes.
    results = run_programs(args, places, end, [command, *SANITIZER_TOOLS[tool], "--error-exitcode", "9"],
                           tool, INFERD_TEST_SEED="1")
    bad, cut = [], [name for name, (code, _) in results.items() if code is None]
    for name, (code, text) in results.items():
        if code not in (0, None) or SANITIZER_FINDING.search(text):
            bad.append(name)
            print(f"{name} under {tool}, exit code {code}:\n{text[-4000:]}", flush=True)
    if bad:
        raise RuntimeError(f"{tool} of {', '.join(bad)}")
    if len(cut) == len(results):
        raise RuntimeError(f"{tool}: no program was through in its time")
    return f"clean, {len(results) - len(cut)} programs" + (
        f"; CUT, clean so far: {', '.join(cut)}" if cut else "")


def expect_greedy(daemon, prompts, count, name):
    for prompt in prompts:
        wanted = prompt["greedy_ids"][:count]
        got = daemon.complete(prompt=prompt["ids"], temperature=0, max_tokens=len(wanted),
                              ignore_eos=True, return_token_ids=True)["token_ids"]
        assert got == wanted, f"{name}: {got} instead of {wanted}"


def serve_golden(args, places, model, golden):
    """Some rotary embeddings depend on the longest length that is served: the golden has it."""
    for length in sorted({p["served_len"] for p in golden["prompts"]}):
        prompts = [p for p in golden["prompts"] if p["served_len"] == length]
        with Daemon(places, model, *GOLDEN_OPTIONS, "--max-model-len", str(length)) as daemon:
            expect_greedy(daemon, prompts, 4 if args.tiny else 32, model.name)


def architectures(args, places, end):
    files = sorted(places.golden.glob("*.json"))
    done, failed = 0, []
    for path in files:
        golden = json.loads(path.read_text())
        if path.name.startswith("gguf_") or "tensors" not in golden:
            continue  # those are tests of the file's format
        if args.tiny and path.stem not in ("qwen3", "deepseek_v3"):
            continue
        model = places.scratch / path.stem
        model.mkdir()
        write_checkpoint(model, golden)
        try:
            serve_golden(args, places, model, golden)
            done += 1
        except (AssertionError, RuntimeError) as e:
            failed.append(f"{path.stem}: {e}")
        if left(end) <= 0.1:
            raise RuntimeError(f"over its time after {path.stem}")
    assert done > 0 and not failed, "\n".join(failed) or "no goldens"
    return f"passed, {done} architectures, greedy tokens of float32 equal"


def stories(args, places, end):
    if not (places.models / "goldens.json").exists():
        raise Skipped("the model stories260K is not here")
    prompts = json.loads((places.models / "goldens.json").read_text())["prompts"]
    options = ["--cudagraph-capture-sizes", "2"] if args.tiny else []
    with Daemon(places, places.models / "stories260K", *options) as daemon:
        expect_greedy(daemon, prompts[:1] if args.tiny else prompts, 4 if args.tiny else 32,
                      "stories260K")
    return "passed, greedy tokens of float32 equal"


# --- 64 clients --------------------------------------------------------------------------------

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2,
         "prompt_lookup_min": 1}


def mixed_bodies(vocab_size, count, longest):
    rng = random.Random(11)
    bodies = []
    for _ in range(count):
        body = {"prompt": [rng.randrange(3, vocab_size) for _ in range(rng.choice([1, 9, 33, 70]))],
                "max_tokens": rng.choice([1, 5, longest]), "temperature": 0, "ignore_eos": True,
                "logprobs": 2, "return_token_ids": True}
        if rng.random() < 0.3:
            body.update(temperature=0.9, top_p=0.9, seed=rng.randrange(1 << 40))
        bodies.append(body)
    return bodies


def answer_of(choices):
    """Of one choice, or of all those of a stream joined."""
    logprobs = [c["logprobs"] for c in choices if c.get("logprobs")]
    return ([i for c in choices for i in c.get("token_ids") or []],
            *([x for part in logprobs for x in part[name]]
              for name in ("tokens", "token_logprobs", "top_logprobs")))


def client(daemon, number, body):
    """A third of the clients leave early, a third read streams, a third wait for the whole."""
    if number % 3 == 0:
        daemon.stream(body, stop_after=1 + number % 4)
        return None
    if number % 3 == 1:
        events = daemon.stream(body)
        assert events[-1][1]["finish_reason"] == "length", events[-1]
        return answer_of([choice for _, choice in events])
    return answer_of([daemon.complete(**body)])


def clients(args, places, end):
    path = places.golden / "qwen3.json"
    golden, model = json.loads(path.read_text()), places.scratch / "clients"
    model.mkdir()
    write_checkpoint(model, golden)
    count = 12 if args.tiny else 64
    bodies = mixed_bodies(golden["configs"][0]["vocab_size"], count, 8 if args.tiny else 40)
    options = ["--max-num-seqs", "16", "--num-gpu-blocks-override", "24",
               "--max-num-batched-tokens", "64", "--max-model-len", "128"]
    with Daemon(places, model, *options, "--no-enable-prefix-caching", "--enforce-eager") as daemon:
        wanted = {i: answer_of([daemon.complete(**body)])
                  for i, body in enumerate(bodies) if i % 3 != 0}
    with Daemon(places, model, *options) as daemon:
        serve_all(daemon, bodies, wanted)
    with Daemon(places, model, *options, "--speculative-config", json.dumps(NGRAM)) as daemon:
        serve_all(daemon, bodies, wanted)
        accepted = metric(daemon, "vllm:spec_decode_num_accepted_tokens_total")
        assert accepted > 0, "no draft was right"
    return (f"passed, twice {count} clients, {len(wanted)} answers compared bit for bit with those "
            f"alone, the second time with drafts, of which {accepted:.0f} were right")


def serve_all(daemon, bodies, wanted):
    """All at once; nothing of them is left afterwards."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda i: client(daemon, i, bodies[i]), range(len(bodies))))
    for i, want in wanted.items():
        assert answers[i] == want, f"request {i} got other bits than alone"
    until = time.perf_counter() + 20
    while not idle(daemon):
        assert time.perf_counter() < until, "requests of clients that left still run"
        time.sleep(0.05)


def metric(daemon, name):
    lines = daemon.request("GET", "/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def idle(daemon):
    return metric(daemon, "vllm:num_requests_running") + metric(daemon, "vllm:num_requests_waiting") == 0


def two_ranks(args, places, end):
    if "--device-ids" not in places.run([places.daemon, "--help"], left(end)).stdout:
        raise Skipped("this daemon has no --device-ids")
    model = places.scratch / "ranks"
    model.mkdir()
    golden = json.loads((places.golden / "qwen3.json").read_text())
    write_checkpoint(model, golden)
    with Daemon(places, model, *GOLDEN_OPTIONS, "--tensor-parallel-size", "2", "--device-ids",
                "0,0") as daemon:
        expect_greedy(daemon, golden["prompts"], 4 if args.tiny else 32, "two ranks")
    return "passed, greedy tokens of one rank"


def end_to_end(args, places, end):
    """What the default tests run on the emulated device."""
    if args.emulated or harness.BUNDLE:
        raise Skipped("of the repository, on a real device")
    return pytest_part(args, places, end)


def pytest_part(args, places, end, *more):
    python = pathlib.Path(args.build).resolve() / "venv" / "bin" / "python"
    python = python if python.exists() else sys.executable
    if places.run([python, "-c", "import pytest, httpx"], left(end)).returncode != 0:
        raise Skipped(f"{python} has no pytest and httpx (make venv)")
    done = places.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                       harness.ROOT / "tests" / "e2e" / "test_cuda.py", *more], left(end),
                      INFERD_BIN=str(places.daemon), INFERD_TEST_PLUGIN=str(places.plugin))
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-4000:])
    return done.stdout.splitlines()[-1]


def parts(args, places):
    def part(title, seconds, function, *more):
        return title, seconds, lambda end: function(args, places, *more, end)
    return [part("ops against the CPU", 90, ops),
            part("stories260K", 30, stories),
            part("goldens of all architectures", 100, architectures),
            part("64 mixed clients", 40, clients),
            part("two ranks on one device", 30, two_ranks),
            part("tests/e2e/test_cuda.py", 90, end_to_end),
            part("compute-sanitizer memcheck", 75, sanitizer, "memcheck"),
            part("compute-sanitizer racecheck", 75, sanitizer, "racecheck")]


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, "test-gpu", parts))
