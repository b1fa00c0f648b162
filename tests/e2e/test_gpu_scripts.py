"""What `make test-gpu` and `make bench-gpu` run, tried with small sizes on the emulated device."""
import pathlib
import subprocess
import sys
import time

import pytest

from conftest import BIN, ROOT, SANITIZED

GPU = ROOT / "tests" / "gpu"
sys.path.insert(0, str(GPU))
import cuda_resources  # noqa: E402
import harness  # noqa: E402


def run(script, *args):
    return subprocess.run([sys.executable, GPU / script, "--build", pathlib.Path(BIN).parent, *args],
                          capture_output=True, text=True, timeout=400)


@pytest.mark.skipif(SANITIZED, reason="times and sizes are those of a plain build")
def test_check(shared_models):
    result = run("check_gpu.py", "--emulated", "--tiny")
    assert result.returncode == 0, result.stdout + result.stderr
    for part in ("ops against the CPU: passed, 1 programs", "stories260K: passed",
                 "goldens of all architectures: passed, 2 architectures",
                 "64 mixed clients: passed, twice 12 clients", "compute-sanitizer memcheck: not run"):
        assert part in result.stdout


@pytest.mark.skipif(SANITIZED, reason="times and sizes are those of a plain build")
def test_bench():
    result = run("bench_gpu.py", "--emulated", "--tiny")
    assert result.returncode == 0, result.stdout + result.stderr
    for figure in ("GB/s", "head_dim 128, batch 2, 1 queries, context 32: ", "prefill 40: ", "decode, batch 4, context 32: ", "times the batch-invariant",
                   "products of more than 16 rows", "exec to ready", "weights: ", "off by",
                   "same bits: equal", "16 requests in", "TTFT, ms: p50", "ITL, ms: p50"):
        assert figure in result.stdout, result.stdout


@pytest.mark.skipif(SANITIZED, reason="times and sizes are those of a plain build")
@pytest.mark.parametrize("does, code, words", [
    ("shift 6\nexec \"$@\"", 0, "clean, 1 programs"),
    ("echo '========= Invalid __global__ read of size 4 bytes'\nexit 9", 1, "memcheck of test_device_cuda"),
    ("echo '========= Invalid __global__ read of size 4 bytes'\nexec sleep 60", 1,
     "memcheck of test_device_cuda"),
    ("exec sleep 60", 1, "no program was through in its time"),
])
def test_sanitizer(tmp_path, does, code, words):
    """A script in its place."""
    tool = tmp_path / "sanitizer"
    tool.write_text(f"#!/bin/sh\n[ $2 = memcheck ] || exit 3\n{does}\n")
    tool.chmod(0o755)
    result = run("check_gpu.py", "--emulated", "--tiny", "--only", "memcheck", "--sanitizer", tool,
                 "--seconds", "3")
    assert result.returncode == code, result.stdout + result.stderr
    assert words in result.stdout


def test_without_a_gpu():
    if list(pathlib.Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    for script in ("check_gpu.py", "bench_gpu.py"):
        result = run(script)
        assert result.returncode == 2
        assert "there is no GPU here" in result.stdout


def test_parts_that_fail_or_have_no_time(capsys):
    def fail(_end):
        raise AssertionError("tokens differ")

    def skip(_end):
        raise harness.Skipped("not installed")

    def slow(end):
        subprocess.run(["sleep", "30"], timeout=harness.left(end))

    assert harness.run_parts("x", [("good", 5, lambda end: None), ("skipped", 5, skip)], 10)
    assert "x: skipped: not run: not installed" in capsys.readouterr().out
    assert not harness.run_parts("x", [("bad", 5, fail), ("good", 5, lambda end: None)], 10)
    out = capsys.readouterr().out
    assert "x: bad: FAILED: AssertionError: tokens differ" in out and "x: good: passed" in out
    begin = time.perf_counter()
    assert not harness.run_parts("x", [("slow", 1.5, slow), ("late", 5, fail)], 2)
    out = capsys.readouterr().out
    assert "x: slow: CUT" in out and "  late: CUT: no time was left for it" in out
    assert time.perf_counter() - begin < 10


def test_a_part_that_hangs(capsys):
    """And what it waits for, which is a daemon's answer."""
    sleeper = subprocess.Popen(["sleep", "60"])
    harness.Daemon.running.append(sleeper)
    begin = time.perf_counter()
    assert not harness.run_parts("x", [("hangs", 0.1, lambda end: time.sleep(60))], 10)
    assert "x: hangs: CUT" in capsys.readouterr().out
    assert time.perf_counter() - begin < 10
    assert sleeper.wait(5) == -9
    harness.Daemon.running.remove(sleeper)


def test_figures_before_a_cut_count(tmp_path, monkeypatch):
    """Of torch, whose process is ended when its time is up."""
    import bench_gpu
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho '{\"name\": \"dense\", \"value\": 5.0, \"text\": \"five\"}'\n"
                    "exec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(bench_gpu.sys, "executable", str(slow))
    args = type("Args", (), {"tiny": True})
    places = type("Places", (), {"shapes": tmp_path})
    with pytest.raises(RuntimeError, match="(?s)dense: five.*CUT: no time was left"):
        bench_gpu.torch_part(args, places, "matmul", time.perf_counter() + 1)
    assert bench_gpu.measured["flops"] == 5.0


def cuda_report(folder, spilled):
    """What ptxas says of each kernel that has bounds."""
    lines = []
    for number, bound in enumerate(cuda_resources.KERNELS):
        lines += [f"ptxas info    : Compiling entry function 'kernel{number}' for 'sm_90a'",
                  f"    0 bytes stack frame, {spilled if number == 0 else 0} bytes spill stores, "
                  "0 bytes spill loads",
                  f"ptxas info    : Used {bound[3]} registers, used 1 barriers, 1024 bytes smem"]
    (folder / "all.cu.o.ptxas").write_text("\n".join(lines))


@pytest.mark.parametrize("more, message", [(0, ""), (1, "spilled bytes, at most")])
def test_resources_are_bounded(tmp_path, monkeypatch, capsys, more, message):
    names = ["gemv_kernel<x, 1>", "gemv_kernel<x, 2>", "dense_kernel<x, tile<128, 128, 2> >",
             "dense_kernel<x, tile<64, 32, 4> >", "decode_kernel<x, 64, 2>",
             "decode_kernel<x, 128, 2>", "decode_kernel<x, 256, 2>", "decode_kernel<x, 256, 1>",
             "prefill_kernel<x, 64>", "prefill_kernel<x, 128>", "prefill_wide_kernel<x, 4>",
             "prefill_wide_kernel<x, 8>", "mla_decode_kernel<x, mla_shape<64, 2> >",
             "mla_prefill_kernel<x, mla_shape<64, 2> >", "norm_kernel<true>", "rotary_kernel",
             "sample_kernel"]
    cuda_report(tmp_path, cuda_resources.KERNELS[0][4] + more)
    monkeypatch.setattr(cuda_resources, "demangle", lambda mangled: names)
    monkeypatch.setattr(sys, "argv", ["cuda_resources.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cuda_resources.main()
    assert ended.value.code == more
    assert message in capsys.readouterr().err


def test_resources():
    folder = pathlib.Path(BIN).parent / "obj" / "kernels" / "cuda"
    plugin = pathlib.Path(BIN).parent / "inferd_cuda.so"
    if not plugin.exists() or cuda_resources.unreported(folder):
        pytest.skip("nvcc did not make the whole plug-in here, or did not report")
    result = subprocess.run([sys.executable, GPU / "cuda_resources.py", folder],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
