#!/usr/bin/env python3
"""The figures of a GPU, each beside the limit that was measured on the same device in the same run.

    make bench-gpu           or, in a bundle,          ./bench-gpu engine
    make bench-gpu-server                              ./bench-gpu server

Prints: copy bandwidth; the dense bf16 rate, flash attention and transformers' speed where this Python
has torch and transformers; prefill and decode of the Llama-3.1-8B and
Llama-3.2-1B shapes with random weights, batch-invariant and not; time from exec to ready with an 8B
checkpoint on a warm disk cache, stage by stage, and the memory taken beside the plan; bits alone and
at batch 64; 1,000 mixed requests over HTTP. Each part has a time limit; what was cut is named.

Decode: bytes that a step must read (weights once, each sequence's KV cache) over its time. Prefill:
2 operations per weight and token, the embedding not counted and the head for one token, and
4 * head_dim per head, layer and visible position. --emulated --tiny tries it without a GPU."""
import concurrent.futures
import json
import multiprocessing
import random
import shutil
import statistics
import subprocess
import sys
import time

import harness
from harness import HERE, Client, Daemon, Skipped, left

from bench_startup import make_checkpoint
from golden_model import write_tokenizer

CONTEXT = 1024
measured = {}  # what later parts compare with


def sizes(args):
    """(shapes, prompt lengths, batch sizes, context, largest step)."""
    if args.tiny:
        return ["tiny"], [16, 40], [1, 4], 32, 32
    return ["llama-3.2-1b", "llama-3.1-8b"], [512, 8192, 32768], [1, 8, 64, 256], CONTEXT, 8192


def percent(value, limit):
    return f"{100 * value / limit:.1f} %" if limit else "limit not measured"


# --- the device --------------------------------------------------------------------------------

def copying(args, places, end):
    mib = 4 if args.tiny else 1024
    done = places.run([places.benches / "bench_copy", places.plugin, mib], left(end))
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    measured["bytes_per_second"] = float(done.stdout.rsplit("writes ", 1)[1].split()[0]) * 1e9
    return done.stdout.strip()


def torch_part(args, places, what, end):
    """bench_torch.py prints JSON lines; those before a cut count."""
    command = [sys.executable, str(HERE / "bench_torch.py"), what,
               "tiny" if args.tiny else "full", str(places.shapes), str(left(end) - 3)]
    try:
        done = subprocess.run(command, timeout=left(end), capture_output=True)
        code, output, errors = done.returncode, done.stdout, done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        code, output, errors = None, e.stdout or b"", ""
    # A line may be cut, too.
    lines = [json.loads(line) for line in output.decode().splitlines()
             if line.startswith("{") and line.endswith("}")]
    if lines and "missing" in lines[0]:
        raise Skipped(lines[0]["missing"])
    if code or not lines:
        raise RuntimeError(errors[-1500:] or "it said nothing in its time")
    for line in lines:
        measured[("torch", line["name"])] = line["value"]
    if what == "matmul":
        measured["flops"] = lines[0]["value"]
    text = "\n    ".join([f"torch {what}"] + [f"{li['name']}: {li['text']}" for li in lines])
    if code is None:
        raise RuntimeError(f"{text}\n    CUT: no time was left for more")
    return text


def attention(args, places, end):
    """Ours alone, on the shapes that torch's is timed on."""
    shapes = harness.TINY_ATTENTION_SHAPES if args.tiny else harness.ATTENTION_SHAPES
    out = ["bfloat16 cache in blocks, float32 queries and results"]
    for head_dim in harness.ATTENTION_HEAD_DIMS:
        done = places.run([places.benches / "bench_attention_gpu", places.plugin, harness.ATTENTION_HEADS,
                           harness.ATTENTION_KV_HEADS, head_dim, *[":".join(map(str, s)) for s in shapes]],
                          left(end))
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        for (batch, queries, context), line in zip(shapes, done.stdout.splitlines()):
            name = f"head_dim {head_dim}, batch {batch}, {queries} queries, context {context}"
            took, theirs = float(line.split()[1]), measured.get(("torch", name))
            out.append(f"{name}: {1e6 * took:.1f} us" + (
                f", {theirs / took:.2f} times as fast as torch's" if theirs else ", torch's not measured"))
    return "\n    ".join(out)


# --- the engine alone --------------------------------------------------------------------------

def kv_bytes(config, tokens):
    return (2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
            * tokens)


def prefill_flops(config, tokens):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    layer = hidden * config["head_dim"] * (2 * heads + 2 * kv) + 3 * hidden * inner
    visible = tokens * (tokens + 1) / 2
    return (2 * config["num_hidden_layers"] * layer * tokens + 2 * config["vocab_size"] * hidden
            + 4 * config["num_hidden_layers"] * heads * config["head_dim"] * visible)


