"""The API as its users see it: the official client, and the exact bodies of errors and streams."""
import json
import math
import socket
import struct
import threading

import openai
import pytest

from conftest import CHAT_TEMPLATE, SLOW


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0,
                         timeout=60 * SLOW)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


# --- the official client ---------------------------------------------------------------------------

def test_models(client, model, server):
    status, body = server.get("/v1/models")[0], json.loads(server.get("/v1/models")[1])
    assert status == 200 and body["object"] == "list"
    assert body["data"][0]["max_model_len"] > 0
    assert client.models.retrieve(model).id == model


def test_completion(client, model):
    r = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8,
                                  temperature=0)
    assert r.object == "text_completion" and r.id.startswith("cmpl-")
    assert r.choices[0].finish_reason in ("length", "stop")
    assert r.usage.completion_tokens <= 8
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens


def test_stream_equals_whole(client, model):
    kw = dict(model=model, prompt="Once upon a time", max_tokens=40, temperature=0)
    whole = client.completions.create(**kw).choices[0].text
    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **kw))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert len({c.id for c in chunks}) == 1


def test_prompt_forms(client, model, server):
    ids = server.post("/tokenize", {"prompt": "Once upon a time"})[1]["tokens"]
    kw = dict(model=model, max_tokens=6, temperature=0)
    one = client.completions.create(prompt="Once upon a time", **kw)
    by_ids = client.completions.create(prompt=ids, **kw)
    many = client.completions.create(prompt=["Once upon a time", "One day"], **kw)
    lists = client.completions.create(prompt=[ids, ids[:3]], **kw)
    assert one.choices[0].text == by_ids.choices[0].text == many.choices[0].text
    assert lists.choices[0].text == one.choices[0].text
    assert [c.index for c in many.choices] == [0, 1]


def test_n_and_echo(client, model):
    r = client.completions.create(model=model, prompt=["Once", "One"], n=3, max_tokens=4,
                                  temperature=1.0, seed=3, echo=True)
    assert [c.index for c in r.choices] == list(range(6))
    assert all(c.text.startswith("Once") for c in r.choices[:3])
    assert all(c.text.startswith("One") for c in r.choices[3:])


def test_streamed_choices_interleave(client, model):
    seen = {}
    for chunk in client.completions.create(model=model, prompt=["Once", "One"], n=2, max_tokens=12,
                                           temperature=1.0, seed=3, stream=True):
        c = chunk.choices[0]
        seen.setdefault(c.index, []).append(c)
    assert set(seen) == {0, 1, 2, 3}
    assert all(v[-1].finish_reason for v in seen.values())


def test_chat(client, model):
    messages = [{"role": "user", "content": "Tell me a story"}]
    kw = dict(model=model, messages=messages, max_tokens=20, temperature=0)
    r = client.chat.completions.create(logprobs=True, top_logprobs=3, **kw)
    assert r.id.startswith("chatcmpl-") and r.choices[0].message.role == "assistant"
    content = r.choices[0].logprobs.content
    assert len(content) == r.usage.completion_tokens
    assert all(len(c.top_logprobs) == 3 for c in content)
    assert all(bytes(c.bytes).decode(errors="replace") == c.token or c.bytes for c in content)
    chunks = list(client.chat.completions.create(stream=True, **kw))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == r.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == r.choices[0].finish_reason


def test_chat_content_parts(client, model):
    def ask(content):
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": content}], max_tokens=5,
            temperature=0).choices[0].message.content
    assert ask("Hello there") == ask([{"type": "text", "text": "Hello there"}])


def test_stop_string(server):
    text = server.complete("Once upon a time", max_tokens=60, ignore_eos=True)["choices"][0]["text"]
    stop = text[17:22]
    cut = server.complete("Once upon a time", max_tokens=60, ignore_eos=True, stop=[stop, "zzzz"])
    assert cut["choices"][0]["text"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["stop_reason"] == stop
    kept = server.complete("Once upon a time", max_tokens=60, ignore_eos=True, stop=stop,
                           include_stop_str_in_output=True)
    assert kept["choices"][0]["text"] == text[: text.index(stop) + len(stop)]


def test_stop_token_ids_and_min_tokens(server):
    body = server.complete("Once upon a time", max_tokens=10, ignore_eos=True, logprobs=0)
    ids = server.post("/tokenize", {"prompt": body["choices"][0]["text"], "add_special_tokens": False})
    assert ids[0] == 200
    full = server.post("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 10,
                                           "temperature": 0, "return_token_ids": True,
                                           "ignore_eos": True})[1]["choices"][0]["token_ids"]
    r = server.complete("Once upon a time", max_tokens=10, stop_token_ids=[full[3]], ignore_eos=True)
    assert r["usage"]["completion_tokens"] <= 4
    assert r["choices"][0]["stop_reason"] == full[3]
    r = server.complete("Once upon a time", max_tokens=10, stop_token_ids=[full[3]], min_tokens=8,
                        ignore_eos=True)
    assert r["usage"]["completion_tokens"] >= 8


