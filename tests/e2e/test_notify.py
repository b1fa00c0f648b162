"""The daemon as systemd sees it: a notify socket of the test's own."""
import os
import queue
import signal
import socket
import threading
import time

from conftest import SLOW


class NotifySocket:
    """Read all the time, as systemd does: the kernel keeps no more than ten datagrams."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.messages = []
        self.arrived = queue.Queue()
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        while True:
            self.arrived.put(self.socket.recv(65536).decode().split("\n"))

    def read_until(self, wanted, timeout=20):
        """All lines up to the first that starts with `wanted`."""
        end = time.time() + timeout * SLOW
        while time.time() < end:
            try:
                lines = self.arrived.get(timeout=max(0.01, end - time.time()))
            except queue.Empty:
                break
            self.messages += lines
            if any(line.startswith(wanted) for line in lines):
                return self.messages
        raise AssertionError(f"no {wanted} among {self.messages}")


def index(messages, wanted):
    return next(i for i, m in enumerate(messages) if m.startswith(wanted))


def test_status_ready_watchdog_stopping_in_order(start_server, model_dir, tmp_path):
    notify = NotifySocket(tmp_path / "notify")
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M", env={
        "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
    notify.read_until("READY=1")
    messages = notify.read_until("WATCHDOG=1")
    assert index(messages, "STATUS=") < index(messages, "READY=1") < index(messages, "WATCHDOG=1")
    stages = [m for m in messages[: index(messages, "READY=1")] if m.startswith("STATUS=")]
    for stage in ("model files", "tokenizer", "weights", "KV cache"):
        assert any(stage in m for m in stages), (stage, stages)

    # Idle or busy, the pings go on.
    count = len([m for m in notify.messages if m == "WATCHDOG=1"])
    server.complete("Once upon a time", max_tokens=100)
    for _ in range(3):
        notify.read_until("WATCHDOG=1")
    assert len([m for m in notify.messages if m == "WATCHDOG=1"]) >= count + 3

    server.process.send_signal(signal.SIGHUP)
    messages = notify.read_until("RELOADING=1")
    assert any(m.startswith("MONOTONIC_USEC=") for m in messages)
    messages[:] = []
    notify.read_until("READY=1")
    assert server.get("/health")[0] == 200

    server.process.send_signal(signal.SIGTERM)
    notify.read_until("STOPPING=1")
    assert server.stop() == 0


def test_watchdog_of_another_process_is_not_ours(start_server, model_dir, tmp_path):
    notify = NotifySocket(tmp_path / "notify")
    start_server(model_dir, "--kv-cache-memory-bytes", "8M", env={
        "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    notify.read_until("READY=1")
    time.sleep(0.5)
    rest = []
    try:
        while True:
            rest += notify.arrived.get_nowait()
    except queue.Empty:
        pass
    assert "WATCHDOG=1" not in rest


def test_a_lost_notify_socket_does_no_harm(start_server, model_dir, tmp_path):
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M",
                          env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    server.complete("Once upon a time", max_tokens=2)
    assert os.path.exists(f"/proc/{server.process.pid}")
