"""make bundle: the folder runs from anywhere, and from a root that holds the C library and nothing
else."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
GLIBC = ("linux-vdso", "ld-linux", "libc.", "libm.", "libdl.", "librt.", "libpthread.", "libresolv.",
         "libmvec.")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    if os.environ.get("INFERD_SANITIZED"):
        pytest.skip("a build with a sanitizer is not released")
    where = tmp_path_factory.mktemp("elsewhere") / "inferd"
    subprocess.run(["make", "--no-print-directory", f"BUILD={BUILD}", f"BUNDLE={where}", "bundle-only"],
                   cwd=ROOT, check=True, capture_output=True, text=True)
    return where


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundled") / "tiny"
    subprocess.run([sys.executable, ROOT / "tests" / "fixtures" / "make_tiny.py", path], check=True)
    return path


def elf_files(folder):
    return [f for f in folder.rglob("*") if f.is_file() and f.read_bytes()[:4] == b"\x7fELF"]


def libraries(path):
    """Name and file of each library that the loader takes, with an empty environment."""
    out = subprocess.run(["env", "-i", "/usr/bin/ldd", str(path)], capture_output=True, text=True,
                         check=True).stdout
    for line in out.splitlines():
        words = line.split()
        yield words[0], words[2] if "=>" in words else words[0]


def test_libraries_lie_within(bundle):
    program = bundle / "bin" / "inferd"
    checked = 0
    for name, path in libraries(program):
        if not os.path.basename(name).startswith(GLIBC):
            assert pathlib.Path(path).resolve().is_relative_to(bundle.resolve()), (name, path)
            checked += 1
    assert checked >= 8
    # What any file of it needs is there by name: the run path of the program holds for all.
    for elf in elf_files(bundle):
        needed = subprocess.run(["readelf", "-d", str(elf)], capture_output=True, text=True).stdout
        for line in needed.splitlines():
            if "(NEEDED)" in line:
                name = line.split("[")[1].rstrip("]")
                assert name.startswith(GLIBC) or (bundle / "lib" / name).exists(), (elf, name)


def test_carries_nccl(bundle, tmp_path):
    """Where it is found; the plug-in, real or not, loads it from there with nothing in the environment."""
    nccl, plugin = BUILD / "emu" / "libnccl.so.2", BUILD / "inferd_cuda_emu.so"
    if not nccl.exists() or not plugin.exists():
        pytest.skip("the stand-ins for CUDA and NCCL are not built (make unit-tests)")
    where = tmp_path / "inferd"
    subprocess.run(["./bundle.sh", str(BUILD / "inferd-bundled"), str(plugin), str(where)], cwd=ROOT,
                   check=True, capture_output=True, env={**os.environ, "NCCL": str(nccl)})
    assert (where / "lib" / "libnccl.so.2").read_bytes() == nccl.read_bytes()
    model = tmp_path / "tiny"
    subprocess.run([sys.executable, ROOT / "tests" / "fixtures" / "make_tiny.py", model], check=True)
    result = subprocess.run(["env", "-i", "EMU_DEVICE_COUNT=2",
                             f"FAKE_NCCL_RUNTIME={where / 'bin' / 'inferd_cuda.so'}",
                             str(where / "bin" / "inferd"), "plan", str(model), "--device", "cuda",
                             "--tensor-parallel-size", "2"], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert "they meet through NCCL 2.32.3" in result.stderr


def test_carries_the_tests_of_a_gpu(tmp_path, bundle):
    """And runs them with Python alone; here on the emulated device, for which the plug-in is there."""
    program, plugin = BUILD / "inferd-bundled", BUILD / "inferd_cuda_emu.so"
    tests = [BUILD / "tests" / "kernels" / "cuda" / "test_device_cuda",
             *(BUILD / "tests" / "bench" / name for name in ("bench_copy", "bench_attention_gpu")), plugin]
    if not all(t.exists() for t in tests):
        pytest.skip("the tests of the CUDA backend are not built (make unit-tests)")
    where = tmp_path / "inferd"
    subprocess.run(["./bundle.sh", str(program), "", str(where), *map(str, tests)], cwd=ROOT,
                   check=True, capture_output=True)
    # With the interpreter that is named, and with the system's.
    for command, env in ("test-gpu", [f"PYTHON={sys.executable}"]), ("bench-gpu", []):
        result = subprocess.run(["env", "-i", *env, str(where / command), "--emulated", "--tiny"],
                                capture_output=True, text=True, cwd="/")
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"{command}: all parts ended well" in result.stdout


def test_runs_with_an_empty_environment(bundle, tiny_model):
    result = subprocess.run(["env", "-i", str(bundle / "bin" / "inferd"), "plan", str(tiny_model),
                             "--device", "cpu"], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert "KV cache" in result.stdout


def test_runs_where_nothing_else_is(bundle, tiny_model, tmp_path):
    if os.geteuid() != 0 or not shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        pytest.skip("only root may change the root directory")
    root = tmp_path / "root"
    shutil.copytree(bundle, root / "opt" / "inferd")
    shutil.copytree(tiny_model, root / "model")
    # What the kernel gives, not a package. The loader asks it where the program lies.
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "exe").symlink_to("/opt/inferd/bin/inferd")
    (root / "proc" / "meminfo").write_text(pathlib.Path("/proc/meminfo").read_text())
    for name, path in libraries(bundle / "bin" / "inferd"):
        if os.path.basename(name).startswith(GLIBC) and not name.startswith("linux-vdso"):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    chroot = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin")
    result = subprocess.run(["env", "-i", chroot, str(root), "/opt/inferd/bin/inferd", "plan",
                             "/model", "--device", "cpu"], capture_output=True, text=True)
    if "Operation not permitted" in result.stderr:
        pytest.skip("this container may not change the root directory")
    assert result.returncode == 0, result.stderr
    assert "KV cache" in result.stdout