def test_logit_bias_and_allowed_tokens(server):
    full = server.complete("Once upon a time", max_tokens=1, return_token_ids=True)
    first = full["choices"][0]["token_ids"][0]
    r = server.complete("Once upon a time", max_tokens=3, logit_bias={"400": 100},
                        return_token_ids=True, ignore_eos=True)
    assert r["choices"][0]["token_ids"] == [400, 400, 400]
    r = server.complete("Once upon a time", max_tokens=1, logit_bias={str(first): -100},
                        return_token_ids=True)
    assert r["choices"][0]["token_ids"] != [first]
    r = server.complete("Once upon a time", max_tokens=4, allowed_token_ids=[401, 402],
                        return_token_ids=True, ignore_eos=True)
    assert set(r["choices"][0]["token_ids"]) <= {401, 402}


def test_penalties_change_the_text(server):
    plain = server.complete("Once upon a time", max_tokens=60, ignore_eos=True)["choices"][0]["text"]
    for extra in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 1.5}):
        assert server.complete("Once upon a time", max_tokens=60, ignore_eos=True,
                               **extra)["choices"][0]["text"] != plain


def test_echo_logprobs(server):
    r = server.complete("Once upon a time", max_tokens=3, echo=True, logprobs=2, ignore_eos=True)
    lp = r["choices"][0]["logprobs"]
    n = r["usage"]["prompt_tokens"] + 3
    assert len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["text_offset"]) == n
    assert lp["token_logprobs"][0] is None and all(p <= 0 for p in lp["token_logprobs"][1:])
    # Keyed by text: tokens that are no whole character share one.
    assert all(1 <= len(t) <= 3 for t in lp["top_logprobs"][1:])


def test_prompt_logprobs_do_not_depend_on_the_cache(server):
    prompt = "One day, Lily met a big dog and they played in the park all day long. " * 3
    server.complete(prompt, max_tokens=1)
    a = server.complete(prompt, max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
    b = server.complete(prompt, max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
    assert a == b and None not in a["token_logprobs"][1:]


def test_tokenize_round_trip(server):
    text = "Zoë had a café 🐙 and said: “Olé”"
    ids = server.post("/tokenize", {"prompt": text})[1]
    assert ids["count"] == len(ids["tokens"]) and ids["max_model_len"] > 0
    back = server.post("/detokenize", {"tokens": ids["tokens"]})[1]["prompt"]
    assert text in back
    status, chat = server.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]})
    assert status == 200 and chat["count"] > 3
    status, body = server.post("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]})
    assert status == 200 and body["prompt"] == "user: Hi\nassistant:"


def test_streams_never_split_a_character(server):
    # Force byte pieces: the stream must still be whole characters, and equal to the whole answer.
    ids = server.post("/tokenize", {"prompt": "🐙é", "add_special_tokens": False})[1]["tokens"]
    bias = {str(i): 60 for i in set(ids)}
    body = {"prompt": "a", "max_tokens": 40, "temperature": 1.5, "seed": 5, "logit_bias": bias,
            "ignore_eos": True}
    whole = server.post("/v1/completions", body)[1]["choices"][0]["text"]
    _, _, raw = server.request("POST", "/v1/completions", dict(body, stream=True))
    parts = [json.loads(x[6:])["choices"][0]["text"] for x in raw.splitlines()
             if x.startswith("data: {")]
    assert "".join(parts) == whole


def test_health_version_metrics(server):
    for path in ("/health", "/livez", "/readyz"):
        assert server.get(path)[0] == 200
    assert "version" in json.loads(server.get("/version")[1])
    _, headers, text = server.request("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc",
                 "vllm:time_to_first_token_seconds_bucket", "vllm:cache_config_info",
                 "vllm:request_success_total", "vllm:prompt_tokens_total"):
        assert name in text, name


def test_metrics_count(server):
    before = server.metric("vllm:generation_tokens_total")
    prompt = server.metric("vllm:prompt_tokens_total")
    r = server.complete("Once upon a time", max_tokens=7, ignore_eos=True)
    server.wait_idle()
    assert server.metric("vllm:generation_tokens_total") == before + 7
    assert server.metric("vllm:prompt_tokens_total") == prompt + r["usage"]["prompt_tokens"]


def test_request_id(server):
    _, headers, body = server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1},
                                      headers={"X-Request-Id": "abc-123"})
    assert headers["X-Request-Id"] == "abc-123"
    assert "abc-123" in json.loads(body)["id"]


