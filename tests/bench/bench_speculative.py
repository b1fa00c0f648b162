#!/usr/bin/env python3
"""Decode speed with and without drafts (--speculative-config, method ngram), through the server.

python3 tests/bench/bench_speculative.py MODEL [--drafts K] [--rounds N] [-- daemon options]

Two daemons on loopback, one request at a time, in turns, so that both see the same machine; the best
round of each prompt counts. Answers must be equal. Prints, per prompt, tokens per second of both, their
ratio, and how many drafts were right.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
from daemon_process import clean_environment, free_port, wait_until_ready  # noqa: E402
CODE = """class Account:
    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        self.balance = self.balance + amount
        return self.balance

    def withdraw(self, amount):
        self.balance = self.balance - amount
        return self.balance
"""
TEXT = """The harbour of the small town lies at the mouth of a slow river. In spring the boats are painted,
in summer they carry visitors to the islands, and in autumn they are drawn up on the beach."""
PROMPTS = [
    ("code again", f"{CODE}\n# The same class again, with a docstring:\n{CODE[:60]}"),
    ("a text again", f"{TEXT}\n\nThe same text once more:\n\nThe harbour of the"),
    ("a table", "id,name,city\n1,Ann,Rome\n2,Ben,Rome\n3,Cid,Rome\n4,Dan,Rome\n5,Eve,"),
    ("a new story", "Write a story.\n\nOn the morning that the clock stopped, nobody in the village"),
]


class Daemon:
    def __init__(self, model, options):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [ROOT / "build" / "inferd", "serve", model, "--host", "127.0.0.1", "--port", str(port), "--log-level",
             "warning", "--no-enable-prefix-caching", *options], env=clean_environment())
        try:
            wait_until_ready(self.process, self.is_ready, 300, lambda: "see above")
        except RuntimeError:
            self.close()
            raise

    def is_ready(self):
        return urllib.request.urlopen(self.url + "/health", timeout=2).status == 200

    def close(self):
        self.process.terminate()
        self.process.wait(60)

    def drafts(self):
        """Drafts so far, and how many of them were right."""
        text = urllib.request.urlopen(self.url + "/metrics", timeout=10).read().decode()
        counts = {}
        for line in text.splitlines():
            for name in ("num_draft_tokens", "num_accepted_tokens"):
                if line.startswith(f"vllm:spec_decode_{name}_total{{"):
                    counts[name] = float(line.rsplit(" ", 1)[1])
        return counts.get("num_draft_tokens", 0), counts.get("num_accepted_tokens", 0)

    def complete(self, prompt, max_tokens):
        """The answer, and seconds from its first token to its last."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        text, first, last = "", None, None
        with urllib.request.urlopen(request, timeout=600) as response:
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                text += json.loads(line[6:])["choices"][0]["text"]
                last = time.perf_counter()
                first = first or last
        return text, last - first


def measure(plain, drafting, name, prompt, args):
    best, before = [float("inf")] * 2, drafting.drafts()
    for _ in range(args.rounds):
        answers = []
        for i, daemon in enumerate((plain, drafting)):
            answer, seconds = daemon.complete(prompt, args.max_tokens)
            answers.append(answer)
            best[i] = min(best[i], seconds)
        if answers[0] != answers[1]:
            sys.exit(f"{name}: the answers differ:\n{answers[0]}\n---\n{answers[1]}")
    drafted, right = (b - a for a, b in zip(before, drafting.drafts()))
    speeds = [(args.max_tokens - 1) / seconds for seconds in best]
    print(f"| {name} | {speeds[0]:.1f} | {speeds[1]:.1f} | {speeds[1] / speeds[0]:.2f} | "
          f"{right / max(drafted, 1) * 100:.0f} % of {drafted / args.rounds:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--drafts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=128)
    args, options = parser.parse_known_args()
    options = [o for o in options if o != "--"]
    config = {"method": "ngram", "num_speculative_tokens": args.drafts, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    plain = Daemon(args.model, options)
    try:
        drafting = Daemon(args.model, [*options, "--speculative-config", json.dumps(config)])
        try:
            print("| prompt | without, tok/s | with, tok/s | ratio | drafts that were right |\n| --- | --- | --- | --- | --- |")
            for name, prompt in PROMPTS:
                measure(plain, drafting, name, prompt, args)
        finally:
            drafting.close()
    finally:
        plain.close()


if __name__ == "__main__":
    main()
