"""tests/layering.sh must fail on every kind of violation, or it protects nothing."""

import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "layering.sh"

ALLOWED = [
    ("server/http.c", '#include "server/http.h"'),
    ("server/http.c", "#include <microhttpd.h>"),
    ("server/api/models.c", '#include "server/sse.h"'),
    ("server/main.c", '#include "engine/engine.h"'),
    ("server/main.c", '#include "config/config.h"'),
    ("engine/engine.c", '#include "engine/sched/scheduler.h"'),
    ("engine/engine.c", '#include "kernels/backend.h"'),
    ("engine/model/hub_http.c", "#include <curl/curl.h>"),
    ("engine/model/hub_digest.c", "#include <openssl/evp.h>"),
    ("engine/model/arch/llama.c", '#include "engine/model/arch.h"'),
    ("engine/exec/batch.c", '#include "engine/sched/step.h"'),
    ("kernels/cpu/linear.c", '#include "kernels/device.h"'),
    ("kernels/cpu/linear.c", '  #  include "base/status.h"'),
    ("config/config.c", "#include <jansson.h>"),
    ("base/log.c", "#include <stdio.h>"),
    ("tests/engine/test_x.c", '#include "engine/sched/scheduler.h"'),
]

REFUSED = [
    ("kernels/cpu/linear.c", '#include "engine/engine.h"'),
    ("kernels/backend.c", '#include "config/config.h"'),
    ("base/log.c", '#include "config/config.h"'),
    ("base/log.c", "#include <jansson.h>"),
    ("config/config.c", '#include "engine/engine.h"'),
    ("engine/engine.c", '#include "server/http.h"'),
    ("engine/engine.c", '#include "kernels/cpu/cpu_ops.h"'),
    ("engine/engine.c", "#include <microhttpd.h>"),
    ("engine/sched/scheduler.c", '#include "engine/model/model.h"'),
    ("engine/sched/scheduler.c", '#include "kernels/tensor.h"'),
    ("engine/sched/scheduler.c", '#include "config/config.h"'),
    ("engine/text/bpe.c", '#include "engine/sched/step.h"'),
    ("engine/model/model.c", '#include "engine/exec/worker.h"'),
    ("engine/model/model.c", "#include <curl/curl.h>"),
    ("engine/model/hub.c", "#include <curl/curl.h>"),
    ("engine/model/hub.c", "#include <openssl/evp.h>"),
    ("engine/exec/worker.c", '#include "engine/sched/scheduler.h"'),
    ("engine/spec/ngram.c", '#include "engine/model/model.h"'),
    ("server/main.c", '#include "engine/sched/scheduler.h"'),
    ("server/main.c", '#include "kernels/backend.h"'),
    ("server/main.c", "#include <microhttpd.h>"),
    ("server/routes.c", "#include <pcre2.h>"),
    ("server/http.c", '#include "http.h"'),
    ("server/api/models.c", '#include "../http.h"'),
    ("server/api/models.c", '#include "server/../engine/sched/step.h"'),
    ("server/http.c", "#include <server/http.h>"),
    ("tests/engine/test_x.c", '#include "engine/engine.c"'),
    ("tests/engine/test_x.c", '#include "helper.h"'),
    ("server/http.c", "#include HEADER"),
]


def check(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"/* a file */\n{line}\n")
    return subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True)


@pytest.mark.parametrize("file,line", ALLOWED)
def test_allowed(tmp_path, file, line):
    result = check(tmp_path, file, line)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file,line", REFUSED)
def test_refused(tmp_path, file, line):
    result = check(tmp_path, file, line)
    assert result.returncode == 1
    assert f"{file}:2: #include" in result.stdout


def test_empty_tree_is_no_success(tmp_path):
    assert subprocess.run([SCRIPT, tmp_path], capture_output=True).returncode == 1


def test_this_tree():
    result = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
