"""`inferd pull`, `serve ORG/NAME` and `plan ORG/NAME` against a hub on loopback that misbehaves."""
import fcntl
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import ssl
import struct
import subprocess
import termios
import threading
import time

import pytest

from conftest import BIN, SLOW
from hub_server import LFS, Fault, Hub, git_blob_id

PART = 16 << 20
REPO = "acme/tiny-model"


@functools.lru_cache(maxsize=64)
def blob(size, seed=1):
    return random.Random(seed).randbytes(size)


def files(weights=3 << 20, **more):
    """What a repository holds; the weights are no model, which pull does not mind."""
    return {"config.json": b'{"architectures": []}', "generation_config.json": b"{}",
            "tokenizer.json": blob(100_000, 7), "tokenizer_config.json": b'{"a": 1}',
            "README.md": b"# not needed", "pytorch_model.bin": LFS(blob(5000, 3)),
            "model.safetensors": LFS(blob(weights)), **more}


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def env(hub, tmp_path):
    full = {k: v for k, v in os.environ.items()
            if not k.startswith(("INFERD_", "HF_", "HUGGING")) and "proxy" not in k.lower()}
    full.update(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), HF_HUB_DOWNLOAD_TIMEOUT="2")
    return full


@pytest.fixture
def pull(env):
    def run(*args, check=True, timeout=120 * SLOW, **more):
        result = subprocess.run([BIN, "pull", *map(str, args)], capture_output=True, text=True,
                                timeout=timeout, env={**env, **more})
        if check:
            assert result.returncode == 0, result.stderr
        return result
    return run


def cache(env):
    return os.path.join(env["HF_HOME"], "hub")


def repo_dir(env, name=REPO):
    return os.path.join(cache(env), "models--" + name.replace("/", "--"))


def snapshot(env, commit, name=REPO):
    return os.path.join(repo_dir(env, name), "snapshots", commit)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def check_snapshot(env, hub, commit, expected, name=REPO):
    """Bit by bit; every file a relative link to a blob that its hash names; nothing else left."""
    top = snapshot(env, commit, name)
    found = sorted(os.path.relpath(os.path.join(d, f), top) for d, _, fs in os.walk(top) for f in fs)
    assert found == sorted(expected)
    repo = hub.repos[name].commits[commit]
    for path in expected:
        full = os.path.join(top, path)
        assert read(full) == bytes(repo[path].data)
        target = os.readlink(full)
        assert target == "../" * (path.count("/") + 2) + "blobs/" + repo[path].digest
    check_blobs(env, name)


def check_blobs(env, name=REPO, whole=True):
    """No blob is visible whose contents are not what its name says."""
    blobs = os.path.join(repo_dir(env, name), "blobs")
    for entry in os.listdir(blobs) if os.path.isdir(blobs) else []:
        if ".inferd." in entry:
            assert not whole, f"left behind: {entry}"
            continue
        data = read(os.path.join(blobs, entry))
        digest = hashlib.sha256(data).hexdigest() if len(entry) == 64 else git_blob_id(data)
        assert digest == entry


WANTED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
          "tokenizer_config.json"]


def api_requests(hub):
    return [r for r in hub.requests if r.where == "api"]


# --- what is fetched ------------------------------------------------------------------------------

def test_pull_makes_a_snapshot(hub, env, pull):
    commit = hub.add_repo(REPO, files())
    result = pull(REPO)
    assert result.stdout == snapshot(env, commit) + "\n"
    check_snapshot(env, hub, commit, WANTED)
    assert read(os.path.join(repo_dir(env), "refs", "main")) == commit.encode()
    assert len(api_requests(hub)) == 1
    assert os.path.exists(os.path.join(cache(env), "CACHEDIR.TAG"))
    # What does not exist is noted, for us and for transformers.
    assert os.path.exists(os.path.join(repo_dir(env), ".no_exist", commit, "tokenizer.model"))
    assert hub.bytes_sent() == sum(hub.repos[REPO].commits[commit][p].size for p in WANTED)


