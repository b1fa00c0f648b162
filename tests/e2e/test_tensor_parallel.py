"""Several ranks on the CPU: the tokens of one rank, the same bits under load, an exact plan, a clean end."""
import asyncio
import json
import math
import pathlib
import signal
import time

import pytest

from conftest import run_inferd
from test_determinism import key, make_requests, run_all, summary
from test_goldens import log_softmax, token_id
from test_shutdown import check_ended, start_streams


def plan(model, ranks):
    done = run_inferd("plan", model, "--json", "--tensor-parallel-size", ranks, "--kv-cache-memory-bytes", "8M")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("ranks", [2, 4])
def test_goldens(start_server, shared_models, ranks):
    server = start_server(shared_models / "stories260K", "--return-tokens-as-token-ids",
                          "--kv-cache-memory-bytes", "32M", "--tensor-parallel-size", str(ranks))
    for case in json.loads((shared_models / "goldens.json").read_text())["prompts"]:
        n = min(64, 512 - len(case["ids"]))
        choice = server.complete(case["prompt"], max_tokens=n, ignore_eos=True, logprobs=5)["choices"][0]
        assert [token_id(t) for t in choice["logprobs"]["tokens"]] == case["greedy_ids"][:n], case["name"]
        expected = log_softmax(case["logits"])
        for t, p in choice["logprobs"]["top_logprobs"][0].items():
            assert math.isclose(p, expected[token_id(t)], abs_tol=1e-4), case["name"]


@pytest.mark.parametrize("model", ["stories260K", "stories260K-sharded", "stories260K-bf16"])
def test_every_folder_starts(start_server, shared_models, model):
    server = start_server(shared_models / model, "--kv-cache-memory-bytes", "8M",
                          "--tensor-parallel-size", "2")
    one = start_server(shared_models / model, "--kv-cache-memory-bytes", "8M")
    text = [s.complete("Once upon a time", max_tokens=20)["choices"][0]["text"] for s in (server, one)]
    assert text[0] == text[1]


def test_same_bits_under_load(start_server, model_dir):
    options = ["--tensor-parallel-size", "2", "--num-threads", "2"]
    requests = make_requests(23, 48)
    alone = {}
    server = start_server(model_dir, "--no-enable-prefix-caching", *options)
    for body, _ in requests:
        if key(body) not in alone:
            status, reply = server.post("/v1/completions", dict(body, stream=False))
            assert status == 200, reply
            alone[key(body)] = summary([reply["choices"][0]])
    assert server.stop() == 0
    # 36 blocks hold one full-length request and little more, so that preemption is certain.
    server = start_server(model_dir, *options, "--max-num-batched-tokens", "64", "--max-num-seqs", "16",
                          "--num-gpu-blocks-override", "36")
    for (body, _), answer in zip(requests, asyncio.run(run_all(server.url, requests, 23))):
        assert answer is None or answer == alone[key(body)], body
    server.wait_idle()
    assert server.metric("vllm:num_preemptions_total") > 0


def test_sigterm_during_streams(start_server, model_dir):
    server = start_server(model_dir, "--tensor-parallel-size", "2", "--shutdown-timeout", "600")
    outs, threads = start_streams(server, 8, 300)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    check_ended(outs, threads, {"length"})
    assert server.stop() == 0


def test_second_signal_stops_at_once(start_server, model_dir):
    server = start_server(model_dir, "--tensor-parallel-size", "2", "--shutdown-timeout", "600")
    outs, threads = start_streams(server, 8, 480)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    check_ended(outs, threads, {"abort", "length"})
    assert server.stop() == 0


def test_plan_is_of_each_rank(model_dir):
    one, two = plan(model_dir, 1), plan(model_dir, 2)
    assert one["tensor_parallel_size"] == 1 and two["tensor_parallel_size"] == 2
    for p in (one, two):
        each = sum(p[k] for k in ("weights_bytes", "activation_bytes", "workspace_bytes", "kv_cache_bytes"))
        assert p["total_bytes"] == p["tensor_parallel_size"] * each + p["batch_bytes"]
    assert two["weights_bytes"] < 0.6 * one["weights_bytes"]
    assert two["block_bytes"] * 2 == one["block_bytes"]
    assert two["num_blocks"] == (8 << 20) // two["block_bytes"]


def test_refused_with_the_sizes_that_work(model_dir):
    done = run_inferd("plan", model_dir, "--tensor-parallel-size", "64")
    assert done.returncode == 1
    assert "--tensor-parallel-size 64: " in done.stderr
    assert "is no multiple of it; sizes that work: 1, 2" in done.stderr
    assert run_inferd("plan", model_dir, "--tensor-parallel-size", "0").returncode != 0


def thread_names(server):
    names = []
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended meanwhile
    return names


def test_threads_are_divided(start_server, model_dir):
    few = start_server(model_dir, "--tensor-parallel-size", "2", "--num-threads", "2")
    many = start_server(model_dir, "--tensor-parallel-size", "2", "--num-threads", "6")
    assert "2 ranks, each on" in few.read_log() and ", 1 thread," in few.read_log()
    assert ", 3 threads," in many.read_log()
    assert thread_names(few).count("worker") == 2 and thread_names(many).count("worker") == 2
    assert sum(name.startswith("cpu-") for name in thread_names(few)) == 0
    assert sum(name.startswith("cpu-") for name in thread_names(many)) == 4
    assert many.complete("Once", max_tokens=9)["choices"] == few.complete("Once", max_tokens=9)["choices"]
