"""A model hub on loopback that can misbehave: what inferd and huggingface_hub ask of the real one.

Two servers, as there: the hub answers questions and serves small files, and redirects large ones
(git-lfs) to a CDN on another port. Both count what they send. `faults` makes them misbehave:

    hub = Hub()
    repo = hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": LFS(data)})
    hub.faults.append(Fault("cdn", "truncate", times=2, after=1000))
    ... inferd with HF_ENDPOINT=hub.url ...
    hub.close()
"""
import dataclasses
import functools
import hashlib
import http.server
import json
import mmap
import pathlib
import re
import socket
import struct
import threading
import time
import urllib.parse

CHUNK = 64 << 10


class LFS:
    """A large file: bytes, or a path whose contents are mapped."""

    def __init__(self, data):
        if isinstance(data, pathlib.Path):
            with open(data, "rb") as f:
                data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.data = data


def git_blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@functools.lru_cache(maxsize=64)
def sha256_of(data):
    return hashlib.sha256(data).hexdigest()


@dataclasses.dataclass
class Fault:
    where: str              # "api", "resolve" or "cdn"
    kind: str               # see Handler
    times: int = 1          # how often; -1: always
    path: str = ""          # only where the URL contains this
    code: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    after: int = 0          # bytes
    value: object = None


@dataclasses.dataclass
class Request:
    where: str
    method: str
    path: str
    range: str
    authorization: str


class File:
    def __init__(self, path, content):
        self.path, self.lfs = path, isinstance(content, LFS)
        self.data = content.data if self.lfs else content
        self.size = len(self.data)
        if self.lfs:
            self.digest = (sha256_of(self.data) if isinstance(self.data, bytes)
                           else hashlib.sha256(self.data).hexdigest())
            pointer = (f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.digest}\n"
                       f"size {self.size}\n").encode()
            self.blob_id = git_blob_id(pointer)
        else:
            self.digest = self.blob_id = git_blob_id(self.data)

    def sibling(self, blobs):
        entry = {"rfilename": self.path}
        if blobs:
            entry.update(size=self.size, blobId=self.blob_id)
            if self.lfs:
                entry["lfs"] = {"sha256": self.digest, "size": self.size, "pointerSize": 134}
        return entry

    def tree_entry(self):
        entry = {"type": "file", "path": self.path, "size": self.size, "oid": self.blob_id}
        if self.lfs:
            entry["lfs"] = {"oid": self.digest, "size": self.size, "pointerSize": 134}
        return entry


