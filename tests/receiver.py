"""A receiver of webhooks on loopback, which answers as it is told to and keeps what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = 0
"""Instead of a status: do not answer until the receiver is closed."""


@dataclass
class Receiver:
    """`answers` are the statuses of the next requests, in order; then comes 204."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Keep what was sent."""
        with self.changed:
            self.got.append((headers, body))
            self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests came."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, timeout=30)

    def ids(self) -> list[str]:
        """Return the ids of what was sent, in order, repeats included."""
        return [headers["webhook-id"] for headers, _ in self.got]


@contextmanager
def a_receiver(*answers: int) -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
            status = receiver.answers.pop(0) if receiver.answers else 204
            if status == HANG:
                receiver.over.wait(60)
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", receiver.url)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/approvals?team=1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