# --- exact framing -----------------------------------------------------------------------------------

def test_sse_bytes(server):
    _, headers, raw = server.request("POST", "/v1/completions",
                                     {"prompt": "Once", "max_tokens": 3, "stream": True,
                                      "ignore_eos": True})
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    events = raw.split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]"
    assert all(e.startswith("data: {") and "\n" not in e for e in events[:-2])
    last = json.loads(events[-3][6:])["choices"][0]
    assert last["finish_reason"] == "length" and "stop_reason" in last


def test_usage_chunks(server):
    body = {"prompt": "Once", "max_tokens": 4, "stream": True, "ignore_eos": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    _, _, raw = server.request("POST", "/v1/completions", body)
    counts = [json.loads(x[6:])["usage"]["completion_tokens"] for x in raw.splitlines()
              if x.startswith("data: {")]
    assert counts == sorted(counts) and counts[-1] == 4


# --- errors ------------------------------------------------------------------------------------------

def bad(server, body, status=400, path="/v1/completions", **kw):
    got, text = server.request("POST", path, body, **kw)[::2]
    assert got == status, text
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert error["code"] is None or isinstance(error["code"], str)
    return error


@pytest.mark.parametrize("extra, param", [
    ({"temperature": -1}, "temperature"), ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"), ({"min_p": 2}, "min_p"), ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"), ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"n": 0}, "n"), ({"n": 100000}, "n"), ({"n": True}, "n"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 1e30}, "max_tokens"),
    ({"min_tokens": 50, "max_tokens": 5}, "min_tokens"), ({"logprobs": 1000}, "logprobs"),
    ({"logprobs": -1}, "logprobs"), ({"stop": [""]}, "stop"), ({"stop": [1]}, "stop"),
    ({"stop": ["x"] * 1000}, "stop"), ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"logit_bias": {"abc": 1}}, "logit_bias"), ({"logit_bias": [1]}, "logit_bias"),
    ({"allowed_token_ids": []}, "allowed_token_ids"), ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"suffix": "x"}, "suffix"),
    ({"prompt": None}, "prompt"), ({"prompt": 7}, "prompt"), ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"), ({"prompt": [1, "a"]}, "prompt"), ({"prompt": [-1]}, "prompt"),
    ({"prompt": [10 ** 9]}, "prompt"), ({"prompt": {"a": 1}}, "prompt"),
    ({"seed": 1.5}, "seed"), ({"n": 2, "temperature": 0}, "n"),
])
def test_wrong_values(server, extra, param):
    error = bad(server, {"prompt": "a", "max_tokens": 4, **extra})
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param), error
    assert param in error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\"x\"", b"{\"prompt\": \"a\", }",
                                 b"{\"prompt\": \"\\ud800\"}", b"\xff\xfe", b"[" * 100000,
                                 b"{\"a\":" * 5000, b"{\"prompt\": NaN}"])
def test_malformed_json(server, raw):
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        error = bad(server, raw, path=path, headers={"Content-Type": "application/json"})
        assert error["type"] == "invalid_request_error"


def test_unknown_model(server):
    error = bad(server, {"model": "nobody", "prompt": "a"}, 404)
    assert error["code"] == "model_not_found" and "nobody" in error["message"]


def test_prompt_too_long(server):
    error = bad(server, {"prompt": "word " * 5000, "max_tokens": 5})
    assert error["code"] == "context_length_exceeded"
    error = bad(server, {"prompt": "word", "max_tokens": 100000})
    assert error["code"] == "context_length_exceeded"
    error = bad(server, {"messages": [{"role": "user", "content": "word " * 5000}]},
                path="/v1/chat/completions")
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("messages", [None, [], "hi", [1], [{}], [{"role": "user"}],
                                      [{"role": 1, "content": "x"}],
                                      [{"role": "user", "content": [{"type": "image_url"}]}]])
def test_wrong_messages(server, messages):
    error = bad(server, {"messages": messages}, path="/v1/chat/completions")
    assert error["param"].startswith("messages")


