"""Small HTTP servers that answer as a test wants it."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """What a test's own handler begins with: whole answers, and no word of them."""

    def get(self) -> None:
        """Answer a GET."""
        self.answer(501, b"")

    def post(self) -> None:
        """Answer a POST."""
        self.answer(501, b"")

    def do_GET(self) -> None:
        """Be told of a GET."""
        self.get()

    def do_POST(self) -> None:
        """Be told of a POST."""
        self.post()

    def answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        """The request's."""
        return self.rfile.read(int(self.headers["content-length"]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[Handler]) -> Iterator[int]:
    """The loopback port of a server that answers so."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
