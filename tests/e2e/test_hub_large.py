"""600 MB in three files, under each fault and under ten random kills; minutes, so only for
`make test-hub` (INFERD_HUB_LARGE=1). Prints what was fetched how often."""
import hashlib
import json
import os
import random
import shutil
import time

import pytest

from conftest import SLOW
from test_hub import (PASSING, PART, REPO, dataclass_copy, env, hub, pull,  # noqa: F401
                      repo_dir, snapshot, start_pull, wait_sent)
from hub_server import LFS

pytestmark = [
    pytest.mark.skipif(not os.environ.get("INFERD_HUB_LARGE"),
                       reason="600 MB per test: make test-hub runs it"),
    pytest.mark.timeout(900),
]
SIZES = [200_000_003, 200 << 20, 190_284_797]  # 600 MB; none is of whole parts but the second


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The three files, incompressible, on disk once for all tests."""
    top = tmp_path_factory.mktemp("hub-sources")
    paths = []
    for i, size in enumerate(SIZES):
        path = top / f"model-0000{i + 1}-of-00003.safetensors"
        generator = random.Random(i)
        with open(path, "wb") as f:
            while f.tell() < size:
                f.write(generator.randbytes(min(8 << 20, size - f.tell())))
        paths.append(path)
    yield paths
    shutil.rmtree(top)


@pytest.fixture
def model(hub, env, sources):  # noqa: F811
    index = {"weight_map": {f"t{i}": p.name for i, p in enumerate(sources)}}
    commit = hub.add_repo(REPO, {"config.json": b"{}", "tokenizer.json": b"{}",
                                 "model.safetensors.index.json": json.dumps(index).encode(),
                                 **{p.name: LFS(p) for p in sources}})
    yield commit
    shutil.rmtree(env["HF_HOME"], ignore_errors=True)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def check_identical(env, hub, commit):  # noqa: F811
    for path, file in hub.repos[REPO].commits[commit].items():
        full = os.path.join(snapshot(env, commit), path)
        if file.lfs:
            assert sha256(full) == file.digest
        else:
            with open(full, "rb") as f:
                assert f.read() == bytes(file.data)
    left = os.listdir(os.path.join(repo_dir(env), "blobs"))
    assert len(left) == len(set(f.digest for f in hub.repos[REPO].commits[commit].values())), left


@pytest.mark.parametrize("fault", [None, *PASSING],
                         ids=lambda f: f"{f.where}-{f.kind}{f.code or ''}-{f.times}" if f else "none")
def test_each_fault(hub, env, pull, model, fault, capsys):  # noqa: F811
    if fault:
        copy = dataclass_copy(fault)
        copy.path = copy.path.replace("model.safetensors", "00001-of-00003")
        hub.faults.append(copy)
    begin = time.time()
    pull(REPO, timeout=600 * SLOW)
    seconds = time.time() - begin
    check_identical(env, hub, model)
    assert not hub.faults or hub.faults[0].times <= 0
    with capsys.disabled():
        print(f"\n600 MB, {fault.where + ' ' + fault.kind if fault else 'no fault'}: identical, "
              f"{seconds:.1f} s, {hub.bytes_sent_twice()} bytes sent twice", flush=True)


def test_ten_random_kills(hub, env, pull, model, capsys):  # noqa: F811
    generator = random.Random(os.environ.get("INFERD_HUB_SEED", "1"))
    hub.rate = 12_000_000  # per connection: some seconds for all of it
    log = []
    for _ in range(10):
        sent, twice = hub.bytes_sent(), hub.bytes_sent_twice()
        process = start_pull(env, REPO)
        wait_sent(hub, sent + generator.randrange(1 << 20, 50 << 20), process)
        assert process.poll() is None, "it was ready too soon for ten kills"
        process.kill()
        process.communicate()
        time.sleep(0.3)  # for what the server had already begun to send
        log.append((hub.bytes_sent() - sent, hub.bytes_sent_twice() - twice))
    hub.rate = 0
    before = hub.bytes_sent_twice()
    pull(REPO, timeout=600 * SLOW)
    # What a kill lost is sent again by the run after it.
    lost = [twice for _, twice in log[1:]] + [hub.bytes_sent_twice() - before]
    check_identical(env, hub, model)
    with capsys.disabled():
        print("\nten kills, each after (bytes), and what it cost: "
              + ", ".join(f"{sent}: {cost}" for (sent, _), cost in zip(log, lost)))
        print(f"600 MB, ten kills: identical, {hub.bytes_sent_twice()} bytes sent twice, at most "
              f"{max(lost)} for one kill; a part is {PART}", flush=True)
    assert max(lost) <= PART