def engine(args, places, shape, invariant, end):
    """One command for each size, so that one that is cut leaves the others' figures."""
    _, prompts, batches, context, largest = sizes(args)
    if not invariant:  # what it changes: products of many rows
        prompts, batches = prompts[:2], batches[1:3]
    kind = "--batch-invariant" if invariant else "--no-batch-invariant"
    common = [places.daemon, "bench", places.shapes / shape, "--load-format", "dummy", "--device",
              "cuda", "--dtype", "bfloat16", "--json", "--max-num-batched-tokens", largest,
              "--bench-output-len", 4 if args.tiny else 32, "--bench-repeat", 1 if args.tiny else 2, kind]
    out, cut = [f"{shape}, bfloat16, random weights, {kind}"], []
    runs = [(f"prefill {n}", n, 1, 16) for n in prompts]
    runs += [(f"decode, batch {n}, context {context}", 16, n, context) for n in batches]
    for title, prompt, batch, length in runs:
        command = common + ["--bench-input-len", prompt, "--bench-batch-size", batch,
                            "--bench-context-len", length, "--max-num-seqs", batch]
        try:
            answer, log = places.json_of(command, left(end))
        except subprocess.TimeoutExpired:
            cut.append(title)
            continue
        if len(out) == 1:
            out += [line[line.index("cuBLASLt"):] for line in log.splitlines() if "cuBLASLt" in line]
        describe = prefill_line if title.startswith("prefill") else decode_line
        out.append(f"{title}: {describe(places, shape, answer, length, invariant)}")
    text = "\n    ".join(out)
    if cut:
        raise RuntimeError(f"{text}\n    CUT, no time was left: {'; '.join(cut)}")
    return text


def config_of(places, shape):
    return json.loads((places.shapes / shape / "config.json").read_text())


def prefill_line(places, shape, answer, _context, invariant):
    row = answer["prefill"][0]
    rate, tokens = row["tokens_per_second"], row["input_len"]
    flops = prefill_flops(config_of(places, shape), tokens) * rate / tokens
    return (f"{rate:.0f} tok/s, {flops / 1e12:.2f} TFLOP/s, {percent(flops, measured.get('flops'))} of "
            "the dense rate" + compared(shape, "prefill", tokens, rate, invariant))


def decode_line(places, shape, answer, context, invariant):
    row = answer["decode"][0]
    rate, batch = row["tokens_per_second"], row["batch_size"]
    kv = kv_bytes(config_of(places, shape), batch * (context + row["output_len"] / 2))
    read = (answer["decode_weight_bytes"] + kv) * rate / batch
    return (f"{rate:.1f} tok/s, {read / 1e9:.1f} GB/s, "
            f"{percent(read, measured.get('bytes_per_second'))} of copying"
            + compared(shape, "decode", batch, rate, invariant))


def compared(shape, what, size, rate, invariant):
    key = (shape, what, size)
    if invariant:
        measured[key] = rate
    with_torch = measured.get(("torch", f"{shape} {what} {size}"))
    text = f"; transformers {with_torch:.1f} tok/s" if with_torch else ""
    if not invariant and key in measured:
        text += f"; {rate / measured[key]:.2f} times the batch-invariant"
    return text


# --- the daemon --------------------------------------------------------------------------------

