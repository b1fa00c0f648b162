"""Clients that hang, vanish or send rubbish: the server answers a new request at once."""
import json
import socket
import threading
import time

import pytest

from conftest import SANITIZED, SLOW, run_inferd

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"prompt\": \"a"


def answers_at_once(server, limit_s=2.0):
    start = time.time()
    server.complete("Once upon a time", max_tokens=2)
    assert time.time() - start < limit_s * SLOW


def test_half_requests_that_hang(start_server, model_dir):
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M")
    answers_at_once(server)
    threads, fds, rss = server.num_threads(), server.num_fds(), server.rss_bytes()
    count = 200 if SANITIZED else 1000
    sockets = []
    for i in range(count):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(HALF[: 20 + i % (len(HALF) - 20)])
        sockets.append(s)
    answers_at_once(server)
    assert server.get("/health")[0] == 200
    for s in sockets:
        s.close()
    server.wait_idle()
    end = time.time() + 20 * SLOW
    while time.time() < end and (server.num_threads() > threads + 2 or server.num_fds() > fds + 2):
        time.sleep(0.1)
    assert server.num_threads() <= threads + 2
    assert server.num_fds() <= fds + 2
    if not SANITIZED:
        assert server.rss_bytes() < rss + 64 * 2**20
    answers_at_once(server)


def open_and_drop(port, count, body, errors):
    request = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    for i in range(count):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
                s.sendall(request)
                if i % 2 == 0:
                    s.recv(64)
        except OSError as e:
            errors.append(e)


def test_dropped_streams(start_server, model_dir):
    # The KV cache is committed as it is touched: a small one, so that it does not count as growth.
    server = start_server(model_dir, "--kv-cache-memory-bytes", "8M", "--no-log-requests")
    answers_at_once(server)
    server.wait_idle()
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 400, "stream": True,
                       "ignore_eos": True}).encode()

    def drop(count):
        errors = []
        workers = [threading.Thread(target=open_and_drop, args=(server.port, count // 8, body, errors))
                   for _ in range(8)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        assert not errors, errors[:3]

    total = 400 if SANITIZED else 10000
    drop(total // 10)
    server.wait_idle(120)
    rss, threads, fds = server.rss_bytes(), server.num_threads(), server.num_fds()
    drop(total - total // 10)
    answers_at_once(server, 5.0)
    server.wait_idle(120)
    end = time.time() + 20 * SLOW
    while time.time() < end and server.num_threads() > threads + 4:
        time.sleep(0.1)
    assert server.num_threads() <= threads + 4
    assert server.num_fds() <= fds + 4
    if not SANITIZED:
        assert server.rss_bytes() < rss + 32 * 2**20, "memory grows"


def test_huge_body_is_refused_early(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 104857600\r\n\r\n")
        reply = s.recv(65536)
    assert reply.startswith(b"HTTP/1.1 413")
    answers_at_once(server)


def test_huge_chunked_body_is_bounded(server):
    rss = server.rss_bytes()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(100):
                s.sendall(chunk)
            s.sendall(b"0\r\n\r\n")
            reply = s.recv(65536)
            assert reply == b"" or b" 413 " in reply.split(b"\r\n")[0]
        except OSError:
            pass  # cut off: as good an answer
    if not SANITIZED:
        assert server.rss_bytes() < rss + 64 * 2**20
    answers_at_once(server)


@pytest.mark.parametrize("raw", [
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET " + b"/" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 200000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
])
def test_raw_rubbish(server, raw):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        try:
            s.sendall(raw)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except OSError:
            pass
    answers_at_once(server)


def test_cancelled_non_streaming_request_frees_its_blocks(server):
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 500, "ignore_eos": True,
                       "n": 8, "temperature": 1.0}).encode()
    errors = []
    open_and_drop(server.port, 2 if SANITIZED else 20, body, errors)
    server.wait_idle()
    assert not errors


def test_port_in_use(server, model_dir):
    result = run_inferd("serve", model_dir, "--host", "127.0.0.1", "--port", server.port)
    assert result.returncode == 1
    assert str(server.port) in result.stderr
