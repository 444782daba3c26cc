"""A loopback server with Detectron's URL layout, and every fault that a server or network can have.

A fault is a function of the request that answers it, or returns False to let the ordinary answer follow. Faults
of a path are taken from the front of its list, one a request.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], bool]


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes); `URL.md5sum` follows from them unless a file of that name is there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag: str | None = None
        self.pause = 0.0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for `path`."""
        return [headers for asked, headers in self.requests if asked == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        faults = self.server.faults[self.path]
        if faults and faults.pop(0)(self):
            return
        content = self.content()
        if content is None:
            self.reply(404, b"not found")
            return
        start = self.range_start()
        if start is None or self.headers.get("If-Range", self.etag()) != self.etag():
            self.reply(200, content, ETag=self.etag())
        elif start >= len(content):
            self.reply(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        else:
            shown = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.reply(206, content[start:], ETag=self.etag(), **{"Content-Range": shown})

    def content(self) -> bytes | None:
        files = self.server.files
        if self.path not in files and self.path.endswith(".md5sum") and self.path[: -len(".md5sum")] in files:
            return hashlib.md5(files[self.path[: -len(".md5sum")]]).hexdigest().encode()
        return files.get(self.path)

    def etag(self) -> str:
        return self.server.etag or '"' + hashlib.md5(self.content() or b"").hexdigest() + '"'

    def range_start(self) -> int | None:
        asked = self.headers.get("Range", "")
        return int(asked[len("bytes=") : -1]) if asked.startswith("bytes=") and asked.endswith("-") else None

    def reply(self, status: int, body: bytes, length: str | None = "right", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body)) if length == "right" else length)
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        for at in range(0, len(body), 64 << 10):
            self.wfile.write(body[at : at + (64 << 10)])
            time.sleep(self.server.pause)


def status(code: int, **headers: str) -> Fault:
    """Answer with a status and nothing useful."""

    def fault(handler: Handler) -> bool:
        handler.reply(code, b"sorry", **{name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def cut(after: int, reset: bool = False) -> Fault:
    """Begin the ordinary answer and break the connection after some bytes of it."""

    def fault(handler: Handler) -> bool:
        content = handler.content() or b""
        start = handler.range_start() or 0
        body = content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", handler.etag())
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close() if reset else handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return fault


def body(content: bytes, length: str | None = "right", code: int = 200, **headers: str) -> Fault:
    """Answer with another body, length or header."""

    def fault(handler: Handler) -> bool:
        handler.reply(code, content, length, **{name.replace("_", "-"): value for name, value in headers.items()})
        handler.close_connection = True
        return True

    return fault


def whole(**headers: str) -> Fault:
    """The whole file with 200, whatever range was asked for."""

    def fault(handler: Handler) -> bool:
        handler.reply(
            200, handler.content() or b"", **{name.replace("_", "-"): value for name, value in headers.items()}
        )
        return True

    return fault


def drip(handler: Handler) -> bool:
    """One byte now and then, for ever."""
    content = handler.content() or b""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for byte in content:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)
    return True


def silence(handler: Handler) -> bool:
    """Accept the request and say nothing."""
    time.sleep(3)
    handler.close_connection = True
    return True


def chunked(handler: Handler) -> bool:
    """The whole file, chunked, without a length."""
    content = handler.content() or b""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(content), 100_000):
        piece = content[at : at + 100_000]
        handler.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")
    return True


def raw(content: bytes, then_drip: bytes = b"", pause: float = 0.05) -> Fault:
    """Send these bytes, whatever HTTP says of them; then the others one by one, for ever."""

    def fault(handler: Handler) -> bool:
        handler.close_connection = True
        handler.wfile.write(content)
        handler.wfile.flush()
        while then_drip:
            for byte in then_drip:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(pause)
        return True

    return fault


def endless(head: bytes, piece: bytes) -> Fault:
    """Send a head, and then a piece as long as the client listens."""

    def fault(handler: Handler) -> bool:
        handler.close_connection = True
        handler.wfile.write(head)
        while True:
            handler.wfile.write(piece)

    return fault
