#!/usr/bin/env python3
"""Time from exec to ready and peak memory of `inferd serve`, cold and warm, with and without packed weights.

    make && python3 tests/bench/bench_startup.py MODEL [MODEL ...] [--rounds N] [--peer PYTHON]
    python3 tests/bench/bench_startup.py --make SHAPE TOKENIZER OUT

MODEL is a directory or a .gguf. PYTHON is an interpreter that has llama-cpp-python; it loads those
MODELs that are GGUF files. --make writes a bfloat16 checkpoint of the shape of SHAPE/config.json with
random weights and the tokenizer of TOKENIZER into OUT: start-up depends on sizes, not on values.

Cold: the system is told to drop the files' pages before each start (fsync, then posix_fadvise
DONTNEED), and mincore has to confirm it; what a virtual machine's host or the disk keeps, it keeps.
Ready is the first 200 of /health, asked every 2 ms. Then, from /proc: the most memory there ever was
(VmHWM), what there is now (VmRSS), and the part of that which is no page of a file (RssAnon).
The table has the best and the median time of all rounds and the largest memory. MB are 10^6 bytes.
"""
import argparse
import ctypes
import http.client
import json
import mmap
import os
import pathlib
import random
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLL_SECONDS, READY_SECONDS = 0.002, 300
STATUS_KEYS = ("VmHWM", "VmRSS", "RssAnon")

PEER = """
import json, sys
from llama_cpp import Llama
import time
begin = time.perf_counter()
llm = Llama(model_path=sys.argv[1], n_ctx=int(sys.argv[2]), n_threads=int(sys.argv[3]),
            n_threads_batch=int(sys.argv[3]), verbose=False)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "status": open("/proc/self/status").read()}))
"""


# --- a checkpoint to load ---------------------------------------------------------------------

def llama_tensors(config):
    """Names and shapes of a LlamaForCausalLM."""
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = (config[k] * head_dim for k in ("num_attention_heads", "num_key_value_heads"))
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for i in range(config["num_hidden_layers"]):
        for name, shape in (("input_layernorm", [hidden]), ("post_attention_layernorm", [hidden]),
                            ("self_attn.q_proj", [q, hidden]), ("self_attn.k_proj", [kv, hidden]),
                            ("self_attn.v_proj", [kv, hidden]), ("self_attn.o_proj", [hidden, q]),
                            ("mlp.gate_proj", [inner, hidden]), ("mlp.up_proj", [inner, hidden]),
                            ("mlp.down_proj", [hidden, inner])):
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", [config["vocab_size"], hidden]