def test_lines_and_bars(hub, env, pull):
    """Lines where nobody watches, bars redrawn in place on a terminal."""
    hub.add_repo(REPO, files())
    stderr = pull(REPO).stderr
    assert "5 files, 3.2 MB" in stderr and "5 of 5 files" in stderr and "/s" in stderr
    assert "\x1b" not in stderr
    shutil.rmtree(env["HF_HOME"])
    hub.rate = 5_000_000
    terminal, side = os.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen([BIN, "pull", REPO], env=env, stdout=side, stderr=side)
    os.close(side)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:
        pass  # how a terminal ends whose other side is closed
    os.close(terminal)
    assert process.wait() == 0
    assert b"model.safetensors" in shown and b"total" in shown and b"[####" in shown


def test_second_pull_asks_once_and_fetches_nothing(hub, pull):
    hub.add_repo(REPO, files())
    first = pull(REPO)
    hub.forget()
    assert pull(REPO).stdout == first.stdout
    assert [r.where for r in hub.requests] == ["api"] and hub.bytes_sent() == 0


def test_pinned_commit_asks_nothing(hub, pull):
    commit = hub.add_repo(REPO, files())
    pull(f"{REPO}@{commit}")
    hub.forget()
    pull(REPO, "--revision", commit)
    assert hub.requests == []


def test_offline(hub, env, pull):
    commit = hub.add_repo(REPO, files())
    result = pull(REPO, check=False, HF_HUB_OFFLINE="1")
    assert result.returncode == 1 and "HF_HUB_OFFLINE" in result.stderr
    pull(REPO)
    hub.forget()
    assert pull(REPO, HF_HUB_OFFLINE="1").stdout.strip() == snapshot(env, commit)
    assert hub.requests == []


def test_hub_down_uses_what_is_here_and_warns(hub, env, pull):
    commit = hub.add_repo(REPO, files())
    pull(REPO)
    hub.faults.append(Fault("api", "status", times=-1, code=503))
    result = pull(REPO)
    assert result.stdout.strip() == snapshot(env, commit)
    assert "WARNING" in result.stderr and "503" in result.stderr
    result = pull(REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert result.stdout.strip() == snapshot(env, commit) and "WARNING" in result.stderr


def test_new_commit_fetches_only_what_changed(hub, env, pull):
    hub.add_repo(REPO, files())
    pull(REPO)
    hub.forget()
    commit = hub.add_repo(REPO, files(**{"config.json": b'{"new": true}'}))
    assert pull(REPO).stdout.strip() == snapshot(env, commit)
    check_snapshot(env, hub, commit, WANTED)
    assert hub.bytes_sent() == len(b'{"new": true}')


def test_branch_with_a_slash(hub, env, pull):
    commit = hub.add_repo(REPO, files(), ref="refs/pr/1")
    assert pull(REPO + "@refs/pr/1").stdout.strip() == snapshot(env, commit)
    assert read(os.path.join(repo_dir(env), "refs", "refs", "pr", "1")) == commit.encode()


def test_shards_of_the_index(hub, env, pull):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}
    content = files(**{"model.safetensors.index.json": json.dumps(index).encode(),
                       "merges.txt": b"",
                       "model-00001-of-00002.safetensors": LFS(blob(70000, 4)),
                       "model-00002-of-00002.safetensors": LFS(blob(80000, 5)),
                       "original/consolidated.safetensors": LFS(blob(9000, 6))})
    del content["model.safetensors"]
    commit = hub.add_repo(REPO, content)
    pull(REPO)
    check_snapshot(env, hub, commit, [p for p in WANTED if p != "model.safetensors"] +
                   [p for p in content if p.startswith(("model", "merges"))])
    hub.forget()
    pull(f"{REPO}@{commit}")
    assert hub.requests == []


