"""What check_gpu.py and bench_gpu.py share: where things lie, a daemon, a client, and parts with a time
limit each. The standard library alone; the same in the repository and in a bundle."""
import argparse
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUNDLE = HERE.parent if (HERE.parent / "bin" / "inferd").exists() else None
ROOT = HERE.parent.parent
if not BUNDLE:
    sys.path += [str(ROOT / "tests" / "fixtures"), str(ROOT / "tests" / "bench")]
from daemon_process import clean_environment, free_port, wait_until_ready  # noqa: E402

READY_SECONDS, REQUEST_SECONDS = 120, 120
# A part that has to end by itself and does not is ended so much later.
GRACE_SECONDS = 3
# Sequences, queries of each, positions that the last query sees: what attention is timed on.
ATTENTION_SHAPES = [(1, 512, 512), (1, 8192, 8192), (1, 32768, 32768), (8, 1, 1024), (64, 1, 1024),
                    (256, 1, 1024)]
TINY_ATTENTION_SHAPES = [(1, 16, 16), (2, 1, 32)]
ATTENTION_HEADS, ATTENTION_KV_HEADS, ATTENTION_HEAD_DIMS = 32, 8, (64, 128)


class Skipped(Exception):
    """A part that cannot run here, with the reason."""


def cuda_libraries():
    """Where cuBLASLt and NCCL may be and the loader may not look: CUDA's own folder, and the wheels that
    come with torch."""
    sites = [pathlib.Path(p) for p in sys.path if p.endswith("-packages")]
    found = [pathlib.Path("/usr/local/cuda/lib64")] + [d for s in sites for d in s.glob("nvidia/*/lib")]
    return [f for f in found if any(f.glob("libcublasLt.so.1?")) or any(f.glob("libnccl.so.2"))]


class Places:
    """`daemon` has the plug-in to test beside it; an emulated one gets a folder of its own."""

    def __init__(self, args, scratch):
        self.scratch = scratch
        if BUNDLE:
            home, self.programs = BUNDLE / "bin", BUNDLE / "tests"
            emulated, library = self.programs / "inferd_cuda_emu.so", BUNDLE / "lib"
            self.golden, self.shapes = HERE / "golden", HERE / "shapes"
            self.models, self.benches = HERE / "models", self.programs
        else:
            home = pathlib.Path(args.build).resolve()
            self.programs = home / "tests" / "kernels" / "cuda"
            emulated, library = home / "inferd_cuda_emu.so", None
            self.golden, self.shapes = ROOT / "tests/golden/arch", ROOT / "tests/fixtures/shapes"
            self.models = ROOT.parent / "shared" / "models"
            self.benches = home / "tests" / "bench"
        self.env = clean_environment()
        self.daemon, self.plugin = home / "inferd", home / "inferd_cuda.so"
        folders = [library] if library else []
        if not args.emulated:
            folders += cuda_libraries()
        folders += [f for f in [self.env.get("LD_LIBRARY_PATH")] if f]
        if folders:
            self.env["LD_LIBRARY_PATH"] = ":".join(map(str, folders))
        if args.emulated:
            (scratch / "bin").mkdir()
            self.daemon, self.plugin = scratch / "bin" / "inferd", scratch / "bin" / "inferd_cuda.so"
            shutil.copy(home / "inferd", self.daemon)
            shutil.copy(emulated, self.plugin)
            if not BUNDLE:
                shutil.copy(home / "emu" / "libcublasLt.so.13", scratch / "bin")

        # Test programs read their golden files from where they are started.
        (scratch / "tests" / "golden").mkdir(parents=True)
        (scratch / "tests" / "golden" / "arch").symlink_to(self.golden)

    def run(self, command, seconds, **kw):
        return subprocess.run([str(c) for c in command], timeout=seconds, capture_output=True,
                              text=True, env={**self.env, **kw})

    def run_until(self, command, seconds, log_name, **kw):
        """(exit code, or None where it had to be killed with all that it started; what it printed)."""
        log = self.scratch / log_name
        with open(log, "wb") as out:
            process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=out,
                                       cwd=self.scratch, env={**self.env, **kw}, start_new_session=True)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return code, log.read_text(errors="replace")

    def json_of(self, command, seconds):
        """What it prints, and its log."""
        done = self.run(command, seconds)
        if done.returncode != 0:
            raise RuntimeError(f"{command[1]} failed: {done.stderr[-1500:]}")
        return json.loads(done.stdout), done.stderr


