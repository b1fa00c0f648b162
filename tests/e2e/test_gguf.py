"""A model served from a GGUF file: the same answers as from Hugging Face's layout, its template and
ends of answers from its keys; files that are cut off or hit by a wrong byte give one line each."""
import random
import subprocess
import sys

import pytest

from conftest import ROOT
from test_startup_errors import serve_fails

TEMPLATE = ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}")
SMALL = ("--kv-cache-memory-bytes", "32M", "--num-threads", "1")
PROMPTS = ["The keeper", "One winter the storm", "12 ships"]
EOS = 2


@pytest.fixture(scope="module")
def make_gguf(tiny_model, tmp_path_factory):
    def make(*options, name="model.gguf"):
        target = tmp_path_factory.mktemp("gguf") / name
        subprocess.run([sys.executable, str(ROOT / "tests" / "fixtures" / "make_gguf.py"),
                        str(tiny_model), str(target), *options], check=True)
        return target
    return make


def answers(server):
    return [server.complete(p, max_tokens=12)["choices"][0]["text"] for p in PROMPTS]


def test_same_answers_as_safetensors(tiny_model, make_gguf, start_server):
    expected = answers(start_server(tiny_model, *SMALL))
    single = make_gguf("--template", TEMPLATE)
    server = start_server(single, *SMALL)
    assert answers(server) == expected
    status, body = server.post("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]})
    assert status == 200 and body["prompt"] == "<user>Hi<assistant>"
    assert server.post("/tokenize", {"prompt": "The lamp"})[1]["tokens"][0] == 1
    # A directory with one split model in it, in the older version of the format.
    split = make_gguf("--splits", "3", "--version", "2")
    assert answers(start_server(split.parent, *SMALL)) == expected


def test_eos_ends_an_answer(make_gguf, start_server):
    server = start_server(make_gguf("--types", "Q8_0"), *SMALL)
    forced = server.complete("The", max_tokens=5, logit_bias={str(EOS): 100})
    assert forced["choices"][0]["finish_reason"] == "stop"
    assert forced["choices"][0]["text"] == ""
    on = server.complete("The", max_tokens=5, logit_bias={str(EOS): 100}, ignore_eos=True)
    assert on["choices"][0]["finish_reason"] == "length"


def test_load_format(tiny_model, make_gguf):
    assert "no .gguf file" in serve_fails(tiny_model, "--load-format", "gguf")
    assert "neither a directory" in serve_fails(make_gguf(), "--load-format", "safetensors")


def test_several_models_in_one_directory(make_gguf):
    first = make_gguf(name="a.gguf")
    (first.parent / "b.gguf").write_bytes(first.read_bytes())
    message = serve_fails(first.parent)
    assert "holds 2 GGUF models, 'a.gguf' and 'b.gguf'" in message


def test_cut_off(make_gguf, tmp_path):
    whole = make_gguf().read_bytes()
    damaged = tmp_path / "cut.gguf"
    for share in (0.0001, 0.01, 0.05, 0.5, 0.999):
        damaged.write_bytes(whole[:max(1, int(len(whole) * share))])
        assert "cut.gguf" in serve_fails(damaged)


def test_wrong_bytes(make_gguf, tmp_path, start_server):
    """Any byte of the head may be wrong: the daemon serves, or says in one line why it does not."""
    whole = make_gguf().read_bytes()
    damaged = tmp_path / "wrong.gguf"
    draw = random.Random(1)
    head = whole.index(b"blk.0.attn_k") + 200
    for _ in range(24):
        data = bytearray(whole)
        data[draw.randrange(4, head)] ^= 1 << draw.randrange(8)
        damaged.write_bytes(data)
        try:
            server = start_server(damaged, *SMALL)
        except RuntimeError as refused:
            errors = [line for line in str(refused).splitlines() if " ERROR " in line]
            assert len(errors) == 1, str(refused)
        else:
            assert server.stop() == 0
