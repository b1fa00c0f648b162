"""setup.sh and make: what they say and, above all, what they leave alone."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


def shadowed(tmp_path, **commands):
    """An environment whose PATH has these scripts in front."""
    for name, script in commands.items():
        path = tmp_path / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def setup(env, *groups):
    return subprocess.run([ROOT / "setup.sh", *groups], env=env, capture_output=True, text=True)


ALL_THERE = "echo installed"


def test_no_apt_when_everything_is_there(tmp_path):
    env = shadowed(tmp_path, dpkg_query=ALL_THERE, apt_get=f"touch {tmp_path}/called; exit 1")
    result = setup(env, "build", "runtime", "test", "lint")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "called").exists()


def test_installs_only_what_is_missing_and_retries_update(tmp_path):
    log = tmp_path / "log"
    env = shadowed(
        tmp_path,
        dpkg_query='for a; do :; done; [ "$a" != libjansson-dev ] && echo installed',
        apt_cache="echo Package: x",
        id="echo 0",
        sleep="exit 0",
        apt_get=f'echo "$DEBIAN_FRONTEND $*" >>{log}; '
        f'case "$*" in *update*) [ $(grep -c update {log}) -gt 1 ] ;; esac',
    )
    result = setup(env, "build")
    assert result.returncode == 0, result.stderr
    lines = log.read_text().splitlines()
    assert [("update" in line, "install" in line) for line in lines] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert lines[2].endswith("install -y --no-install-recommends libjansson-dev")
    assert all(line.startswith("noninteractive ") for line in lines)


def test_alternatives_take_what_the_release_has(tmp_path):
    log = tmp_path / "log"
    env = shadowed(
        tmp_path,
        dpkg_query="exit 1",
        apt_cache='for a; do :; done; [ "$a" != libcurl4t64 ] && echo Package: x',
        id="echo 0",
        apt_get=f'echo "$*" >>{log}',
    )
    assert setup(env, "runtime").returncode == 0
    words = log.read_text().split()
    assert "libcurl4" in words and "libcurl4t64" not in words
    assert "libmicrohttpd12t64" in words and "libmicrohttpd12" not in words


def test_without_root_or_sudo_says_what_to_run(tmp_path):
    env = shadowed(tmp_path, dpkg_query="exit 1", id="echo 1000")
    env["PATH"] = f"{tmp_path}:{without('sudo', tmp_path)}"
    result = setup(env, "build")
    assert result.returncode != 0
    assert "as root, run: ./setup.sh build" in result.stderr


def without(command, tmp_path):
    """A directory with links to the few tools setup.sh uses, but not to `command`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "grep", "dirname", "sleep"):
        assert name != command
        for folder in ("/usr/bin", "/bin"):
            if (path := pathlib.Path(folder) / name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(path)
    return tools


def test_unknown_group():
    result = setup(dict(os.environ), "nonsense")
    assert result.returncode == 2 and "'nonsense'" in result.stderr