def make_checkpoint(shape, tokenizer, out):
    config = json.loads((pathlib.Path(shape) / "config.json").read_text())
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pathlib.Path(shape) / "config.json", out / "config.json")
    for path in pathlib.Path(tokenizer).iterdir():
        if "token" in path.name:
            shutil.copyfile(path, out / path.name)
    header, end = {}, 0
    for name, dims in llama_tensors(config):
        size = 2 * dims[0] * (dims[1] if len(dims) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Signs and mantissas are random, the exponent is 2^-7: finite whatever is computed with them.
    count = 4 << 20
    bits = int.from_bytes(random.Random(0).randbytes(2 * count), "little")
    bits &= int.from_bytes(struct.pack("<H", 0x807f) * count, "little")
    bits |= int.from_bytes(struct.pack("<H", 0x3c00) * count, "little")
    block = bits.to_bytes(2 * count, "little")
    with open(out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for at in range(0, end, len(block)):
            f.write(block[:end - at])


# --- the page cache -----------------------------------------------------------------------------

def files_of(path):
    path = pathlib.Path(path)
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def resident_share(path):
    """Share of the file's pages that are in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as m:
        pages = -(-len(m) // mmap.PAGESIZE)
        view, states = ctypes.c_char.from_buffer(m), (ctypes.c_ubyte * pages)()
        bad = libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(len(m)), states)
        del view
        if bad:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(s & 1 for s in states) / pages


def drop(paths):
    for path in paths:
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if path.stat().st_size > 0 and resident_share(path) > 0.02:
            sys.exit(f"{path}: the system keeps its pages; is another process using it?")


def warm(paths):
    for path in paths:
        with open(path, "rb") as f:
            while f.read(16 << 20):
                pass


# --- one start ----------------------------------------------------------------------------------

def memory_of(status_text):
    found = {k: re.search(rf"^{k}:\s+(\d+) kB", status_text, re.M) for k in STATUS_KEYS}
    return {k: int(m.group(1)) * 1024 for k, m in found.items()}


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_for(what, server, log):
    begin = time.perf_counter()
    while not what():
        if server.poll() is not None or time.perf_counter() - begin > READY_SECONDS:
            server.kill()
            sys.exit(f"the server did not get ready:\n{log.read_text()}")
        time.sleep(POLL_SECONDS)


def start_inferd(args, model, cache_dir, writes):
    """One row of figures. `writes`: the packed weights are not there yet; waits until they are."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [args.inferd, "serve", str(model), "--host", "127.0.0.1", "--port", str(port),
               "--num-threads", str(args.threads), "--max-model-len", str(args.max_model_len),
               "--kv-cache-memory-bytes", args.kv_cache_memory_bytes, "--no-log-requests"]
    if cache_dir:
        command += ["--packed-weights-cache", str(cache_dir)]
    log = pathlib.Path(args.scratch) / "log"
    with open(log, "wb") as out:
        begin = time.perf_counter()
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for(lambda: is_ready(port), server, log)
        row = {"seconds": time.perf_counter() - begin}
        row |= memory_of(pathlib.Path(f"/proc/{server.pid}/status").read_text())
        if writes:
            wait_for(lambda: "packed weights kept in" in log.read_text(), server, log)
    finally:
        server.terminate()
        server.wait()
    text = log.read_text()
    if cache_dir and not writes and "mapped and checked" not in text:
        sys.exit(f"the packed weights were not used:\n{text}")
    row["weights"] = int(re.search(r"memory plan: weights (\d+)", text).group(1))
    row["stages"] = " ".join(f"{n} {float(s) * 1e3:.0f}" for n, s in
                             re.findall(r"stage \d+/\d+ ([^:]+): ([\d.]+) s", text) if float(s) >= .002)
    return row


def start_peer(args, model):
    begin = time.perf_counter()
    done = subprocess.run([args.peer, "-c", PEER, str(model), str(args.max_model_len),
                           str(args.threads)], check=True, stdout=subprocess.PIPE)
    answer = json.loads(done.stdout)
    return {"seconds": answer["seconds"], "whole": time.perf_counter() - begin,
            "stages": ""} | memory_of(answer["status"])


# --- all of them --------------------------------------------------------------------------------

def measure(args, model):
    """Rows by (who, page cache). All of a round, then the next, so that what else the machine does
    hits all alike."""
    rows, files = {}, files_of(model)
    for number in range(args.rounds):
        cache_dir = pathlib.Path(args.scratch) / "packed"
        shutil.rmtree(cache_dir, ignore_errors=True)
        warm(files)
        runs = [("inferd", "warm", None, False), ("inferd, writes packed", "warm", cache_dir, True),
                ("inferd, packed", "warm", cache_dir, False)]
        if number < args.cold_rounds:
            runs += [("inferd", "cold", None, False), ("inferd, packed", "cold", cache_dir, False)]
        for who, pages, cache, writes in runs:
            if pages == "cold":
                drop(files + (files_of(cache) if cache else []))
            rows.setdefault((who, pages), []).append(start_inferd(args, model, cache, writes))
        for pages in ("warm", "cold") if args.peer and files == [pathlib.Path(model)] else ():
            if pages == "warm":
                warm(files)
            elif number < args.cold_rounds:
                drop(files)
            else:
                continue
            rows.setdefault(("llama.cpp", pages), []).append(start_peer(args, model))
    return rows


def print_table(model, rows, verbose):
    weights = next(r["weights"] for runs in rows.values() for r in runs if "weights" in r)
    print(f"\n{model}: weights {weights / 1e6:.1f} MB\n\n"
          "| | files | ready, s: best | median | peak, MB | in use when ready, MB | peak / in use "
          "| anonymous, MB |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (who, pages), runs in rows.items():
        times = [r["seconds"] for r in runs]
        peak = max(runs, key=lambda r: r["VmHWM"])
        print(f"| {who} | {pages} | {min(times):.3f} | {statistics.median(times):.3f} "
              f"| {peak['VmHWM'] / 1e6:.1f} | {peak['VmRSS'] / 1e6:.1f} "
              f"| {peak['VmHWM'] / peak['VmRSS']:.2f} | {peak['RssAnon'] / 1e6:.1f} |", flush=True)
        if verbose:
            print(f"    best run, stages in ms: {min(runs, key=lambda r: r['seconds'])['stages']}")
        if "whole" in runs[0]:
            print(f"    with the interpreter's start: {min(r['whole'] for r in runs):.3f} s")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("models", nargs="*", metavar="MODEL")
    p.add_argument("--make", nargs=3, metavar=("SHAPE", "TOKENIZER", "OUT"))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cold-rounds", type=int, default=2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--max-model-len", type=int, default=512)
    p.add_argument("--kv-cache-memory-bytes", default="32M")
    p.add_argument("--peer", metavar="PYTHON")
    p.add_argument("--scratch", metavar="DIR", help="on the disk to measure (default: a new one in /tmp)")
    p.add_argument("--verbose", action="store_true", help="the stages of the best run too")
    p.add_argument("--inferd", default=str(ROOT / "build" / "inferd"))
    args = p.parse_args()
    if args.make:
        make_checkpoint(*args.make)
    elif not args.models:
        p.error("a MODEL is missing")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        args.scratch = scratch
        for model in args.models:
            print_table(model, measure(args, model), args.verbose)


if __name__ == "__main__":
    main()
