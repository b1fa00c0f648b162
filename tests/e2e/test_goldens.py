"""The trained model against the float64 reference: ids, greedy tokens, log-probabilities."""
import json
import math

import pytest

from conftest import Server

FOLDERS = [("stories260K", "goldens.json", []),
           ("stories260K-sharded", "goldens.json", []),
           ("stories260K-bf16", "goldens-bf16.json", ["--dtype", "float32"])]


@pytest.fixture(scope="module", params=FOLDERS, ids=[f[0] for f in FOLDERS])
def golden(request, shared_models):
    folder, goldens, args = request.param
    server = Server(shared_models / folder, "--return-tokens-as-token-ids",
                    "--kv-cache-memory-bytes", "64M", *args)
    yield server, json.loads((shared_models / goldens).read_text())
    assert server.stop() == 0


def log_softmax(logits):
    top = max(logits)
    total = math.log(sum(math.exp(x - top) for x in logits)) + top
    return [x - total for x in logits]


def token_id(text):
    assert text.startswith("token_id:")
    return int(text[9:])


def test_ids(golden):
    server, goldens = golden
    for case in goldens["prompts"]:
        status, body = server.post("/tokenize", {"prompt": case["prompt"]})
        assert status == 200
        assert body["tokens"] == case["ids"], case["name"]
        assert body["count"] == len(case["ids"])


def test_greedy_tokens_and_text(golden):
    server, goldens = golden
    for case in goldens["prompts"]:
        room = 512 - len(case["ids"])
        n = min(64, room)
        body = server.complete(case["prompt"], max_tokens=n, ignore_eos=True, logprobs=0,
                               skip_special_tokens=True)
        choice = body["choices"][0]
        got = [token_id(t) for t in choice["logprobs"]["tokens"]]
        assert got == case["greedy_ids"][:n], case["name"]
        assert body["usage"]["prompt_tokens"] == len(case["ids"])
        assert body["usage"]["completion_tokens"] == n
        if case["name"] == "once":
            assert choice["text"] == case["greedy_text"]


def test_first_logprobs(golden):
    server, goldens = golden
    for case in goldens["prompts"]:
        expected = log_softmax(case["logits"])
        choice = server.complete(case["prompt"], max_tokens=1, ignore_eos=True, logprobs=5)["choices"][0]
        top = {token_id(t): p for t, p in choice["logprobs"]["top_logprobs"][0].items()}
        assert set(case["top5"]) <= set(top), case["name"]
        for i, p in top.items():
            assert abs(p - expected[i]) < 1e-4, (case["name"], i)


def test_prompt_logprobs_sum(golden):
    server, goldens = golden
    perplexity = goldens["perplexity"]
    cases = perplexity if isinstance(perplexity, list) else [perplexity]
    for case in cases:
        prompt = case.get("ids") or case.get("text") or case.get("prompt")
        body = server.complete(prompt, max_tokens=0, echo=True, logprobs=0)
        values = body["choices"][0]["logprobs"]["token_logprobs"]
        assert values[0] is None
        assert abs(sum(values[1:]) - case["sum_logprob"]) < 0.01
        assert body["usage"]["completion_tokens"] == 0


def test_bf16_stays_near(shared_models):
    goldens = json.loads((shared_models / "goldens-bf16.json").read_text())
    server = Server(shared_models / "stories260K-bf16", "--return-tokens-as-token-ids",
                    "--kv-cache-memory-bytes", "64M")
    try:
        assert "bfloat16" in server.read_log()
        for case in goldens["prompts"]:
            expected = log_softmax(case["logits"])
            choice = server.complete(case["prompt"], max_tokens=1, ignore_eos=True,
                                     logprobs=20)["choices"][0]
            top = {token_id(t): p for t, p in choice["logprobs"]["top_logprobs"][0].items()}
            for i in case["top5"]:
                assert abs(top[i] - expected[i]) < 0.06, (case["name"], i)
    finally:
        assert server.stop() == 0
