"""`inferd plan` prints the bytes that `inferd serve` then takes, whatever the weights' format."""
import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from conftest import ROOT, Server, run_inferd

COMMON = ["--max-num-seqs", "4", "--kv-cache-memory-bytes", "4M"]
QUANTIZED = ROOT / "tests" / "golden" / "quant"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint in bfloat16, one in float32 whose head is its own, and quantized ones."""
    root = tmp_path_factory.mktemp("plan")
    for name, options in {"bf16": ["--dtype", "bfloat16"], "untied": ["--preset", "untied"]}.items():
        subprocess.run([sys.executable, ROOT / "tests" / "fixtures" / "make_tiny.py", root / name,
                        *options], check=True)
    words = {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1, "b": 2}}
    for name in ("gptq_4bit_g32_sym", "fp8_block", "bnb_nf4"):
        shutil.copytree(QUANTIZED / name, root / name)
        (root / name / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    return root


def models(tiny):
    yield tiny / "bf16", []
    yield tiny / "bf16", ["--dtype", "float16", "--kv-cache-dtype", "int8"]
    yield tiny / "untied", []
    for name in ("gptq_4bit_g32_sym", "fp8_block", "bnb_nf4"):
        yield tiny / name, []


def run_plan(model, *args):
    return run_inferd("plan", model, *args)


def planned(model, args):
    run = run_plan(model, "--json", *COMMON, *args)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_what_is_planned_is_taken(tiny):
    formats = set()
    for model, args in models(tiny):
        plan = planned(model, args)
        server = Server(model, *COMMON, *args)
        try:
            taken = re.search(r"memory taken: (\d+) bytes, planned: (\d+)", server.read_log())
        finally:
            assert server.stop() == 0
        assert taken and int(taken[1]) == int(taken[2]) == plan["total_bytes"], (model, args)
        assert sum(plan["weights_by_format"].values()) == plan["weights_bytes"]
        formats |= set(plan["weights_by_format"])
    assert len(formats) >= 6, formats


def test_mapped_weights_count_too(tiny, tmp_path):
    model, args = tiny / "bf16", ["--packed-weights-cache", str(tmp_path)]
    plan = planned(model, args)
    for expected in ("packed weights kept", "mapped and checked"):
        server = Server(model, *COMMON, *args)
        _, answer = server.post("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 8,
                                                 "temperature": 0, "ignore_eos": True})
        text = wait_for(server, expected)
        assert server.stop() == 0
        assert re.search(rf"memory taken: {plan['total_bytes']} bytes", text)
        answers = answers_of(answer) if expected == "packed weights kept" else answers
        assert answers_of(answer) == answers


def answers_of(answer):
    return answer["choices"][0]["text"]


def wait_for(server, text):
    for _ in range(200):
        log = server.read_log()
        if text in log:
            return log
        time.sleep(0.05)
    raise AssertionError(f"no '{text}' in: {log}")


def test_what_would_fit_is_said(tiny):
    run = run_plan(tiny / "bf16", "--num-gpu-blocks-override", "3")
    assert run.returncode == 1 and run.stdout == ""
    assert "it fits with no --kv-cache-memory-bytes or --num-gpu-blocks-override" in run.stderr
    assert "the longest length that fits is 48" in run.stderr


def write_shape(path):
    """Llama-3.1-8B's sizes."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16"}))
    return path


def test_gpus_that_are_not_here(tmp_path):
    shape = write_shape(tmp_path / "8b")
    run = run_plan(shape, "--load-format", "dummy", "--device", "H100", "--json")
    assert run.returncode == 0, run.stderr
    plan = json.loads(run.stdout)
    assert plan["weights_by_format"]["bfloat16"] == 2 * 8029995008  # its linears' parameters
    assert plan["total_bytes"] <= 0.92 * plan["memory_total_bytes"]
    assert plan["kv_cache_bytes_per_token"] == 2 * 32 * 8 * 128 * 2
    assert plan["longest_len"] == 131072 and plan["max_concurrency"] > 3

    run = run_plan(shape, "--load-format", "dummy", "--device", "l4")
    assert run.returncode == 1 and "the longest length that fits is" in run.stderr
    assert "it fits with --max-model-len 4096" in run.stderr

    run = run_plan(shape, "--load-format", "dummy", "--device", "tpu")
    assert run.returncode == 1 and "A100-80G" in run.stderr

    with pytest.raises(RuntimeError, match="is for `inferd plan`"):
        Server(shape, "--load-format", "dummy", "--device", "RTX 4090")