class Client:
    """Requests to the daemon at that port; can be handed to another process."""

    def __init__(self, port):
        self.port = port

    def is_ready(self):
        return self.request("GET", "/health")[0] == 200

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)
        try:
            connection.request(method, path, json.dumps(body) if body else None,
                               {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def complete(self, **body):
        status, text = self.request("POST", "/v1/completions", body)
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {text[:500]}")
        return json.loads(text)["choices"][0]

    def stream(self, body, stop_after=None):
        """Choices of the events, each with the time of its arrival; leaves after `stop_after`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)
        out = []
        try:
            connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status}: {answer.read()[:500]}")
            for line in answer:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                out.append((time.perf_counter(), json.loads(line[6:])["choices"][0]))
                if stop_after and len(out) >= stop_after:
                    break
        finally:
            connection.close()
        return out


class Daemon(Client):
    """`with Daemon(places, model, ...) as d`: ready inside, ended with exit code 0 behind it."""

    running = []

    def __init__(self, places, model, *options):
        super().__init__(free_port())
        self.log_path = places.scratch / f"log-{self.port}"
        command = [str(places.daemon), "serve", str(model), "--device", "cuda", "--host", "127.0.0.1",
                   "--port", str(self.port), "--no-log-requests", *options]
        with open(self.log_path, "wb") as log:
            begin = time.perf_counter()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=places.env)
        self.running.append(self.process)
        try:
            wait_until_ready(self.process, self.is_ready, READY_SECONDS, self.log)
        except RuntimeError:
            self.process.kill()
            self.process.wait()
            raise
        self.ready_seconds = time.perf_counter() - begin

    def log(self):
        return self.log_path.read_text(errors="replace")

    def find(self, pattern):
        found = re.search(pattern, self.log())
        if not found:
            raise RuntimeError(f"the log has no '{pattern}': {self.log()[-2000:]}")
        return found

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if not kind and code != 0:
            raise RuntimeError(f"the daemon ended with {code}: {self.log()[-2000:]}")


def on_alarm(_signal, _frame):
    """What a part waits for ends with the daemons."""
    for process in Daemon.running:
        if process.poll() is None:
            process.kill()
    raise subprocess.TimeoutExpired("a part that does not look at the time", GRACE_SECONDS)


def run_parts(name, parts, total_seconds):
    """Each part is (title, seconds, function of the time when it has to end, in perf_counter's).
    True when none failed or was cut."""
    end, good, rows = time.perf_counter() + total_seconds, True, []
    signal.signal(signal.SIGALRM, on_alarm)
    for title, seconds, function in parts:
        begin = time.perf_counter()
        if end - begin < 1:
            rows.append((title, "CUT: no time was left for it", 0))
            good = False
            continue
        signal.setitimer(signal.ITIMER_REAL, min(end - begin, seconds) + GRACE_SECONDS)
        try:
            outcome = function(min(end, begin + seconds)) or "passed"
        except Skipped as why:
            outcome = f"not run: {why}"
        except (subprocess.TimeoutExpired, multiprocessing.TimeoutError) as e:
            outcome, good = f"CUT: over its time: {str(e)[:200]}", False
        except Exception as e:  # whatever it is, the parts that follow still have their say
            outcome, good = f"FAILED: {type(e).__name__}: {e}", False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        rows.append((title, outcome, time.perf_counter() - begin))
        print(f"{name}: {title}: {outcome} ({rows[-1][2]:.1f} s)", flush=True)
    print(f"\n{name}: " + ("all parts ended well" if good else "NOT all parts ended well"))
    for title, outcome, took in rows:
        print(f"  {title}: {outcome.splitlines()[0]} ({took:.1f} s)")
    return good


def left(end):
    """Seconds until then, for a timeout."""
    return max(0.1, end - time.perf_counter())


def parse(doc, default_seconds, groups):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    if groups:
        p.add_argument("group", choices=groups, nargs="?", help="one half of the parts (default: both)")
    p.add_argument("--build", default="build", help="where the programs are (not in a bundle)")
    p.add_argument("--emulated", action="store_true", help="on the emulated device: no GPU is needed")
    p.add_argument("--tiny", action="store_true", help="few programs and models, small sizes")
    p.add_argument("--seconds", type=float, default=default_seconds, help="for all parts together")
    p.add_argument("--only", metavar="WORDS", help="parts whose titles have these words in them")
    p.add_argument("--sanitizer", help="a compute-sanitizer other than the one that is installed")
    p.add_argument("--scratch", help="a directory for checkpoints; bench-gpu writes 16 GB")
    return p.parse_args()


def main(doc, name, make_parts, default_seconds=460, groups=()):
    args = parse(doc, default_seconds, groups)
    if not args.emulated and not list(pathlib.Path("/dev").glob("nvidia[0-9]*")):
        print(f"{name}: there is no GPU here (no /dev/nvidia0): nothing was done; --emulated --tiny "
              "runs on the emulated device")
        return 2
    with tempfile.TemporaryDirectory(prefix="inferd-gpu-", dir=args.scratch) as scratch:
        places = Places(args, pathlib.Path(scratch))
        if not places.plugin.exists():
            print(f"{name}: there is no {places.plugin}: it was built without nvcc")
            return 2
        if args.emulated:
            print(f"{name}: on the EMULATED device: its times say nothing about a GPU")
        try:
            parts = [p for p in make_parts(args, places) if not args.only or args.only in p[0]]
            return 0 if run_parts(name, parts, args.seconds) else 1
        finally:
            for process in Daemon.running:  # what a failure left
                if process.poll() is None:
                    process.kill()
                    process.wait()
