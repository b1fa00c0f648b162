"""SIGTERM drains, a second signal stops at once, streams end properly either way."""
import json
import signal
import socket
import threading
import time

from conftest import SLOW


def stream(port, body, out):
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60 * SLOW) as s:
        s.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data)
        got = b""
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
            out["bytes"] = got
    out["done"] = True


def start_streams(server, count, max_tokens):
    body = {"prompt": "Once upon a time", "max_tokens": max_tokens, "ignore_eos": True,
            "stream": True, "temperature": 0}
    outs = [{} for _ in range(count)]
    threads = [threading.Thread(target=stream, args=(server.port, body, o)) for o in outs]
    for t in threads:
        t.start()
    end = time.time() + 30 * SLOW
    while time.time() < end and not all(b"data: " in o.get("bytes", b"") for o in outs):
        time.sleep(0.005)
    assert all(b"data: " in o.get("bytes", b"") for o in outs)
    return outs, threads


def check_ended(outs, threads, allowed):
    for t in threads:
        t.join(60 * SLOW)
    for o in outs:
        text = o["bytes"].decode()
        assert o.get("done")
        assert "data: [DONE]" in text
        reasons = [c["finish_reason"] for line in text.splitlines() if line.startswith("data: {")
                   for c in json.loads(line[6:])["choices"] if c["finish_reason"]]
        assert len(reasons) == 1 and reasons[0] in allowed, reasons


def test_sigterm_during_32_streams(start_server, model_dir):
    server = start_server(model_dir, "--max-num-seqs", "32", "--max-num-batched-tokens", "64",
                          "--shutdown-timeout", "600")
    outs, threads = start_streams(server, 32, 400)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    check_ended(outs, threads, {"length"})
    assert server.stop() == 0


def test_shutdown_timeout_ends_streams_properly(start_server, model_dir):
    server = start_server(model_dir, "--shutdown-timeout", "0", "--max-num-seqs", "4")
    outs, threads = start_streams(server, 4, 480)
    server.process.send_signal(signal.SIGTERM)
    check_ended(outs, threads, {"abort", "length"})
    assert server.stop() == 0


def test_second_signal_stops_at_once(start_server, model_dir):
    server = start_server(model_dir, "--shutdown-timeout", "600", "--num-threads", "1")
    # A client that never reads keeps its stream open for as long as it likes.
    data = json.dumps({"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 100,
                       "temperature": 1, "stream": True}).encode()
    s = socket.create_connection(("127.0.0.1", server.port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(data)}\r\n\r\n").encode() + data)
    s.recv(100)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    start = time.time()
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(15 * SLOW)
    assert time.time() - start < 10 * SLOW
    assert code in (0, 1, -signal.SIGTERM)
    s.close()


def test_new_requests_are_refused_while_draining(start_server, model_dir):
    server = start_server(model_dir, "--max-num-seqs", "2", "--max-num-batched-tokens", "16")
    keep = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    keep.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in keep.recv(4096)
    outs, threads = start_streams(server, 2, 450)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    try:
        keep.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = keep.recv(4096)
        assert reply == b"" or b" 503 " in reply.split(b"\r\n")[0]
    except OSError:
        pass
    keep.close()
    check_ended(outs, threads, {"length"})
    assert server.stop() == 0