def test_routes(server):
    status, _, text = server.request("GET", "/nope")
    assert status == 404 and json.loads(text)["error"]["type"] == "invalid_request_error"
    status, headers, text = server.request("GET", "/v1/completions")
    assert status == 405 and "POST" in headers["Allow"]
    assert json.loads(text)["error"]["code"] == "method_not_supported"
    error = bad(server, b"prompt=a", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert "Content-Type" in error["message"] or "content-type" in error["message"].lower()


def test_no_chat_template(start_server, model_dir):
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M")
    error = bad(server, {"messages": [{"role": "user", "content": "x"}]},
                path="/v1/chat/completions")
    assert "chat template" in error["message"]


def test_template_errors_reach_the_client(start_server, model_dir):
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M", "--chat-template",
                          "{{ raise_exception('roles must alternate') }}")
    error = bad(server, {"messages": [{"role": "user", "content": "x"}]},
                path="/v1/chat/completions")
    assert "roles must alternate" in error["message"]


def test_api_key(start_server, model_dir):
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M", "--api-key", "sesame,open",
                          wait=False)
    server.wait_ready()
    assert server.get("/health")[0] == 200
    for path in ("/v1/models", "/metrics", "/version"):
        status, text = server.get(path)
        assert status == 401 and json.loads(text)["error"]["code"] == "invalid_api_key", path
        assert server.get(path, headers={"Authorization": "Bearer open"})[0] == 200
        assert server.get(path, headers={"Authorization": "Bearer sesam"})[0] == 401
    assert "sesame" not in server.read_log()


def test_cors(server):
    status, headers, _ = server.request("OPTIONS", "/v1/completions",
                                        headers={"Origin": "http://a.example",
                                                 "Access-Control-Request-Method": "POST"})
    assert status in (200, 204) and headers["Access-Control-Allow-Origin"] == "*"


def test_deadline(start_server, model_dir):
    server = start_server(model_dir, "--request-timeout", "0.001", "--kv-cache-memory-bytes", "8M",
                          "--max-num-batched-tokens", "16", "--max-num-seqs", "1")
    status, body = server.post("/v1/completions", {"prompt": "Once", "max_tokens": 500,
                                                   "ignore_eos": True})
    assert (status == 408 and body["error"]["type"]) or \
        (status == 200 and body["choices"][0]["finish_reason"] == "abort")
    server.wait_idle()


def test_queue_is_bounded(start_server, model_dir):
    server = start_server(model_dir, "--max-num-queued-reqs", "4", "--max-num-seqs", "1",
                          "--max-num-batched-tokens", "16")
    bad(server, {"prompt": "Once", "n": 50, "temperature": 1, "max_tokens": 300}, 400)
    replies = []

    def ask():
        body = {"prompt": "Once", "n": 4, "temperature": 1, "max_tokens": 400, "ignore_eos": True}
        replies.append(server.request("POST", "/v1/completions", body))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    statuses = sorted(r[0] for r in replies)
    assert set(statuses) == {200, 429}, statuses
    refused = next(r for r in replies if r[0] == 429)
    assert json.loads(refused[2])["error"]["code"] == "rate_limit_exceeded"
    server.complete("Once", max_tokens=2)


def test_weights_that_give_nan_end_requests_not_the_process(start_server, model_dir, tmp_path):
    for f in model_dir.iterdir():
        (tmp_path / f.name).write_bytes(f.read_bytes())
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    (n,) = struct.unpack_from("<Q", data)
    begin, end = json.loads(data[8:8 + n])["model.norm.weight"]["data_offsets"]
    data[8 + n + begin:8 + n + end] = struct.pack("<f", math.nan) * ((end - begin) // 4)
    path.write_bytes(data)
    server = start_server(tmp_path, "--kv-cache-memory-bytes", "8M")
    for _ in range(5):
        error = bad(server, {"prompt": "Once", "max_tokens": 5}, 500)
        assert "finite" in error["message"]
    assert server.get("/health")[0] == 200


def test_curl(server):
    import subprocess
    out = subprocess.run(["curl", "-sS", server.url + "/v1/completions", "-H",
                          "Content-Type: application/json", "-d",
                          '{"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}'],
                         capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["choices"][0]["text"]


def test_half_close_and_keep_alive(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        for _ in range(3):
            body = b'{"prompt": "a", "max_tokens": 1}'
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(65536)
            head, _, rest = got.partition(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0]
            length = int([h for h in head.lower().split(b"\r\n")
                          if h.startswith(b"content-length")][0].split(b":")[1])
            while len(rest) < length:
                rest += s.recv(65536)


def test_template_from_file(start_server, model_dir, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(CHAT_TEMPLATE)
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M", "--chat-template", str(path))
    assert server.post("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]})[1][
        "prompt"] == "user: Hi\nassistant:"