def test_gguf_by_quant_and_by_name(hub, env, pull):
    names = ["x-Q4_K_M.gguf", "x-Q4_K.gguf", "big/x-Q8_0-00001-of-00002.gguf",
             "big/x-Q8_0-00002-of-00002.gguf", "mmproj-x-Q8_0.gguf"]
    commit = hub.add_repo(REPO, {"README.md": b"", **{n: LFS(blob(5000, i))
                                                      for i, n in enumerate(names)}})
    out = pull(f"{REPO}:q4_k").stdout.strip()
    assert out == os.path.join(snapshot(env, commit), "x-Q4_K.gguf")
    check_snapshot(env, hub, commit, ["x-Q4_K.gguf"])
    out = pull(f"{REPO}@main:Q8_0").stdout.strip()
    assert out == os.path.join(snapshot(env, commit), names[2])
    check_snapshot(env, hub, commit, ["x-Q4_K.gguf", *names[2:4]])
    pull(f"{REPO}:x-Q4_K_M.gguf")
    hub.forget()
    pull(f"{REPO}@{commit}:Q8_0")
    assert hub.requests == []
    result = pull(f"{REPO}:Q2_K", check=False)
    assert result.returncode == 1 and "x-Q4_K_M.gguf" in result.stderr
    result = pull(REPO, check=False)
    assert "ORG/NAME:FILE" in result.stderr


def test_only_pickles(hub, pull):
    content = files()
    del content["model.safetensors"]
    hub.add_repo(REPO, content)
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "pytorch_model.bin" in result.stderr
    assert "safetensors" in result.stderr


# --- refusals -------------------------------------------------------------------------------------

def test_what_was_looked_for(hub, pull):
    hub.add_repo(REPO, files())
    result = pull("acme/nothing", check=False)
    assert result.returncode == 1 and "acme/nothing" in result.stderr and "404" in result.stderr
    result = pull(REPO + "@nowhere", check=False)
    assert "nowhere" in result.stderr and "branch" in result.stderr
    result = pull("acme/../etc", check=False)
    assert result.returncode == 1 and hub.bytes_sent() == 0


def test_gated(hub, env, pull, tmp_path):
    commit = hub.add_repo(REPO, files())
    hub.tokens[REPO] = "hf_right"
    result = pull(REPO, check=False)
    assert "gated" in result.stderr and f"{hub.url}/{REPO}" in result.stderr
    assert "HF_TOKEN" in result.stderr
    result = pull(REPO, check=False, HF_TOKEN="hf_wrong")
    assert "gated" in result.stderr and "403" in result.stderr and "hf_wrong" not in result.stderr
    assert pull(REPO, HF_TOKEN="hf_right").stdout.strip() == snapshot(env, commit)
    # The CDN is another host: it must not see the token.
    assert any(r.where == "cdn" for r in hub.requests)
    assert all(not r.authorization for r in hub.requests if r.where == "cdn")
    shutil.rmtree(env["HF_HOME"])
    os.makedirs(env["HF_HOME"])
    with open(os.path.join(env["HF_HOME"], "token"), "w") as f:
        f.write("hf_right\n")
    pull(REPO)
    pull(REPO, "--hf-token", "hf_right", "--download-dir", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / ("models--" + REPO.replace("/", "--"))).is_dir()


def test_redirect_away_from_http(hub, pull):
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("resolve", "redirect", times=-1, path="model.safetensors",
                            value="ftp://127.0.0.1/x"))
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "redirect" in result.stderr


def test_redirect_loop_ends(hub, pull):
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("resolve", "redirect", times=-1, path="model.safetensors",
                            value=f"/{REPO}/resolve/main/model.safetensors"))
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "redirects" in result.stderr


