"""Conversations as text and as ids: /props, /tokenize with messages, /apply-template, and chat
templates that requests bring."""
import json
import time

import pytest

from conftest import CHAT_TEMPLATE

HI = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
TOOL_TEMPLATE = (
    "{{ bos_token }}{% if tools %}[{{ tools[0].function.name }}]{% endif %}{% if loud %}!{% endif %}"
    + CHAT_TEMPLATE
)


@pytest.fixture(scope="module")
def templated(model_dir):
    from conftest import Server
    s = Server(model_dir, "--chat-template", TOOL_TEMPLATE, "--kv-cache-memory-bytes", "8M",
               "--trust-request-chat-template", "--max-num-seqs", "7", "--served-model-name", "tiny")
    yield s
    assert s.stop() == 0


def test_props(templated, model_dir):
    status, text = templated.get("/props")
    assert status == 200
    props = json.loads(text)
    assert props["total_slots"] == 7
    assert props["model_alias"] == "tiny" and props["model_path"] == str(model_dir)
    assert props["chat_template"] == TOOL_TEMPLATE
    assert props["bos_token"] == "<s>" and props["eos_token"] == "</s>"
    assert props["build_info"].startswith("inferd ")
    assert props["modalities"] == {"vision": False, "audio": False}
    settings = props["default_generation_settings"]
    assert settings["n_ctx"] == templated.post("/tokenize", {"prompt": "a"})[1]["max_model_len"]
    assert settings["params"]["temperature"] == 1.0 and settings["params"]["top_p"] == 1.0
    assert "chat_template_tool_use" not in props
    assert templated.post("/props", {})[0] == 405


def test_props_without_template(start_server, model_dir):
    props = json.loads(start_server(model_dir, "--kv-cache-memory-bytes", "8M").get("/props")[1])
    assert props["chat_template"] == "" and props["bos_token"] == "<s>"


def prompt_of(server, **fields):
    status, body = server.post("/apply-template", {"messages": HI, **fields})
    assert status == 200, body
    return body["prompt"]


def test_apply_template(templated):
    assert prompt_of(templated) == "<s>user: Hi\nassistant:"
    # Tools are shown without a word on whether they may be called: nothing is.
    assert prompt_of(templated, tools=TOOLS) == "<s>[now]user: Hi\nassistant:"
    assert prompt_of(templated, chat_template_kwargs={"loud": True}) == "<s>!user: Hi\nassistant:"
    assert prompt_of(templated, add_generation_prompt=False) == "<s>user: Hi\n"
    assert prompt_of(templated, continue_final_message=True) == "<s>user: Hi"
    status, body = templated.post("/apply-template", {
        "messages": HI, "continue_final_message": True, "add_generation_prompt": True})
    assert status == 400 and "continue_final_message" in body["error"]["message"]


def test_tokenize_messages(templated):
    def ids(**fields):
        status, body = templated.post("/tokenize", {"messages": HI, **fields})
        assert status == 200, body
        assert body["count"] == len(body["tokens"])
        return body

    def plain(text):
        return templated.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]

    # The template brings its own BOS, so none is added unless that is asked for.
    assert ids()["tokens"] == plain("<s>user: Hi\nassistant:")
    bos = ids(add_special_tokens=True)["tokens"]
    assert bos[1:] == ids()["tokens"] and bos[0] == bos[1]
    assert ids(tools=TOOLS)["tokens"] == plain("<s>[now]user: Hi\nassistant:")
    assert ids(add_generation_prompt=False, chat_template_kwargs={"loud": 1})["tokens"] == plain(
        "<s>!user: Hi\n")
    assert ids(continue_final_message=True)["tokens"] == plain("<s>user: Hi")
    assert ids(chat_template="{{ messages[0].content }}{{ bos_token }}")["tokens"] == plain("Hi<s>")
    body = ids(return_token_strs=True)
    assert len(body["token_strs"]) == body["count"] and body["token_strs"][0] == "<s>"
    assert ids()["token_strs"] is None


def test_chat_with_tools_must_say_none(templated):
    status, body = templated.post("/v1/chat/completions",
                                  {"messages": HI, "tools": TOOLS, "max_tokens": 1})
    assert status == 400 and "tool_choice" in body["error"]["message"]
    status, body = templated.post("/v1/chat/completions", {
        "messages": HI, "tools": TOOLS, "tool_choice": "none", "max_tokens": 1})
    assert status == 200


def test_template_of_a_request(templated, server):
    text = "{% for m in messages %}<{{ m.role }}>{% endfor %}{{ bos_token }}"
    assert prompt_of(templated, chat_template=text) == "<user><s>"
    status, body = templated.post("/v1/chat/completions", {
        "messages": HI, "chat_template": text, "max_tokens": 1, "return_token_ids": True})
    assert status == 200 and body["usage"]["prompt_tokens"] == len(body["prompt_token_ids"])
    for wrong, says in (("{% if %}", "template"), (3, "must be a string"),
                        ("{{ raise_exception('no system role') }}", "no system role")):
        status, body = templated.post("/apply-template", {"messages": HI, "chat_template": wrong})
        assert status == 400 and says in body["error"]["message"], body
    # A server that was not told to trust requests takes its own template only.
    status, body = server.post("/apply-template", {"messages": HI, "chat_template": text})
    assert status == 400 and "--trust-request-chat-template" in body["error"]["message"]
    assert body["error"]["param"] == "chat_template"


HOSTILE = [
    "{% for a in range(10**9) %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{% set ns = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
    "{% endfor %}{{ ns.s }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "{{ 2 ** 99999999 }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ 'ab' | replace('', 'x' * 100000) | replace('', 'y' * 100000) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ ('a,' * 90000).split(',') | join('b' * 90000) }}",
    "{{ range(99999) | list | tojson(indent=99999) }}",
    "{{ 'x' | indent(10**9) }}{{ 'x' | center(10**9) }}",
    "{% for i in range(99999) %}" + "{{ messages | tojson }}" * 50 + "{% endfor %}",
]


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates(templated, template):
    start = time.monotonic()
    status, body = templated.post("/apply-template", {"messages": HI, "chat_template": template})
    assert status == 400 and body["error"]["message"], str(body)[:200]
    assert time.monotonic() - start < 20
    assert prompt_of(templated) == "<s>user: Hi\nassistant:"


def test_long_but_harmless(templated):
    assert prompt_of(templated, chat_template="{{ " + "1 ~ " * 50000 + "1 }}") == "1" * 50001