class Served:
    """The 8B checkpoint, written once and served for all parts that follow."""

    def __init__(self, args, places):
        self.args, self.places, self.daemon = args, places, None
        self.shape = "tiny" if args.tiny else "llama-3.1-8b"
        self.config = json.loads((places.shapes / self.shape / "config.json").read_text())

    def start(self, _args, places, end):
        model, tokenizer = places.scratch / "checkpoint", places.scratch / "tokenizer"
        needed = 2 * (1 << 20 if self.args.tiny else 9 << 30)
        if shutil.disk_usage(places.scratch).free < needed:
            raise Skipped(f"{places.scratch} has less than {needed} bytes free: name --scratch")
        tokenizer.mkdir()
        write_tokenizer(tokenizer, [f"t{i}" for i in range(self.config["vocab_size"])])
        make_checkpoint(places.shapes / self.shape, tokenizer, model)
        warm_seconds = warm(model)
        options = (["--max-num-seqs", "8", "--cudagraph-capture-sizes", "2"] if self.args.tiny
                   else ["--max-num-seqs", "256", "--max-num-batched-tokens", "8192"])
        self.daemon = Daemon(places, model, *options, "--max-model-len",
                             "256" if self.args.tiny else "8192", "--kv-cache-memory-bytes"
                             if self.args.tiny else "--gpu-memory-utilization",
                             "16M" if self.args.tiny else "0.9")
        log = self.daemon.log()
        stages = [line.split("stage ", 1)[1] for line in log.splitlines()
                  if "stage " in line and line.rstrip().endswith(" s")]
        taken, planned, free = (float(x) for x in self.daemon.find(
            r"device memory: ([0-9.]+) MiB taken since the plan, planned ([0-9.]+), free ([0-9.]+)"
        ).groups())
        off = abs(taken - planned) / (free + planned)
        if not self.args.emulated and off > 0.01:
            raise RuntimeError(f"taken {taken} MiB, planned {planned}: {100 * off:.2f} % of what was "
                               "free")
        return "\n    ".join(
            [f"exec to ready {self.daemon.ready_seconds:.2f} s, files read again in {warm_seconds:.1f} "
             "s before", *stages, f"memory: {taken:.1f} MiB taken, {planned:.1f} planned, {free:.1f} "
             f"free; off by {100 * off:.2f} % of what was free"])

    def ready(self):
        if not self.daemon:
            raise Skipped("there is no daemon, see above")
        return self.daemon

    def bits(self, args, _places, end):
        daemon, count, rng = self.ready(), 4 if args.tiny else 64, random.Random(3)
        bodies = [body_of(rng, self.config["vocab_size"], 20 + 3 * i, 8 if args.tiny else 32, logprobs=2)
                  for i in range(count)]
        probe = range(0, count, max(1, count // 4))
        alone = {i: daemon.complete(**bodies[i]) for i in probe}
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            crowd = list(pool.map(lambda b: daemon.complete(**b), bodies))
        for i in probe:
            for key in ("token_ids", "logprobs"):
                assert crowd[i][key] == alone[i][key], f"request {i}: other {key} than alone"
        return f"equal: tokens and log-probabilities of {len(alone)} requests, alone and at batch {count}"

    def serve(self, args, _places, end):
        daemon, count = self.ready(), 16 if args.tiny else 1000
        processes = 2 if args.tiny else 8
        context = multiprocessing.get_context("fork")
        begin = time.perf_counter()
        with context.Pool(processes) as pool:
            jobs = [pool.apply_async(clients, (Client(daemon.port), self.config["vocab_size"], number,
                                               processes, count, args.tiny))
                    for number in range(processes)]
            results = [r for job in jobs for r in job.get(left(end))]
        seconds = time.perf_counter() - begin
        tokens = sum(r["tokens"] for r in results)
        prompts = sum(r["prompt"] for r in results)
        assert len(results) == count
        return "\n    ".join([
            f"{count} requests in {seconds:.2f} s: {count / seconds:.1f} requests/s, "
            f"{tokens / seconds:.0f} output tok/s, {(tokens + prompts) / seconds:.0f} tok/s with prompts",
            f"TTFT, ms: {percentiles([r['ttft'] for r in results])}",
            f"ITL, ms: {percentiles([gap for r in results for gap in r['itl']])}"])

    def stop(self, *_):
        self.ready().__exit__(None)
        return "ended with exit code 0"


def warm(folder):
    begin = time.perf_counter()
    for path in folder.iterdir():
        with open(path, "rb") as f:
            while f.read(16 << 20):
                pass
    return time.perf_counter() - begin


def body_of(rng, vocab_size, prompt, output, **more):
    return {"prompt": [rng.randrange(3, vocab_size) for _ in range(prompt)], "max_tokens": output,
            "temperature": 0, "ignore_eos": True, "return_token_ids": True, **more}


def one_request(daemon, body):
    begin = time.perf_counter()
    events = [(at, len(choice.get("token_ids") or [])) for at, choice in daemon.stream(body)]
    events = [(at, n) for at, n in events if n > 0]
    if sum(n for _, n in events) != body["max_tokens"]:
        raise RuntimeError(f"{sum(n for _, n in events)} tokens instead of {body['max_tokens']}")
    times = [at for at, _ in events]
    return {"ttft": times[0] - begin, "itl": [b - a for a, b in zip(times, times[1:])],
            "tokens": body["max_tokens"], "prompt": len(body["prompt"])}


def clients(daemon, vocab_size, number, processes, count, tiny):
    """This process's share of the requests, up to 32 at a time."""
    rng = random.Random(number)
    longest_prompt, longest = (40, 8) if tiny else (2048, 256)
    bodies = [body_of(rng, vocab_size, rng.randrange(4, longest_prompt), rng.randrange(2, longest))
              for _ in range(number, count, processes)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda b: one_request(daemon, b), bodies))


def percentiles(seconds):
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return ", ".join(f"p{p} {1e3 * cuts[p - 1]:.1f}" for p in (50, 90, 99))


def parts(args, places):
    def part(title, seconds, function, *more):
        return title, seconds, lambda end: function(args, places, *more, end)
    served, rows = Served(args, places), []
    if args.group != "server":
        rows += [part("copy bandwidth", 20, copying), part("dense rate", 20, torch_part, "matmul"),
                 part("flash attention of torch", 25, torch_part, "attention"),
                 part("attention", 25, attention), part("transformers", 80, torch_part, "transformers")]
        for shape in sizes(args)[0]:
            large = shape.endswith("8b")
            rows += [part(f"engine, {shape}", 150 if large else 60, engine, shape, True),
                     part(f"engine, {shape}, --no-batch-invariant", 55 if large else 30, engine, shape,
                          False)]
    if args.group != "engine":
        rows += [part("start with a checkpoint", 150, served.start), part("same bits", 40, served.bits),
                 part("serving", 150, served.serve), part("stop", 60, served.stop)]
    return rows


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, "bench-gpu", parts, groups=("engine", "server")))
