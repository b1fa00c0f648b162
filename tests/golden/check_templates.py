#!/usr/bin/env python3
"""Compares the Jinja interpreter with Jinja2, on chat templates and on random templates.

    pip install jinja2==3.1.6
    make build/tests/bench/render_template
    python3 tests/golden/check_templates.py [--cases cases.json] TEMPLATE.jinja ...
    python3 tests/golden/check_templates.py --random 20000 [--seed 1]

TEMPLATEs are rendered over the conversations of cases.json (those of ../shared/chat-templates unless
another is given) and over odd ones made here. --random writes templates from a grammar of the
language instead. The environment is that of make_jinja_cases.py, which is transformers'. Texts must
be equal; where Jinja2 fails, so must we, and the message of raise_exception must be the same. Exits
with 1 where anything differs.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import warnings

import jinja2

from make_jinja_cases import environment

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class Driver:
    def __init__(self, program):
        self.process = subprocess.Popen([program, "--lines"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, template, variables):
        request = json.dumps({"template": template, "variables": variables}) + "\n"
        self.process.stdin.write(request.encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the driver died on {template!r} over {variables!r}")
        return json.loads(line)


class Reference:
    def __init__(self):
        self.environment = environment()

    def render(self, template, variables):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return {"text": self.environment.from_string(template).render(**variables)}
        except jinja2.exceptions.TemplateSyntaxError as error:
            return {"error": str(error), "raised": False}
        except jinja2.exceptions.TemplateError as error:
            return {"error": str(error), "raised": type(error) is jinja2.exceptions.TemplateError}
        except RecursionError:
            return {"skip": True}
        except Exception as error:  # whatever Python raises inside a template
            return {"error": f"{type(error).__name__}: {error}", "raised": False}


def equal(expected, got):
    if "skip" in expected:
        return True
    if "text" in expected:
        return got == {"text": expected["text"]}
    if expected["raised"]:
        return got.get("error") == expected["error"]
    return "error" in got


# --- chat templates ----------------------------------------------------------------------------


def call(arguments, **more):
    return {"role": "assistant", "content": None, **more, "tool_calls": [
        {"id": "call12345", "type": "function", "function": {"name": "f", "arguments": arguments}}]}


def odd_cases():
    user = {"role": "user", "content": "Hi"}
    numbers = {"int": 7, "negative": -0, "big": 9007199254740993, "float": 0.1, "small": 1e-7,
               "large": 1e22, "whole": 3.0, "true": True, "none": None}
    nested = {"z": {"y": [{"x": [[], {}, [1, [2.5, None]]]}], "é\"\\\n": "\u2028 </tool> & '"},
              "a": False}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    tool = {"type": "function", "function": {"name": "f", "description": "d \"q\"\n", "parameters": {
        "type": "object", "required": ["z"], "properties": {
            "z": {"type": ["string", "null"], "enum": ["b", "a"], "default": 1.5},
            "a": {"type": "array", "items": {"type": "integer", "minimum": -1e-9}}}}}}
    return {
        "no messages": {"messages": []},
        "empty content": {"messages": [{"role": "user", "content": ""}]},
        "null content": {"messages": [{"role": "user", "content": None}]},
        "no content": {"messages": [{"role": "user"}]},
        "odd role": {"messages": [{"role": "critic", "content": "no"}]},
        "parts": {"messages": [{"role": "user", "content": parts}, user]},
        "empty parts": {"messages": [{"role": "user", "content": []}]},
        "unicode": {"messages": [{"role": "user", "content":
                                  "\u00e9e\u0301 \U0001f469\u200d\U0001f4bb \u202e \ufeff \x00 <|im_end|> {{ x }}"}]},
        "space": {"messages": [{"role": "system", "content": " \n\t s \u3000\u00a0\n"},
                               {"role": "user", "content": "\n a \n\n b \r\n"},
                               {"role": "assistant", "content": "  c  "}]},
        "numbers": {"messages": [user, call(numbers), {"role": "tool", "content": "1.0",
                                                       "tool_call_id": "call12345"}]},
        "nested": {"messages": [user, call(nested, reasoning_content="think\n</think>\nmore"),
                                {"role": "tool", "name": "f", "content": json.dumps(nested)}],
                   "tools": [tool]},
        "text arguments": {"messages": [user, call('{"b": 1, "a": [2]}'), user], "tools": [tool]},
        "two calls": {"messages": [user, {"role": "assistant", "content": "so", "tool_calls":
                                          call(numbers)["tool_calls"] * 2}, user], "tools": [tool]},
        "no arguments": {"messages": [user, call({}), user]},
        "empty calls": {"messages": [user, {"role": "assistant", "content": "x", "tool_calls": []}]},
        "system twice": {"messages": [{"role": "system", "content": "a"},
                                      {"role": "system", "content": "b"}, user]},
        "think": {"messages": [user, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
                               user, {"role": "assistant", "content": "</think>",
                                      "reasoning_content": ""}, user]},
        "assistant first": {"messages": [{"role": "assistant", "content": "a"}, user]},
        "no thinking": {"messages": [user], "enable_thinking": False, "thinking": False},
        "thinking": {"messages": [user], "enable_thinking": True, "thinking": True,
                     "reasoning_effort": "high"},
        "no prompt": {"messages": [user], "add_generation_prompt": False},
        "documents": {"messages": [user], "documents": [
            {"title": "t", "text": "x", "doc_id": 1, "snippet": "s", "url": "u"}]},
        "number content": {"messages": [{"role": "user", "content": 5}]},
        "long": {"messages": [user, {"role": "assistant", "content": "ok"}] * 20 + [user]},
    }


def variables_of(case):
    out = {"messages": case["messages"], "tools": case.get("tools"),
           "documents": case.get("documents"),
           "add_generation_prompt": case.get("add_generation_prompt", True), **SPECIAL}
    return out | {k: v for k, v in case.items() if k not in out}


def check_files(paths, cases, driver, reference):
    wrong = done = failed = 0
    for path in paths:
        with open(path, encoding="utf-8") as f:
            template = f.read()
        for name, case in cases.items():
            variables = variables_of(case)
            expected = reference.render(template, variables)
            got = driver.ask(template, variables)
            done += 1
            failed += "error" in expected
            if not equal(expected, got):
                wrong += 1
                print(f"{path} / {name}\n  expected {expected}\n  got      {got}")
    print(f"{len(paths)} templates, {done} renderings ({failed} of them errors), {wrong} differ")
    return wrong == 0


# --- random templates --------------------------------------------------------------------------

DATA = {
    "n": 7, "zero": 0, "neg": -3, "pi": 3.25, "yes": True, "no": False, "nothing": None,
    "word": "hello World", "empty": "", "uni": "Où est 東京 🗼 ß", "pad": "  x y\t\n",
    "numbers": [3, 1, 2, 1], "mixed": [1, "a", None, 2.5, [True], {"k": 1}], "none_list": [],
    "words": ["b", "A", "c", "a", "B"], "nested": [[1, 2], [3, [4]]],
    "table": {"b": 1, "a": [1, 2.5, None, True], "c": {"d": "é\n\"q\" <b>&'"}}, "void": {},
    "people": [{"name": "Ann", "age": 30, "c": {"z": "b"}}, {"name": "bob", "age": 25},
               {"name": "Cid", "age": 30, "c": {"z": "a"}}],
    "messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": "Hello", "tool_calls": [{"name": "f"}]}],
}
# Each kind of value with what it is asked for most; the rest is mixed in now and then.
FILTERS = {
    "str": ["length", "count", "upper", "lower", "title", "capitalize", "trim", "first", "last", "list", "string",
            "int", "float", "escape", "e", "safe", "reverse", "sort | join", "unique | list", "tojson", "wordcount",
            "striptags", "urlencode", "forceescape", "default('z')", "default('z', true)", "d", "replace('l', 'L')",
            "replace('a', '')", "replace('l', 'x', 1)", "truncate(5)", "truncate(8, true, '..', 0)",
            "truncate(6, false, '!')", "indent", "indent(2, true)", "indent(1, blank=true)", "indent('> ')",
            "center(11)", "int(5)", "int(0, 16)", "float(2.5)", "trim('hd')", "tojson(ensure_ascii=true)", "format(1)",
            "join('-')", "batch(2) | list", "map('upper') | join", "select('in', 'aeo') | list", "items", "attr('x')"],
    "num": ["abs", "int", "float", "round", "round(1)", "round(1, 'floor')", "round(0, 'ceil')", "string", "tojson",
            "default(1)", "filesizeformat", "filesizeformat(true)", "length", "upper", "trim", "title", "indent"],
    "list": ["length", "first", "last", "list", "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "unique | list",
             "reverse | list", "join", "join(', ')", "tojson", "tojson(indent=2)", "sum", "sum(start=1)", "min", "max",
             "batch(2) | list", "batch(3, '-') | list", "slice(2) | list", "slice(3, 'x') | list", "map('string') | list",
             "map('upper') | join", "map('length') | list", "select | list", "select('odd') | list", "reject('none') | list",
             "select('string') | list", "select('equalto', 1) | list", "reject | list", "string", "default([])",
             "map('default', 'x') | list", "map('tojson') | join(';')"],
    "rows": ["map(attribute='name') | list", "map(attribute='c.z', default='?') | list", "sort(attribute='age')",
             "sort(attribute='age,name')", "selectattr('age') | list", "selectattr('age', 'gt', 26) | list",
             "selectattr('c', 'defined') | list", "rejectattr('c') | list", "rejectattr('name', 'in', ['Ann']) | list",
             "groupby('age')", "groupby('age') | map('first') | list", "unique(attribute='age') | list",
             "sum(attribute='age')", "min(attribute='age')", "max(attribute='age')", "join('-', attribute='name')",
             "groupby('city', default='N')", "tojson(sort_keys=true)", "map(attribute='age') | sum", "length"],
    "dict": ["length", "list", "items | list", "dictsort", "dictsort(true)", "dictsort(false, 'value')",
             "dictsort(reverse=true)", "tojson", "tojson(indent=2)", "tojson(separators=(',', ':'))", "string", "first",
             "xmlattr", "join(',')", "sort", "default({})", "tojson(indent=1, sort_keys=true)", "urlencode"],
}
NAMES = {"str": ["word", "empty", "uni", "pad", "'a-b'", "messages[1].content", "words[0]", "'%d' % n", "word[1:3]"],
         "num": ["n", "zero", "neg", "pi", "1", "2.5", "numbers[0]", "n // 2", "word | length", "yes"],
         "list": ["numbers", "words", "nested", "mixed", "none_list", "[1, 2]", "word.split()", "range(4)", "table.a"],
         "rows": ["people", "messages", "people[:2]"],
         "dict": ["table", "void", "people[0]", "messages[2]", "{'z': 1, 'a': [2]}", "table.c", "dict(a=1)"]}
KINDS = list(FILTERS)
TESTS = ("defined undefined none string number integer float boolean true false mapping sequence iterable callable "
         "odd even divisibleby(3) eq(1) ne(1) lt(3) gt(1) le(2) ge(2) in(numbers) in('hello') sameas(none) lower upper escaped filter('x') test('odd')"
         ).split()
METHODS = ("upper() lower() strip() lstrip() rstrip('d') strip('h') split() split(' ') split('l',1) rsplit('l',1) splitlines() "
           "startswith('h') startswith(('x','h')) endswith('d') find('l') rfind('l') find('l',4) count('l') index('l') replace('l','r') replace('l','r',1) "
           "title() capitalize() swapcase() center(15,'*') ljust(14) rjust(14,'-') zfill(15) partition('l') rpartition(' ') "
           "isdigit() isalpha() isalnum() isspace() isupper() islower() istitle() isdecimal() isnumeric() isidentifier() isascii() "
           "removeprefix('he') removesuffix('ld') expandtabs(3) join(words) encode() format(1,a=2) "
           "keys() values() items() get('a') get('x',5) copy() index(1) count(1) "
           "append(1) pop() update({'q':1}) clear() sort() insert(0,1) extend([1]) reverse() setdefault('a',1) popitem() remove(1)"
           ).split()
ATTRS = "a b c d z name age role content k x 0 upper __class__ items".split()


class Grammar:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = list(DATA) + ["undefined_name", "x", "y", "ns", "loop"]

    def pick(self, *options):
        return self.random.choice(options)

    def literal(self):
        r = self.random
        return r.choice((
            "1", "0", "-1", "2", "10", "007" if r.random() < 0.05 else "7", "1.5", "1e3", "1_000", "true", "false",
            "none", "True", "None", "''", "'a'", "\"b\\n\"", "'%s'", "'%d|%5.2f'", "'%r'", "'{}'", "'{a}'", "'é'", "[]",
            "[1,2]", "(1,)", "()", "{}", "{'a': 1}", "'hello'", "[1,'a',none]", "0.1", "1e16", "'1'", "' 2 '", "'0x1f'",
            "'\\x41\\u00e9'", "'a' 'b'"))

    def expr(self, depth):
        r = self.random
        if depth <= 0:
            return r.choice(self.names) if r.random() < 0.65 else self.literal()
        e = lambda: self.expr(depth - 1 - r.randrange(2))
        kind = r.randrange(20)
        if kind < 3:
            return r.choice(self.names)
        if kind == 3:
            return self.literal()
        if kind < 6:
            what = r.choice(("num", "num", "str", "list"))
            sign = {"num": ("+", "-", "*", "/", "//", "%", "**", "~", "<", "=="), "str": ("+", "~", "%", "in", "<"),
                    "list": ("+", "==", "~", "!=")}[what]
            return f"{self.of(what, depth)} {r.choice(sign)} {self.of(what, depth)}"
        if kind == 6:
            return f"{e()} {self.pick('+', '-', '*', '/', '//', '%', '**', '~', '~', '+')} {e()}"
        if kind == 7:
            return f"{e()} {self.pick('==', '!=', '<', '>', '<=', '>=', 'in', 'not in')} {e()}"
        if kind == 8:
            return f"{e()} {self.pick('<', '==', '<=')} {e()} {self.pick('<', '!=', 'in')} {e()}"
        if kind == 9:
            return f"{e()} {self.pick('and', 'or')} {e()}"
        if kind == 10:
            return f"{self.pick('not ', '-', '+')}{e()}"
        if kind == 11:
            return f"({e()})" if r.random() < 0.8 else f"({e()}, {e()})"
        if kind == 12:
            tail = f" else {e()}" if r.random() < 0.7 else ""
            return f"({e()} if {e()}{tail})"
        if kind == 13:
            return f"{e()}.{r.choice(ATTRS)}" if r.random() < 0.5 else f"{self.atom(depth)}[{e()}]"
        if kind == 14:
            parts = [self.pick("", "1", "-1", "2", "0", "-2", "n", "none") for _ in range(r.randrange(2, 4))]
            if len(parts) == 3 and r.random() < 0.9:
                parts[2] = self.pick("", "1", "-1", "2", "-2")
            return f"{self.pick('word', 'uni', 'numbers', 'words', 'mixed', 'people')}[{':'.join(parts)}]"
        if kind < 17:
            return self.filtered(depth)
        if kind == 17:
            return f"{e()} is {self.pick('', '', 'not ')}{r.choice(TESTS)}"
        if kind == 18:
            return f"{self.pick('word', 'word', 'uni', 'pad', 'table', 'numbers')}.{r.choice(METHODS)}"
        return self.pick(f"range({e()})", f"range(1, {self.pick('4', '-3', 'n')}, {self.pick('1', '2', '-1')})",
                         f"[{e()}, {e()}]", f"{{'k': {e()}, 'a': {e()}}}", f"dict(a={e()})",
                         f"namespace(a={e()}).a", f"f({e()})", f"f({e()}, b={e()})", f"cycler(1, {e()}).next()",
                         f"joiner('/')()", f"[{e()}] + {e()}", f"'%s-%s' % ({e()}, {e()})",
                         f"'%s' % {e()}", "strftime_now('%d %b %Y %H:%M')")

    def of(self, what, depth):
        """A value of a kind, mostly."""
        r = self.random
        if r.random() < 0.06:
            return f"({self.expr(depth - 1)})"
        return r.choice(NAMES[what])

    def filtered(self, depth):
        r = self.random
        what = r.choice(KINDS)
        filters = FILTERS[what if r.random() < 0.93 else r.choice(KINDS)]
        return f"{self.of(what, depth)} | {r.choice(filters)}"

    def atom(self, depth):
        return f"({self.expr(depth - 1)})" if self.random.random() < 0.4 else self.random.choice(self.names)

    def text(self):
        return self.random.choice(("", " ", "\n", "a", " b\n", "\n  ", "\t", "{", "}", "%", "#", " c \n\n", "é"))

    def tag(self, content):
        r = self.random
        left, right = self.pick("", "", "", "-", "+"), self.pick("", "", "", "-", "+")
        return "{%" + left + " " + content + " " + right + "%}"

    def output(self, depth):
        left, right = self.pick("", "", "", "-"), self.pick("", "", "", "-")
        return "{{" + left + " " + self.expr(depth) + " " + right + "}}"

    def block(self, depth):
        r = self.random
        if depth <= 0 or r.random() < 0.45:
            return self.text() + self.output(r.randrange(1, 4)) + self.text()
        body = lambda: self.body(depth - 1)
        kind = r.randrange(13)
        e = lambda: self.expr(2)
        if kind == 0:
            tail = self.tag("elif " + e()) + body() if r.random() < 0.4 else ""
            tail += self.tag("else") + body() if r.random() < 0.5 else ""
            return self.tag("if " + e()) + body() + tail + self.tag("endif")
        if kind < 4:
            target = self.pick("x", "x", "x, y", "x, (y, z)", "ns.a")
            over = self.pick(e(), "numbers", "people", "table.items()", "nested", "range(3)", "messages", "word", "table | dictsort")
            cond = " if " + e() if r.random() < 0.25 else ""
            rec = " recursive" if r.random() < 0.08 else ""
            inner = body() + self.pick("", "", "{{ loop.index }}{{ loop.last }}", "{{ loop.index0 }}/{{ loop.length }}{{ loop.revindex }}",
                                       "{{ loop.previtem }}|{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}",
                                       "{{ loop.changed(x) }}", "{% if loop.first %}{% continue %}{% endif %}",
                                       "{% if loop.index == 2 %}{% break %}{% endif %}", "{{ loop.depth }}{{ loop.depth0 }}",
                                       "{{ loop(x) }}" if rec and r.random() < 0.5 else "")
            tail = self.tag("else") + body() if r.random() < 0.25 else ""
            return self.tag(f"for {target} in {over}{cond}{rec}") + inner + tail + self.tag("endfor")
        if kind == 4:
            return self.tag(f"set {self.pick('x', 'y', 'n', 'x, y', 'ns.a')} = {e()}")
        if kind == 5:
            flt = " | " + r.choice(("upper", "trim", "length", "replace('a', 'b')")) if r.random() < 0.4 else ""
            return self.tag(f"set x{flt}") + body() + self.tag("endset")
        if kind == 6:
            args = self.pick("a", "a, b=2", "a, b=n", "a=1, b='x'", "")
            return (self.tag(f"macro f({args})") + body() + self.pick("{{ a }}{{ b }}", "{{ varargs }}{{ kwargs }}", "{{ caller() if caller }}", "{{ f.name }}")
                    + self.tag("endmacro") + self.pick("{{ f(1) }}", "{{ f() }}", "{{ f(1, 2, 3) }}", "{{ f(a=1, q=2) }}", ""))
        if kind == 7:
            return self.tag(self.pick("call f(1)", "call(u) f(1)", "call f()")) + body() + self.tag("endcall")
        if kind == 8:
            return self.tag("filter " + r.choice(("upper", "trim", "indent(2)", "replace('a','o')", "length"))) + body() + self.tag("endfilter")
        if kind == 9:
            return self.tag("with x = " + e()) + body() + self.tag("endwith")
        if kind == 10:
            return self.tag("generation") + body() + self.tag("endgeneration")
        if kind == 11:
            return "{# " + self.pick("note", "a\nb", "{{ x }}") + self.pick(" #}", " -#}")
        return self.pick("{% raw %}{{ x }}{% endraw %}", "{{ raise_exception('no: ' ~ (" + e() + ")) }}" if r.random() < 0.3 else "",
                         "{% set ns = namespace(a=1, b=" + e() + ") %}", "{% do 1 %}" if r.random() < 0.1 else "",
                         "{% block q %}" + body() + "{% endblock %}")

    def body(self, depth):
        return "".join(self.text() + self.block(depth) for _ in range(self.random.randrange(1, 3))) + self.text()

    def template(self):
        prefix = self.pick("", "", "{% set ns = namespace(a=0) %}", "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}")
        return prefix + self.body(self.random.randrange(1, 4))


def check_random(count, seed, driver, reference, show):
    wrong = failed = 0
    for i in range(count):
        template = Grammar(seed * 1000003 + i).template()
        if "encode()" in template:
            continue  # there are no bytes here
        expected = reference.render(template, json.loads(json.dumps(DATA)))
        got = driver.ask(template, DATA)
        failed += "error" in expected
        if " at 0x" in str(expected):
            continue  # an address
        if not equal(expected, got):
            wrong += 1
            if wrong <= show:
                print(f"#{i}: {template!r}\n  expected {expected}\n  got      {got}")
    print(f"{count} random templates ({failed} of them errors), {wrong} differ")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", default="build/tests/bench/render_template")
    parser.add_argument("--cases", default=os.path.join(HERE, "../../../shared/chat-templates/cases.json"))
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("templates", nargs="*")
    args = parser.parse_args()
    driver, reference, ok = Driver(args.driver), Reference(), True
    if args.templates:
        cases = odd_cases()
        if os.path.exists(args.cases):
            with open(args.cases, encoding="utf-8") as f:
                cases = json.load(f) | cases
        ok &= check_files(args.templates, cases, driver, reference)
    if args.random:
        ok &= check_random(args.random, args.seed, driver, reference, args.show)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
