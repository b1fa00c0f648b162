#!/usr/bin/env python3
"""Render times of chat templates beside Jinja2: one core, the same conversations, in one run.

    pip install jinja2==3.1.6
    make build/tests/bench/render_template
    python3 tests/bench/bench_template.py [--driver PROGRAM] [TEMPLATE.jinja ...]

Without TEMPLATEs the longest of ../shared/chat-templates is taken. Of cases.json there, each
conversation that the template renders is rendered; Jinja2's environment is that of
tests/golden/make_jinja_cases.py, which is transformers', with the template compiled beforehand. Times
are CPU time, the best of many passes, in microseconds.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))

from check_templates import Reference, variables_of  # noqa: E402

FOLDER = os.path.join(HERE, "../../../shared/chat-templates")


def library_times(environment, source, variables, passes):
    compile_best = render_best = float("inf")
    for i in range(passes):
        if i < 5:
            start = time.process_time()
            template = environment.from_string(source)
            compile_best = min(compile_best, time.process_time() - start)
        start = time.process_time()
        template.render(**variables)
        render_best = min(render_best, time.process_time() - start)
    return compile_best * 1e6, render_best * 1e6


def measure(path, cases, driver, passes):
    with open(path, encoding="utf-8") as f:
        source = f.read()
    reference = Reference()
    print(f"{os.path.basename(path)}: {len(source.encode())} bytes")
    for name, case in cases.items():
        variables = variables_of(case)
        expected = reference.render(source, variables)
        if "text" not in expected:
            continue
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as f:
            json.dump(variables, f)
            f.flush()
            done = subprocess.run([driver, path, f.name, str(passes)], text=True,
                                  capture_output=True, check=True).stdout.split()
        parse, render = float(done[1]), float(done[2])
        compiled, other = library_times(reference.environment, source, variables, passes)
        same = int(done[0]) == len(expected["text"].encode())
        print(f"  {name:28} {len(expected['text']):6} characters: inferd parse {parse:6.0f}, render "
              f"{render:6.1f}   jinja2 compile {compiled:7.0f}, render {other:7.1f} "
              f"({other / render:.1f} times)   {'same length' if same else 'DIFFERENT'}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", default="build/tests/bench/render_template")
    parser.add_argument("--passes", type=int, default=300)
    parser.add_argument("templates", nargs="*")
    args = parser.parse_args()
    with open(os.path.join(FOLDER, "cases.json"), encoding="utf-8") as f:
        cases = json.load(f)
    paths = args.templates or [max(glob.glob(os.path.join(FOLDER, "*.jinja")), key=os.path.getsize)]
    for path in paths:
        measure(path, cases, args.driver, args.passes)


if __name__ == "__main__":
    main()
