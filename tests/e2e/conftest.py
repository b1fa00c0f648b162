"""Fixtures of the end-to-end tests: the real daemon on loopback, on a real or a generated model.

INFERD_BIN names the binary (build/inferd). Models come from ../shared/models where that is there,
else a tiny checkpoint is made by tests/fixtures/make_tiny.py; tests that need golden values skip.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
from daemon_process import clean_environment, free_port, wait_until_ready  # noqa: E402

SHARED = ROOT.parent / "shared" / "models"
BIN = os.environ.get("INFERD_BIN", str(ROOT / "build" / "inferd"))
SANITIZED = bool(os.environ.get("INFERD_SANITIZED"))  # slower builds get more time
SLOW = 6 if SANITIZED else 1

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def run_inferd(*args, env=None, binary=BIN):
    """One command that ends by itself; `env` goes on top of an environment without settings."""
    return subprocess.run([str(binary), *map(str, args)], capture_output=True, text=True,
                          timeout=120 * SLOW, env=clean_environment(env))


class Server:
    """One daemon. `args` are its options; stop() ends it and returns the exit code."""

    def __init__(self, model, *args, env=None, wait=True, log_path=None, binary=BIN):
        self.port = free_port()
        self.log_path = log_path or str(ROOT / "build" / f"e2e-{os.getpid()}-{self.port}.log")
        command = [str(binary), "serve", str(model), "--host", "127.0.0.1", "--port", str(self.port), *args]
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log,
                                        env=clean_environment(env))
        self.url = f"http://127.0.0.1:{self.port}"
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=60):
        wait_until_ready(self.process, lambda: self.get("/health")[0] == 200, timeout * SLOW,
                         self.read_log)

    def read_log(self):
        return pathlib.Path(self.log_path).read_text(errors="replace")

    def request(self, method, path, body=None, headers=None, timeout=120 * SLOW):
        """(status, headers, text); HTTP errors are results, not exceptions."""
        data = body
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            data = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        req = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(req, timeout=timeout) as r:
                return r.status, r.headers, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read().decode()

    def get(self, path, **kw):
        status, _, text = self.request("GET", path, **kw)
        return status, text

    def post(self, path, body, **kw):
        status, _, text = self.request("POST", path, body, **kw)
        return status, json.loads(text)

    def complete(self, prompt, **kw):
        status, body = self.post("/v1/completions", {"prompt": prompt, "temperature": 0, **kw})
        assert status == 200, body
        return body

    def metric(self, name):
        """Sum over the samples of that name."""
        total, seen = 0.0, False
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
                seen = True
        assert seen, f"no metric {name}"
        return total

    def wait_idle(self, timeout=30):
        end = time.time() + timeout * SLOW
        while time.time() < end:
            if (self.metric("vllm:num_requests_running") == 0
                    and self.metric("vllm:num_requests_waiting") == 0
                    and self.metric("vllm:kv_cache_usage_perc") == 0):
                return
            time.sleep(0.05)
        raise AssertionError("still busy: " + self.get("/metrics")[1])

    def num_threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def num_fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, sig=signal.SIGTERM, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout * SLOW)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.log.close()


@pytest.fixture(scope="session")
def shared_models():
    if not (SHARED / "goldens.json").exists():
        pytest.skip("../shared/models is not here")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model():
    return generated("default")


def generated(preset):
    """The generated checkpoint of that preset: random weights, so that its text means nothing."""
    target = ROOT / "build" / "fixtures" / preset
    if not (target / "config.json").exists():
        subprocess.run([sys.executable, str(ROOT / "tests" / "fixtures" / "make_tiny.py"),
                        str(target), "--preset", preset], check=True)
    return target


@pytest.fixture(scope="session")
def model_dir(request):
    """A trained model where there is one, else the generated one."""
    if (SHARED / "stories260K" / "config.json").exists():
        return SHARED / "stories260K"
    return request.getfixturevalue("tiny_model")


@pytest.fixture
def start_server():
    """A factory; every daemon it starts must exit with 0 at the end unless it was stopped."""
    servers = []

    def start(model, *args, **kw):
        server = Server(model, *args, **kw)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            code = server.stop()
            assert code == 0, server.read_log()[-4000:]


@pytest.fixture(scope="module")
def server(model_dir):
    """One daemon for a module's read-only tests."""
    s = Server(model_dir, "--chat-template", CHAT_TEMPLATE, "--return-tokens-as-token-ids=false",
               "--kv-cache-memory-bytes", "64M", "--enable-request-id-headers")
    yield s
    code = s.stop()
    assert code == 0, s.read_log()[-4000:]
