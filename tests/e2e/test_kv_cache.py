"""Models some or all of whose layers slide: what their cache costs, and that it changes no bit."""
import asyncio
import json
import subprocess
import sys

import pytest

from conftest import ROOT, Server, generated, run_inferd
from test_determinism import key, make_requests, run_all, summary

MAKE_TINY = ROOT / "tests" / "fixtures" / "make_tiny.py"

# 6 layers, 4 of them with a window of 24: three groups of two layers. A sequence of 512 tokens takes
# 32 blocks of 16 in the full group and, with 16 tokens in a step, at most 4 in each of the others.
FULL_LENGTH_BLOCKS = 32 + 2 * 4


@pytest.fixture(scope="module")
def sliding():
    return generated("sliding")


@pytest.fixture(scope="module")
def roomy(sliding):
    """Nothing cached, nothing cut, room for everything."""
    server = Server(sliding, "--no-enable-prefix-caching", "--kv-cache-memory-bytes", "64M")
    yield server
    assert server.stop() == 0


def run_plan(model, *args):
    return run_inferd("plan", model, "--json", *args)


def plan(model, *args):
    done = run_plan(model, *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer(server, body):
    status, reply = server.post("/v1/completions", dict(body, stream=False))
    assert status == 200, reply
    return summary([reply["choices"][0]])


def test_plan_counts_groups(sliding):
    small = plan(sliding, "--max-num-batched-tokens", "16", "--num-gpu-blocks-override", "80")
    assert small["num_kv_cache_groups"] == 3
    # Two layers of 2 kv heads of 12 elements, K and V, float32.
    assert small["block_bytes"] == 2 * 2 * 2 * 12 * 4 * 16
    assert small["kv_cache_bytes"] == 80 * small["block_bytes"]
    assert small["max_concurrency"] == 80 / FULL_LENGTH_BLOCKS
    assert small["kv_cache_tokens"] == 2 * 512
    # A step of 2048 may hold the whole sequence, so for that moment everything is kept.
    large = plan(sliding, "--num-gpu-blocks-override", "96")
    assert large["max_concurrency"] == 1
    # Nothing lies outside of the window: one group of all layers.
    short = plan(sliding, "--max-model-len", "24", "--num-gpu-blocks-override", "96")
    assert short["num_kv_cache_groups"] == 1
    assert short["block_bytes"] == 3 * small["block_bytes"]


def test_plan_refuses_by_groups(sliding):
    done = run_plan(sliding, "--max-num-batched-tokens", "16", "--num-gpu-blocks-override",
                    str(FULL_LENGTH_BLOCKS - 1))
    assert done.returncode != 0
    assert "the longest length that fits is 496" in done.stderr
    assert "--max-num-batched-tokens" in done.stderr


def test_decoding_equals_recomputing(sliding, roomy, start_server):
    """Each token of an answer has the log-probability that it has as part of a prompt."""
    cut = start_server(sliding, "--max-num-batched-tokens", "16", "--num-gpu-blocks-override",
                       str(FULL_LENGTH_BLOCKS))
    prompt = [1 + i * i % 500 for i in range(150)]
    body = {"prompt": prompt, "max_tokens": 300, "temperature": 0, "ignore_eos": True,
            "logprobs": 0, "return_tokens_as_token_ids": True}
    choice = cut.post("/v1/completions", body)[1]["choices"][0]
    ids = [int(t.split(":")[1]) for t in choice["logprobs"]["tokens"]]
    assert len(ids) == 300
    whole = {"prompt": prompt + ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    rows = roomy.post("/v1/completions", whole)[1]["choices"][0]["prompt_logprobs"]
    for got, row, token in zip(choice["logprobs"]["token_logprobs"], rows[150:], ids):
        assert row[str(token)]["logprob"] == got


@pytest.mark.parametrize("spare_blocks", [0, 20])
def test_long_context_in_a_small_cache(sliding, roomy, start_server, spare_blocks):
    """All positions of all layers would take three tables of 32 blocks."""
    server = start_server(sliding, "--max-num-batched-tokens", "16", "--num-gpu-blocks-override",
                          str(FULL_LENGTH_BLOCKS + spare_blocks))
    body = {"prompt": [7 + i % 300 for i in range(450)], "max_tokens": 62, "temperature": 0,
            "ignore_eos": True, "logprobs": 2}
    expected = answer(roomy, body)
    assert answer(server, body) == expected
    assert server.metric("vllm:prefix_cache_hits_total") == 0
    # Again, with what is left in the cache: where blocks were spare, the window of the prompt's end.
    assert answer(server, body) == expected
    assert server.metric("vllm:prefix_cache_hits_total") == (448 if spare_blocks else 0)
    server.wait_idle()


def test_length_costs_nothing_where_every_layer_slides(start_server):
    model = generated("all_sliding")
    roomy = start_server(model, "--no-enable-prefix-caching", "--kv-cache-memory-bytes", "64M")
    server = start_server(model, "--max-num-batched-tokens", "16", "--num-gpu-blocks-override", "4")
    body = {"prompt": [7 + i % 300 for i in range(400)], "max_tokens": 100, "temperature": 0,
            "ignore_eos": True, "logprobs": 2}
    expected = answer(roomy, body)
    for _ in range(2):
        assert answer(server, body) == expected
    server.wait_idle()


@pytest.fixture(scope="module")
def alone(roomy):
    answers = {}
    for body, _ in make_requests(SEED, 48):
        if key(body) not in answers:
            answers[key(body)] = answer(roomy, body)
    return answers


SEED = 5


@pytest.mark.parametrize("prefix", ["--enable-prefix-caching", "--no-enable-prefix-caching"])
@pytest.mark.parametrize("budget, blocks", [("16", "44"), ("512", "100")])
def test_48_clients(start_server, sliding, alone, prefix, budget, blocks):
    """Batched, cut into chunks, preempted, found in the cache, beside others that are cancelled."""
    server = start_server(sliding, prefix, "--max-num-batched-tokens", budget,
                          "--max-num-seqs", "16", "--num-gpu-blocks-override", blocks)
    requests = make_requests(SEED, 48)
    # How many are there at once depends on the clients' pace: they come until it was too many.
    for wave in range(10):
        answers = asyncio.run(run_all(server.url, requests, SEED + wave))
        finished = 0
        for (body, _), got in zip(requests, answers):
            if got is not None:
                assert got == alone[key(body)], body
                finished += 1
        assert finished >= 24
        server.wait_idle()
        if server.metric("vllm:num_preemptions_total") > 0:
            break
    assert server.metric("vllm:num_preemptions_total") > 0
    if prefix == "--enable-prefix-caching":
        assert server.metric("vllm:prefix_cache_hits_total") > 0


# --- dtypes of 8 bits ------------------------------------------------------------------------------

TEXT = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball. She wanted to play with it, but it was too high. Lily's mom "
        "said, \"Lily, let's go to the park.\" Lily was sad and did not know what to do. Tim and Sue "
        "were best friends. They liked to play in the garden behind the old house. The dog ran away "
        "and the cat sat under the tree. ")


def test_bytes_of_dtypes(sliding):
    """2 layers, 2 kv heads, K and V, 16 tokens of 12 elements; int8 with a float per token."""
    for dtype, token_bytes in [("float32", 48), ("float16", 24), ("fp8", 12), ("int8", 12 + 4)]:
        p = plan(sliding, "--kv-cache-dtype", dtype, "--num-gpu-blocks-override", "96")
        assert p["block_bytes"] == 2 * 2 * 2 * 16 * token_bytes, dtype


@pytest.mark.parametrize("dtype", ["fp8", "int8"])
def test_same_bits_with_8_bits(sliding, start_server, dtype):
    whole = start_server(sliding, "--kv-cache-dtype", dtype, "--no-enable-prefix-caching",
                         "--kv-cache-memory-bytes", "8M")
    cut = start_server(sliding, "--kv-cache-dtype", dtype, "--max-num-batched-tokens", "16",
                       "--num-gpu-blocks-override", str(FULL_LENGTH_BLOCKS + 20))
    body = {"prompt": [7 + i * i % 300 for i in range(400)], "max_tokens": 80, "temperature": 0,
            "ignore_eos": True, "logprobs": 2}
    expected = answer(whole, body)
    for _ in range(2):
        assert answer(cut, body) == expected
    assert cut.metric("vllm:prefix_cache_hits_total") > 0


def prompt_logprobs(model, dtype, prompt=TEXT):
    server = Server(model, "--kv-cache-dtype", dtype, "--kv-cache-memory-bytes", "16M")
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    rows = server.post("/v1/completions", body)[1]["choices"][0]["prompt_logprobs"][1:]
    assert server.stop() == 0
    return [next(iter(row.values()))["logprob"] for row in rows]


# Mean difference of a token's log-probability from that with a float32 cache; measured are 0.00058,
# 0.0044, 0.063 and 0.023.
@pytest.mark.parametrize("dtype, bound", [("float16", 0.0015), ("bfloat16", 0.01), ("fp8", 0.1),
                                          ("int8", 0.04)])
def test_error_of_dtypes(shared_models, dtype, bound):
    exact = prompt_logprobs(shared_models / "stories260K", "float32")
    rough = prompt_logprobs(shared_models / "stories260K", dtype)
    mean = sum(abs(a - b) for a, b in zip(exact, rough)) / len(exact)
    assert 0 < mean < bound
    # Perplexity within 1.5 %.
    assert abs(sum(rough) - sum(exact)) / len(exact) < 0.015


def test_scales_of_the_checkpoint(tiny_model, tmp_path):
    """Of use to an fp8 cache only; so large a scale leaves few values, and its error shows."""
    subprocess.run([sys.executable, str(MAKE_TINY), str(tmp_path / "scaled"), "--kv-scale", "1000"],
                   check=True)
    prompt = [7 + i * i % 300 for i in range(60)]
    plain, scaled = (
        {dtype: prompt_logprobs(model, dtype, prompt) for dtype in ("float32", "fp8")}
        for model in (tiny_model, tmp_path / "scaled"))
    assert scaled["float32"] == plain["float32"]

    def error(rough):
        return sum(abs(a - b) for a, b in zip(rough, plain["float32"])) / len(rough)

    assert 0 < 4 * error(plain["fp8"]) < error(scaled["fp8"])
