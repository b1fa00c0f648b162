"""One cache, two programs: huggingface_hub reads what inferd has downloaded, inferd what it has, both
offline. It runs in an interpreter of its own: INFERD_HUB_PYTHON, or this one where it has the package
(tests/requirements-hub.txt)."""
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from conftest import SLOW
from test_hub import (REPO, WANTED, PART, blob, check_snapshot, env, files, hub,  # noqa: F401
                      pull, snapshot, start_pull)
from hub_server import LFS

PYTHON = os.environ.get("INFERD_HUB_PYTHON") or (
    sys.executable if importlib.util.find_spec("huggingface_hub") else None)
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="huggingface_hub is not here: pip install -r tests/requirements-hub.txt, or "
                       "INFERD_HUB_PYTHON=an interpreter that has it")


def python(env, code, **more):  # noqa: F811
    """Runs code that leaves its answer in `answer`."""
    program = ("import json\nfrom huggingface_hub import *\nimport huggingface_hub as h\n"
               f"{code}\nprint(json.dumps(answer))")
    result = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True,
                            timeout=120 * SLOW,
                            env={**env, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
                                 "HF_HUB_DOWNLOAD_TIMEOUT": "20", **more})
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_python_reads_ours(hub, env, pull):  # noqa: F811
    commit = hub.add_repo(REPO, files(weights=PART + 1000))
    pull(REPO)
    hub.forget()
    code = f"""
files = {WANTED!r}
answer = dict(
    snapshot=snapshot_download({REPO!r}),
    local=snapshot_download({REPO!r}, revision={commit!r}, local_files_only=True),
    files=[hf_hub_download({REPO!r}, f) for f in files],
    absent=try_to_load_from_cache({REPO!r}, "vocab.json") is h._CACHED_NO_EXIST,
    warnings=[str(w) for w in scan_cache_dir().warnings],
    scanned=[[r.repo_id, r.nb_files, sorted(r.refs)] for r in scan_cache_dir().repos])"""
    answer = python(env, code, HF_HUB_OFFLINE="1")
    top = snapshot(env, commit)
    assert answer["snapshot"] == answer["local"] == top
    assert answer["files"] == [os.path.join(top, f) for f in WANTED]
    assert answer["absent"] is True and answer["warnings"] == []
    assert answer["scanned"] == [[REPO, len(WANTED), ["main"]]]
    assert hub.requests == []


def test_python_online_fetches_only_the_rest(hub, env, pull):  # noqa: F811
    content = files()
    commit = hub.add_repo(REPO, content)
    pull(REPO)
    hub.forget()
    assert python(env, f"answer = snapshot_download({REPO!r})") == snapshot(env, commit)
    rest = [p for p in content if p not in WANTED]
    repo = hub.repos[REPO].commits[commit]
    assert set(hub.sent) == {repo[p].digest for p in rest}


def test_we_read_pythons(hub, env, pull):  # noqa: F811
    content = files(weights=PART + 1000)
    commit = hub.add_repo(REPO, content)
    top = python(env, f"answer = snapshot_download({REPO!r})")
    hub.forget()
    assert pull(REPO, HF_HUB_OFFLINE="1").stdout.strip() == top
    assert pull(f"{REPO}@{commit}", HF_HUB_OFFLINE="1").stdout.strip() == top
    assert hub.requests == []
    # A pinned commit asks nobody: huggingface_hub leaves the list of the files there are.
    assert pull(f"{REPO}@{commit}").stdout.strip() == top
    assert hub.requests == []
    assert pull(REPO).stdout.strip() == top
    assert [r.where for r in hub.requests] == ["api"] and hub.bytes_sent() == 0


def test_we_complete_pythons(hub, env, pull):  # noqa: F811
    commit = hub.add_repo(REPO, files())
    python(env, f"answer = [hf_hub_download({REPO!r}, f) for f in ('config.json', "
                "'model.safetensors')]")
    hub.forget()
    pull(REPO)
    repo = hub.repos[REPO].commits[commit]
    assert set(hub.sent) == {repo[p].digest for p in WANTED} - {
        repo[p].digest for p in ("config.json", "model.safetensors")}
    check_snapshot(env, hub, commit, WANTED)


def test_gguf_of_python(hub, env, pull):  # noqa: F811
    hub.add_repo(REPO, {"x-Q4_0.gguf": LFS(blob(5000)), "x-Q8_0.gguf": LFS(blob(6000))})
    path = python(env, f"answer = hf_hub_download({REPO!r}, 'x-Q8_0.gguf')")
    assert pull(f"{REPO}:Q8_0", HF_HUB_OFFLINE="1").stdout.strip() == path


def test_both_at_once(hub, env, pull):  # noqa: F811
    commit = hub.add_repo(REPO, files(weights=PART + 1000))
    hub.rate = 8_000_000
    ours = start_pull(env, REPO)
    python(env, f"answer = snapshot_download({REPO!r}, allow_patterns={WANTED!r})")
    output = ours.communicate(timeout=120 * SLOW)
    assert ours.returncode == 0, output
    assert hub.bytes_sent_twice() == 0
    check_snapshot(env, hub, commit, WANTED)
