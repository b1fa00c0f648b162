"""The Dockerfile, as far as it can be held to its word without a container engine."""

import http.server
import json
import os
import pathlib
import re
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def stages():
    """[(name, base, [instruction, ...])] with continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    result = []
    for line in text.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)$", line):
            result.append((match[2], match[1], []))
        elif result and line and not line.startswith("#"):
            result[-1][2].append(line)
    return result


def run_stages():
    return [s for s in stages() if any(i.startswith("ENTRYPOINT") for i in s[2])]


def one(stage, word):
    found = [i for i in stage[2] if i.startswith(word + " ")]
    assert len(found) == 1, f"{stage[0]}: {word}"
    return found[0][len(word) + 1 :]


def test_two_images_cpu_by_default():
    assert sorted(s[0] for s in run_stages()) == ["cpu", "cuda"]
    assert stages()[-1][0] == "cpu"


@pytest.mark.parametrize("stage", run_stages(), ids=lambda s: s[0])
def test_run_stage(stage):
    user = one(stage, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # numeric, so that it can be checked as non-root
    assert one(stage, "VOLUME") in one(stage, "ENV")
    assert "-o " + user.split(":")[0] in one(stage, "RUN")  # the volume's owner
    assert one(stage, "STOPSIGNAL") == "SIGTERM"
    json.loads(one(stage, "ENTRYPOINT"))


def test_copies_name_stages_that_exist():
    names = [s[0] for s in stages()]
    for i, stage in enumerate(stages()):
        for line in stage[2]:
            if match := re.match(r"COPY --from=(\S+)", line):
                assert match[1] in names[:i]


class Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("stage", run_stages(), ids=lambda s: s[0])
@pytest.mark.parametrize("status,healthy", [(200, True), (503, False), (None, False)])
def test_health_check(stage, status, healthy):
    command = json.loads(one(stage, "HEALTHCHECK").split(" CMD ", 1)[1])
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    Health.status = status
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    if status is None:
        server.shutdown()
        server.server_close()
    env = {**os.environ, "INFERD_PORT": str(server.server_address[1])}
    result = subprocess.run(command, env=env, capture_output=True, timeout=20)
    if status is not None:
        server.shutdown()
        server.server_close()
    thread.join()
    assert (result.returncode == 0) == healthy