def test_https(env, tmp_path):
    """Certificates count, and from https nothing leads back to http."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make a certificate with")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                    "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    secure, plain = Hub(tls), Hub()
    try:
        secure.add_repo(REPO, files())
        plain.add_repo(REPO, files())

        def run(**more):
            return subprocess.run([BIN, "pull", REPO], capture_output=True, text=True,
                                  timeout=60 * SLOW, env={**env, "HF_ENDPOINT": secure.url, **more})

        begin = time.time()
        result = run()
        assert result.returncode == 1 and "certificate" in result.stderr
        assert time.time() - begin < 20 * SLOW and secure.requests == []
        secure.faults.append(Fault("resolve", "redirect", times=-1, path="model.safetensors",
                                   value=plain.url + f"/{REPO}/resolve/main/model.safetensors"))
        result = run(SSL_CERT_FILE=str(cert))
        assert result.returncode == 1 and "not https" in result.stderr and plain.requests == []
        secure.faults.clear()
        assert run(SSL_CERT_FILE=str(cert)).returncode == 0
    finally:
        secure.close()
        plain.close()


HOSTILE = [
    {"siblings": []}, {"sha": "zz", "siblings": []}, {"sha": "A" * 40, "siblings": []}, [], "text",
    {"sha": "a" * 40, "siblings": [{"rfilename": "../../../evil", "size": 1, "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "/etc/passwd", "size": 1, "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "config.json\n", "size": 1, "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": -1, "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 1 << 62,
                                    "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../b"}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "a" * 2000, "size": 1, "blobId": "b" * 40}]},
    {"sha": "a" * 40, "siblings": [{"rfilename": "a", "size": 1, "blobId": "b" * 40}] * 2},
    {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 1},
                                   {"rfilename": "model.safetensors", "size": 1}]},
]


def test_hostile_answers(hub, env, pull):
    hub.add_repo(REPO, files())
    for answer in HOSTILE:
        hub.faults[:] = [Fault("api", "body", times=-1, value=json.dumps(answer).encode())]
        result = pull(REPO, check=False)
        assert result.returncode == 1 and "ERROR" in result.stderr, (answer, result.stderr)
        assert hub.bytes_sent() == 0 and not os.path.exists(repo_dir(env)), answer


def test_endless_answer(hub, pull):
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("api", "body", times=-1, value=b"[" * (9 << 20)))
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "longer than" in result.stderr


def test_hostile_index(hub, env, pull):
    content = files(**{"model.safetensors.index.json":
                       json.dumps({"weight_map": {"a": "../../../evil.safetensors"}}).encode()})
    del content["model.safetensors"]
    hub.add_repo(REPO, content)
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "evil" in result.stderr
    assert not os.path.exists(os.path.join(repo_dir(env), "snapshots"))


def test_disk_space_is_checked_first(hub, env, pull):
    answer = {"sha": "a" * 40, "siblings": [
        {"rfilename": "config.json", "size": 5, "blobId": "b" * 40},
        {"rfilename": "model.safetensors", "size": 1, "blobId": "c" * 40,
         "lfs": {"sha256": "d" * 64, "size": 15 << 40}}]}
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("api", "body", times=-1, value=json.dumps(answer).encode()))
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "16.5 TB" in result.stderr and "are free" in result.stderr
    assert all(r.where == "api" for r in hub.requests)


# --- what passes ----------------------------------------------------------------------------------

PASSING = [
    Fault("cdn", "truncate", times=3, after=100_000),
    Fault("cdn", "reset", times=3, after=300_000),
    Fault("cdn", "drop", times=2),
    Fault("cdn", "hang", times=1, after=100_000),
    Fault("cdn", "short_length", times=2),
    Fault("cdn", "long_length", times=2),
    Fault("cdn", "too_much", times=2),
    Fault("cdn", "wrong_range", times=2),
    Fault("cdn", "wrong_total", times=2),
    Fault("cdn", "encoded", times=1),
    Fault("cdn", "corrupt", times=1),
    Fault("cdn", "ignore_range", times=-1),
    Fault("cdn", "ignore_range", times=2),
    Fault("cdn", "status", times=2, code=403),
    Fault("cdn", "status", times=1, code=500),
    Fault("resolve", "status", times=2, code=503, path="model.safetensors"),
    Fault("resolve", "corrupt", times=1, path="tokenizer.json"),
    Fault("resolve", "truncate", times=1, path="tokenizer.json", after=1000),
    Fault("api", "status", times=1, code=502),
    Fault("api", "drop", times=1),
]


@pytest.mark.parametrize("fault", PASSING,
                         ids=[f"{f.where}-{f.kind}{f.code or ''}-{f.times}" for f in PASSING])
def test_faults_that_pass(hub, env, pull, fault):
    """Two parts of weights, so that ranges are asked for; each fault ends in the right bytes."""
    commit = hub.add_repo(REPO, files(weights=PART + 500_000))
    hub.faults.append(dataclass_copy(fault))
    pull(REPO)
    check_snapshot(env, hub, commit, WANTED)
    assert hub.faults[0].times <= 0


def dataclass_copy(fault):
    return Fault(**vars(fault))


def test_retry_after_is_kept(hub, env, pull):
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("api", "status", times=1, code=429, headers={"Retry-After": "2"}))
    begin = time.time()
    pull(REPO)
    assert time.time() - begin >= 2
    hub.faults.append(Fault("api", "status", times=1, code=429, headers={"Retry-After": "4000"}))
    shutil.rmtree(env["HF_HOME"])
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "4000" in result.stderr


def test_wrong_hash_is_refused(hub, env, pull):
    hub.add_repo(REPO, files())
    hub.faults.append(Fault("cdn", "corrupt", times=-1))
    result = pull(REPO, check=False)
    assert result.returncode == 1 and "hash" in result.stderr
    check_blobs(env)
    assert not os.path.exists(os.path.join(repo_dir(env), "refs"))
    hub.faults.clear()
    pull(REPO)


# --- interruptions --------------------------------------------------------------------------------

def start_pull(env, *args):
    return subprocess.Popen([BIN, "pull", *args], env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def wait_sent(hub, wanted, process, timeout=60):
    end = time.time() + timeout * SLOW
    while hub.bytes_sent() < wanted and time.time() < end and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_resumed_after_a_kill(hub, env, pull, sig):
    commit = hub.add_repo(REPO, files(weights=2 * PART + 12345))
    hub.rate = 20_000_000
    process = start_pull(env, REPO)
    wait_sent(hub, 22 << 20, process)  # more than a part: what is fetched anew must be less
    begin = time.time()
    process.send_signal(sig)
    process.communicate()
    assert time.time() - begin < 15
    assert process.returncode == (-9 if sig == signal.SIGKILL else 128 + 15)
    check_blobs(env, whole=False)
    assert not os.path.exists(snapshot(env, commit))
    hub.rate = 0
    pull(REPO)
    check_snapshot(env, hub, commit, WANTED)
    assert 0 <= hub.bytes_sent_twice() <= PART


def test_a_damaged_leftover_is_found_out(hub, env, pull):
    """As after a crash of the machine: the record promises bytes that the file does not have."""
    commit = hub.add_repo(REPO, files(weights=2 * PART))
    hub.rate = 20_000_000
    process = start_pull(env, REPO)
    wait_sent(hub, 8 << 20, process)
    process.kill()
    process.communicate()
    blobs = os.path.join(repo_dir(env), "blobs")
    left = [f for f in os.listdir(blobs) if f.endswith(".inferd.incomplete")]
    for name in left:
        with open(os.path.join(blobs, name), "r+b") as f:
            f.write(b"\xff" * 4096)
    hub.rate = 0
    assert left and "hash" in pull(REPO).stderr
    check_snapshot(env, hub, commit, WANTED)


def test_two_processes_share_one_download(hub, env):
    commit = hub.add_repo(REPO, files(weights=PART + 100))
    hub.rate = 4_000_000
    processes = [start_pull(env, REPO)]
    wait_sent(hub, 1 << 20, processes[0])
    processes.append(start_pull(env, REPO))
    outputs = [p.communicate(timeout=60 * SLOW) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert "another process" in outputs[0][1] + outputs[1][1]
    assert hub.bytes_sent_twice() == 0
    check_snapshot(env, hub, commit, WANTED)


def test_waits_for_the_lock_of_another_program(hub, env, pull):
    """The lock that huggingface_hub takes: flock on .locks/REPO/HASH.lock."""
    commit = hub.add_repo(REPO, files())
    digest = hub.repos[REPO].commits[commit]["model.safetensors"].digest
    locks = os.path.join(cache(env), ".locks", "models--" + REPO.replace("/", "--"))
    os.makedirs(locks)
    with open(os.path.join(locks, digest + ".lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        threading.Timer(1.5, lambda: fcntl.flock(f, fcntl.LOCK_UN)).start()
        begin = time.time()
        result = pull(REPO)
        assert time.time() - begin >= 1.4 and "waiting" in result.stderr
    check_snapshot(env, hub, commit, WANTED)


def test_full_disk(hub, env, pull, tmp_path):
    """A file system of 8 MB of its own, if this user can mount one, that fills up meanwhile."""
    script = """
        mount -t tmpfs -o size=8m none "$1" && dd if=/dev/zero of="$1/fill" bs=1M count=5 status=none
        "$2" pull "$3" --download-dir "$1/hub"; echo "code $?"
        rm "$1/fill"; exec "$2" pull "$3" --download-dir "$1/hub" """
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("no user namespaces here: cannot mount a small file system")
    hub.add_repo(REPO, files(weights=4 << 20))
    target = tmp_path / "small"
    target.mkdir()
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", str(target), BIN, REPO],
                            capture_output=True, text=True, env=env, timeout=60 * SLOW)
    assert "code 1" in result.stdout and "are free" in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr


# --- the daemon -----------------------------------------------------------------------------------

def model_files(directory):
    return {str(p.relative_to(directory)): LFS(p.read_bytes()) if p.suffix == ".safetensors"
            else p.read_bytes() for p in directory.iterdir() if p.is_file()}


def test_serve_from_the_hub(hub, env, start_server, model_dir):
    hub.add_repo(REPO, model_files(model_dir))
    hub.rate = 1_000_000
    server = start_server(REPO, "--kv-cache-memory-bytes", "16M", env=env, wait=False)
    seen = set()
    end = time.time() + 60 * SLOW
    while time.time() < end and server.process.poll() is None:
        try:
            status, text = server.get("/health")
        except OSError:
            continue
        if status == 200:
            break
        seen.add(json.loads(text)["error"]["message"])
        time.sleep(0.01)
    assert any(m.startswith("loading: hub, ") and " % of " in m for m in seen), (
        seen, server.read_log())
    assert server.complete("Once", max_tokens=2)["model"] == REPO
    assert server.stop() == 0
    hub.forget()
    server = start_server(REPO, "--kv-cache-memory-bytes", "16M",
                          env={**env, "HF_HUB_OFFLINE": "1"})
    server.complete("Once", max_tokens=2)
    assert hub.requests == []


def test_sigterm_while_downloading(hub, env, start_server, model_dir):
    hub.add_repo(REPO, model_files(model_dir))
    hub.faults.append(Fault("cdn", "hang", times=-1, after=1000))
    server = start_server(REPO, env=env, wait=False)
    wait_sent(hub, 1000, server.process)
    begin = time.time()
    server.process.send_signal(signal.SIGTERM)
    assert server.stop(timeout=30) == 0 and time.time() - begin < 20


def test_plan_fetches_kilobytes(hub, env, model_dir, tmp_path):
    env["TMPDIR"] = str(tmp_path / "tmp")
    os.makedirs(env["TMPDIR"])
    content = model_files(model_dir)
    hub.add_repo(REPO, content)

    def plan(model):
        result = subprocess.run([BIN, "plan", str(model), "--json"], env=env, capture_output=True,
                                text=True, timeout=60 * SLOW)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    remote, local = plan(REPO), plan(model_dir)
    # How much memory is free changes from one moment to the next.
    for key in ("weights_bytes", "activation_bytes", "workspace_bytes", "batch_bytes",
                "block_bytes", "max_model_len"):
        if key in local:
            assert remote[key] == local[key], key
    assert "weights_bytes" in local
    weights = [p for p in content if p.endswith(".safetensors")]
    assert hub.bytes_sent() <= len(weights) * (64 << 10) + (64 << 10)
    assert not os.path.exists(repo_dir(env))
    assert os.listdir(env["TMPDIR"]) == []