class Repo:
    def __init__(self, name):
        self.name, self.commits, self.refs = name, {}, {}

    def commit(self, files, ref="main"):
        """Adds a commit that `ref` then stands for; returns its name."""
        entries = {path: File(path, content) for path, content in files.items()}
        text = "".join(f"{p}{f.digest}" for p, f in sorted(entries.items())) + str(len(self.commits))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = entries
        self.refs[ref] = commit
        return commit

    def resolve(self, revision):
        return self.refs.get(revision, revision if revision in self.commits else None)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *args):
        pass

    @property
    def hub(self):
        return self.server.hub

    # --- answers ---

    def answer(self, code, body=b"", headers=None, length=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drop(self):
        """Closes with a reset, so that what is on the way is lost too."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stream(self, file, begin, end, fault):
        """Bytes begin to end - 1 of the file's own, bent by the fault."""
        kind = fault.kind if fault else ""
        stop = min(end, begin + fault.after) if kind in ("truncate", "reset", "hang") else end
        rate = fault.value if kind == "slow" else self.hub.rate
        at = begin
        while at < stop:
            n = min(CHUNK, stop - at)
            if rate:
                n = min(n, max(1, int(rate / 20)))
                time.sleep(n / rate)
            piece = bytes(memoryview(file.data)[at:at + n])
            if kind == "corrupt":
                piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
            self.wfile.write(piece)
            self.hub.count(file.digest, at, n)
            at += n
        if kind == "hang":
            self.hub.released.wait(30)
        if kind in ("truncate", "reset", "hang"):
            if kind == "reset":
                self.drop()
            self.close_connection = True
        if kind == "too_much":
            self.wfile.write(b"x" * 1000)
            self.close_connection = True

    def send_file(self, file, headers, fault):
        kind = fault.kind if fault else ""
        begin, end, code = 0, file.size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and kind != "ignore_range":
            begin = int(asked[1])
            end = min(int(asked[2]) + 1 if asked[2] else file.size, file.size)
            if begin >= end:
                return self.answer(416, headers={"Content-Range": f"bytes */{file.size}"})
            shift = 1 if kind == "wrong_range" else 0
            total = file.size + (5 if kind == "wrong_total" else 0)
            headers["Content-Range"] = f"bytes {begin + shift}-{end - 1}/{total}"
            code = 206
        length = end - begin
        if kind == "short_length":
            length = end = max(1, (end - begin) // 2)
            end += begin
        elif kind == "long_length":
            length += 1000
        self.send_response(code)
        if kind == "encoded":
            headers["Content-Encoding"] = "gzip"
        if kind == "too_much":
            self.close_connection = True  # without a length: until the connection ends
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.stream(file, begin, end, fault)
            if kind == "long_length":
                self.close_connection = True

    # --- requests ---

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def route(self):
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        where = self.server.where or ("api" if path.startswith("/api/") else "resolve")
        self.hub.note(Request(where, self.command, self.path, self.headers.get("Range") or "",
                              self.headers.get("Authorization") or ""))
        fault = self.hub.take_fault(where, self.path)
        if fault and fault.kind == "status":
            return self.answer(fault.code, fault.value or b"no", dict(fault.headers))
        if fault and fault.kind == "drop":
            return self.drop()
        if fault and fault.kind == "redirect":
            return self.answer(302, headers={"Location": fault.value})
        if fault and fault.kind == "body":
            return self.answer(200, fault.value)
        if where == "cdn":
            return self.send_cdn(path, fault)
        if where == "api":
            return self.send_api(path, urllib.parse.parse_qs(url.query))
        return self.send_resolve(url, fault)

    def send_cdn(self, path, fault):
        file = self.hub.by_digest.get(path.removeprefix("/blob/"))
        if not file:
            return self.answer(404, b"no such blob")
        self.send_file(file, {"ETag": f'"{file.digest[:32]}"', "Accept-Ranges": "bytes"}, fault)

    def not_found(self, code):
        self.answer(404, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

    def send_api(self, path, query):
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        repo = match and self.hub.repos.get(match[1])
        if not repo:
            return self.not_found("RepoNotFound")
        if repo.name in self.hub.tokens and not self.may_read(repo):
            return None
        commit = repo.resolve(match[3] or "main")
        if not commit:
            return self.not_found("RevisionNotFound")
        files = repo.commits[commit].values()
        if match[2] == "tree":
            body = [f.tree_entry() for f in files]
        else:
            blobs = query.get("blobs", ["false"])[0].lower() == "true"
            body = {"_id": "0", "id": repo.name, "modelId": repo.name, "sha": commit,
                    "private": False, "gated": repo.name in self.hub.tokens, "tags": [],
                    "downloads": 1, "likes": 0, "siblings": [f.sibling(blobs) for f in files]}
        self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return None

    def may_read(self, repo):
        """A gated repository: 401 without a token, 403 with the wrong one."""
        sent = self.headers.get("Authorization")
        if sent == f"Bearer {self.hub.tokens[repo.name]}":
            return True
        self.answer(403 if sent else 401, b"{}", {"X-Error-Code": "GatedRepo",
                                                  "X-Error-Message": "Access is restricted."})
        return False

    def send_resolve(self, url, fault):
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path)
        if not match:
            return self.not_found("RepoNotFound")
        repo = self.hub.repos.get(match[1])
        if not repo:
            return self.not_found("RepoNotFound")
        if repo.name in self.hub.tokens and not self.may_read(repo):
            return None
        commit = repo.resolve(urllib.parse.unquote(match[2]))
        if not commit:
            return self.not_found("RevisionNotFound")
        file = repo.commits[commit].get(urllib.parse.unquote(match[3]))
        headers = {"X-Repo-Commit": commit}
        if not file:
            headers["X-Error-Code"] = "EntryNotFound"
            return self.answer(404, b"no such file", headers)
        headers["ETag"] = f'"{file.digest}"'
        if not file.lfs:
            return self.send_file(file, headers, fault)
        headers.update({"X-Linked-Etag": f'"{file.digest}"', "X-Linked-Size": str(file.size),
                        "Location": f"{self.hub.cdn_url}/blob/{file.digest}?signature=abc"})
        return self.answer(302, b"Found. Redirecting", headers)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    # What lies in the socket when a client is killed counts as sent: little of it.
    def get_request(self):
        sock, address = super().get_request()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        return sock, address

    def handle_error(self, request, client_address):
        pass


class Hub:
    def __init__(self, tls=None):
        """`tls`: an ssl.SSLContext for both servers."""
        self.repos, self.by_digest, self.tokens = {}, {}, {}
        self.faults, self.requests, self.sent = [], [], {}
        self.rate = 0  # bytes per second and connection; 0: all it can
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.servers = []
        for where in ("", "cdn"):
            server = Server(("127.0.0.1", 0), Handler)
            server.hub, server.where = self, where
            if tls:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
            self.servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        scheme = "https" if tls else "http"
        self.url, self.cdn_url = (f"{scheme}://127.0.0.1:{s.server_port}" for s in self.servers)

    def close(self):
        self.released.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add_repo(self, name, files, ref="main"):
        repo = self.repos.setdefault(name, Repo(name))
        commit = repo.commit(files, ref)
        for file in repo.commits[commit].values():
            self.by_digest[file.digest] = file
        return commit

    def note(self, request):
        with self.lock:
            self.requests.append(request)

    def count(self, digest, begin, n):
        with self.lock:
            self.sent.setdefault(digest, []).append((begin, n))

    def take_fault(self, where, path):
        with self.lock:
            for fault in self.faults:
                if fault.where == where and fault.path in path and fault.times != 0:
                    fault.times -= 1
                    return fault
        return None

    def forget(self):
        """Begins counting anew."""
        with self.lock:
            self.requests, self.sent = [], {}

    def bytes_sent(self):
        with self.lock:
            return sum(n for pieces in self.sent.values() for _, n in pieces)

    def bytes_sent_twice(self):
        """What was sent beyond the first time, byte by byte of each file."""
        with self.lock:
            sent = {digest: sorted(pieces) for digest, pieces in self.sent.items()}
        twice = 0
        for pieces in sent.values():
            end = 0
            for begin, n in pieces:
                twice += max(0, min(end, begin + n) - begin)
                end = max(end, begin + n)
        return twice
