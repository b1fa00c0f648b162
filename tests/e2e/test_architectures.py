"""Models whose KV cache is not the plain one, through the whole daemon: transformers' greedy tokens from
tests/golden/arch, chunked and whole, and the same bits behind a cached prefix."""
import json
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
from golden_model import write_checkpoint  # noqa: E402

GOLDENS = ROOT / "tests" / "golden" / "arch"


def greedy(server, ids):
    body = server.complete(ids, max_tokens=32, ignore_eos=True, logprobs=3, return_token_ids=True)
    choice = body["choices"][0]
    return choice["token_ids"], choice["logprobs"], body["usage"]["prompt_tokens_details"]


# Layers that slide and layers that do not; latents.
@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3"])
def test_golden_tokens(start_server, tmp_path, name):
    golden = json.loads((GOLDENS / f"{name}.json").read_text())
    write_checkpoint(tmp_path, golden)
    options = ["--num-gpu-blocks-override", "64", "--enable-prompt-tokens-details"]
    chunked = start_server(tmp_path, *options, "--max-num-batched-tokens", "16")
    whole = start_server(tmp_path, *options, "--no-enable-prefix-caching")
    for prompt in golden["prompts"]:
        ids = prompt["ids"]
        tokens, logprobs, _ = greedy(whole, ids)
        assert tokens == prompt["greedy_ids"]
        assert greedy(chunked, ids)[:2] == (tokens, logprobs)
        again = greedy(chunked, ids)
        assert again[:2] == (tokens, logprobs)
        blocks = (len(ids) - 1) // 16
        assert not blocks or again[2]["cached_tokens"] == 16 * blocks
