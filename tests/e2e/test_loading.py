"""While the model loads: health says what is being done, requests are refused, a signal stops it."""
import json
import signal
import time

import pytest

from conftest import SLOW

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
          "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
          "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000,
          "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
          "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 1,
          "eos_token_id": 2}


@pytest.fixture
def loading(start_server, tmp_path):
    """A daemon that takes a second or more to make 400 million random weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    server = start_server(tmp_path, "--load-format", "dummy", "--kv-cache-memory-bytes", "256M",
                          wait=False)
    end = time.time() + 20 * SLOW
    while time.time() < end:
        try:
            server.get("/livez")
            return server
        except OSError:
            time.sleep(0.005)
    raise AssertionError(server.read_log())


def test_health_names_the_stage(loading):
    seen = set()
    end = time.time() + 120 * SLOW
    while time.time() < end:
        status, text = loading.get("/health")
        if status == 200:
            break
        assert status == 503
        message = json.loads(text)["error"]["message"]
        assert message.startswith("loading: ")
        seen.add(message)
        assert loading.get("/livez")[0] == 200
        status, body = loading.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1})
        assert status in (200, 503)
        if status == 503:
            assert set(body["error"]) == {"message", "type", "param", "code"}
        time.sleep(0.01)
    assert "loading: weights" in seen
    status, body = loading.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 2})
    assert status == 200 and body["usage"]["completion_tokens"] == 2
    status, body = loading.post("/v1/completions", {"prompt": "text", "max_tokens": 2})
    assert status == 501 and "tokenizer" in body["error"]["message"]


def test_sigterm_while_loading(loading):
    loading.process.send_signal(signal.SIGTERM)
    assert loading.stop(timeout=30) == 0
