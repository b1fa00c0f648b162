"""The same bits for the same request, whatever else the server does."""
import asyncio
import json
import random

import httpx
import pytest

from conftest import SLOW

PROMPTS = [
    "Once upon a time",
    "One day, Lily met a Shoggoth",
    "The little dog ran to the park and saw a big red ball. " * 3,
    "Tim and Sue were best friends. They liked to play in the garden behind the old house. " * 4,
    "a",
    "\"Can I play with you?\" asked Ben. Mia smiled and",
]


def make_requests(seed, count):
    """Bodies of mixed lengths; half of them to be cancelled midway, a few of them sampled."""
    rng = random.Random(seed)
    bodies = []
    for i in range(count):
        prompt = rng.choice(PROMPTS)
        if rng.random() < 0.5:
            prompt = prompt + rng.choice([" The", " And then", " It was", ""])
        body = {"prompt": prompt, "max_tokens": rng.choice([1, 7, 30, 60, 120]), "temperature": 0,
                "ignore_eos": True, "logprobs": 2, "stream": rng.random() < 0.5}
        if rng.random() < 0.2:
            body.update(temperature=0.9, top_p=0.9, seed=rng.randrange(1 << 40))
        if rng.random() < 0.2:
            body.update(repetition_penalty=1.2, presence_penalty=0.3)
        bodies.append((body, i % 2 == 1))
    return bodies


def key(body):
    return json.dumps({k: v for k, v in body.items() if k != "stream"}, sort_keys=True)


def summary(choices):
    """Text, tokens and log-probabilities of all chunks joined: what must be equal bit for bit."""
    text = "".join(c["text"] for c in choices)
    tokens, logprobs, top = [], [], []
    for c in choices:
        if c.get("logprobs"):
            tokens += c["logprobs"]["tokens"]
            logprobs += c["logprobs"]["token_logprobs"]
            top += c["logprobs"]["top_logprobs"]
    finish = [c["finish_reason"] for c in choices if c["finish_reason"]]
    return text, tokens, logprobs, top, finish


async def run_one(client, url, body, cancel, rng):
    if not body["stream"]:
        post = client.post(url + "/v1/completions", json=body)
        if cancel:
            try:
                await asyncio.wait_for(post, timeout=rng.uniform(0.001, 0.2))
            except (asyncio.TimeoutError, httpx.HTTPError):
                pass
            return None
        response = await post
        assert response.status_code == 200, response.text
        return summary([response.json()["choices"][0]])
    choices, stop_after = [], rng.randrange(1, 10)
    async with client.stream("POST", url + "/v1/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                break
            choices.append(json.loads(line[6:])["choices"][0])
            if cancel and len(choices) >= stop_after:
                return None
    return summary(choices)


async def run_all(url, requests, seed):
    rng = random.Random(seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=300 * SLOW, limits=limits) as client:
        return await asyncio.gather(*(run_one(client, url, b, c, rng) for b, c in requests))


@pytest.fixture(scope="module")
def alone(model_dir):
    """Each distinct request answered with nothing else running and nothing cached."""
    from conftest import Server
    server = Server(model_dir, "--no-enable-prefix-caching", "--kv-cache-memory-bytes", "64M")
    answers = {}
    for seed in SEEDS:
        for body, _ in make_requests(seed, 64):
            if key(body) not in answers:
                plain = dict(body, stream=False)
                status, reply = server.post("/v1/completions", plain)
                assert status == 200, reply
                answers[key(body)] = summary([reply["choices"][0]])
    assert server.stop() == 0
    return answers


def check_answers(requests, answers, alone):
    """Of those that were not cancelled, at least half."""
    finished = 0
    for (body, _), answer in zip(requests, answers):
        if answer is not None:
            assert answer == alone[key(body)], body
            finished += 1
    assert finished >= len(requests) // 2


SEEDS = [11]


@pytest.mark.parametrize("prefix", ["--enable-prefix-caching", "--no-enable-prefix-caching"])
@pytest.mark.parametrize("budget", ["16", "64", "2048"])
@pytest.mark.parametrize("ahead", ["--no-async-scheduling", "--async-scheduling"])
@pytest.mark.parametrize("seed", SEEDS)
def test_64_clients(start_server, model_dir, alone, prefix, budget, ahead, seed):
    # A block is 16 tokens: 36 hold one full-length request and little more, so that preemption is certain.
    server = start_server(model_dir, prefix, "--max-num-batched-tokens", budget, ahead,
                          "--max-num-seqs", "16", "--num-gpu-blocks-override", "36")
    server.complete("warm up", max_tokens=2)
    server.wait_idle()
    threads, fds = server.num_threads(), server.num_fds()
    requests = make_requests(seed, 64)
    answers = asyncio.run(run_all(server.url, requests, seed))
    check_answers(requests, answers, alone)
    server.wait_idle()
    assert server.metric("vllm:num_preemptions_total") > 0
    assert server.num_threads() <= threads + 2
    assert server.num_fds() <= fds + 2


@pytest.mark.parametrize("prefix,budget", [("--enable-prefix-caching", "16"),
                                           ("--no-enable-prefix-caching", "2048")])
def test_64_clients_with_drafts(start_server, model_dir, alone, prefix, budget):
    """Right and wrong drafts, of which some lead beyond a stop, and preemptions among them."""
    ngram = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    server = start_server(model_dir, prefix, "--max-num-batched-tokens", budget, "--max-num-seqs", "16",
                          "--num-gpu-blocks-override", "36", "--speculative-config", json.dumps(ngram))
    requests = make_requests(SEEDS[0], 64)
    answers = asyncio.run(run_all(server.url, requests, SEEDS[0]))
    check_answers(requests, answers, alone)
    server.wait_idle()
    assert server.metric("vllm:num_preemptions_total") > 0
    drafted = server.metric("vllm:spec_decode_num_draft_tokens_total")
    accepted = server.metric("vllm:spec_decode_num_accepted_tokens_total")
    assert 0 < accepted < drafted <= 4 * server.metric("vllm:spec_decode_num_drafts_total")


def test_same_seed_same_sample(server):
    body = {"prompt": "Once upon", "temperature": 1.0, "seed": 7, "max_tokens": 30}
    a = server.post("/v1/completions", body)[1]["choices"][0]["text"]
    b = server.post("/v1/completions", body)[1]["choices"][0]["text"]
    c = server.post("/v1/completions", dict(body, seed=8))[1]["choices"][0]["text"]
    assert a == b
    assert a != c
