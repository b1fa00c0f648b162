"""A wrong model or option: one line that names what is wrong, exit code 1, no partial start."""
import json
import os
import shutil
import struct

import pytest

from conftest import free_port, run_inferd


def serve_fails(model, *args):
    result = run_inferd("serve", model, "--host", "127.0.0.1", "--port", free_port(), *args)
    assert result.returncode == 1, result.stderr
    errors = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.fixture
def copy(model_dir, tmp_path):
    target = tmp_path / "model"
    shutil.copytree(model_dir, target)
    for f in target.rglob("*"):
        os.chmod(f, 0o644)
    os.chmod(target, 0o755)
    return target


def edit_config(model, **changes):
    path = model / "config.json"
    config = json.loads(path.read_text())
    for k, v in changes.items():
        if v is None:
            config.pop(k, None)
        else:
            config[k] = v
    path.write_text(json.dumps(config))


def test_no_such_directory(tmp_path):
    assert "nowhere" in serve_fails(tmp_path / "nowhere")


def test_not_a_model(tmp_path):
    assert "config.json" in serve_fails(tmp_path)


def test_unknown_architecture(copy):
    edit_config(copy, architectures=["FooForCausalLM"])
    message = serve_fails(copy)
    assert "FooForCausalLM" in message and "LlamaForCausalLM" in message


def test_unknown_activation(copy):
    edit_config(copy, hidden_act="wobble")
    message = serve_fails(copy)
    assert "hidden_act" in message and "wobble" in message


def test_truncated_weights(copy):
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "model.safetensors" in serve_fails(copy)


def test_empty_weights(copy):
    (copy / "model.safetensors").write_bytes(b"")
    assert "model.safetensors" in serve_fails(copy)


def test_lying_header_length(copy):
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    assert "model.safetensors" in serve_fails(copy)


def rewrite_header(model, change):
    path = model / "model.safetensors"
    data = path.read_bytes()
    (n,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n])
    change(header)
    blob = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(blob)) + blob + data[8 + n:])


def test_offsets_out_of_the_file(copy):
    def change(h):
        h["model.norm.weight"]["data_offsets"] = [1 << 40, (1 << 40) + 256]
    rewrite_header(copy, change)
    assert "model.norm.weight" in serve_fails(copy)


def test_missing_tensor(copy):
    def change(h):
        h["surplus.weight"] = h.pop("model.norm.weight")
    rewrite_header(copy, change)
    message = serve_fails(copy)
    assert "model.norm.weight" in message or "surplus.weight" in message


def test_wrong_shape(copy):
    edit_config(copy, intermediate_size=100)
    message = serve_fails(copy)
    assert "mlp" in message


def test_wrong_tokenizer(copy):
    (copy / "tokenizer.model").write_bytes(b"not a sentencepiece model" * 10)
    (copy / "tokenizer.json").unlink(missing_ok=True)
    assert "tokenizer.model" in serve_fails(copy)


def test_unknown_option_and_ranges(model_dir):
    result = run_inferd("serve", model_dir, "--max-modle-len", "5")
    assert result.returncode != 0 and "--max-modle-len" in result.stderr
    result = run_inferd("serve", model_dir, "--port", "70000")
    assert result.returncode != 0
    assert "port" in result.stderr and "70000" in result.stderr and "65535" in result.stderr


def test_a_plan_that_cannot_hold_one_request(model_dir):
    message = serve_fails(model_dir, "--kv-cache-memory-bytes", "50000")
    assert "max_model_len" in message and "50000" in message


def test_max_model_len_over_the_model(model_dir):
    assert "max-model-len" in serve_fails(model_dir, "--max-model-len", "100000")


def plan(model, *args):
    result = run_inferd("plan", model, "--json", *args)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_plan_equals_what_serve_takes(start_server, model_dir):
    args = ["--kv-cache-memory-bytes", "8000000", "--max-num-seqs", "8"]
    expected = plan(model_dir, *args)
    log = start_server(model_dir, *args).read_log()
    line = next(x for x in log.splitlines() if "memory plan" in x)
    for key, label in [("weights_bytes", "weights"), ("activation_bytes", "activations"),
                       ("workspace_bytes", "workspace"), ("batch_bytes", "batch"),
                       ("kv_cache_bytes", "KV cache")]:
        assert f"{label} {expected[key]}" in line, (label, line)
    assert f"{expected['num_blocks']} blocks of 16 tokens" in line
    assert expected["num_blocks"] == 8000000 // expected["block_bytes"]


def test_plan_budget(model_dir):
    p = plan(model_dir, "--gpu-memory-utilization", "0.01", "--max-num-seqs", "4096",
             "--max-num-batched-tokens", "4096")
    fixed = sum(p[k] for k in ("weights_bytes", "activation_bytes", "workspace_bytes", "batch_bytes"))
    budget = int(p["memory_available_bytes"] * 0.01) - fixed
    useful = -(-p["max_model_len"] // p["block_size"]) * 4096
    assert p["num_blocks"] == min(budget // p["block_bytes"], useful)
