"""Deploying by the REST API of Ray's dashboard."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deployments.local import dashboard
from deployments.local.dashboard import DeployFailed, deploy


class Dashboard(BaseHTTPRequestHandler):
    """Takes every config but an empty one."""

    seen: list[tuple[str, str, object]]

    def do_PUT(self) -> None:
        """Take a config."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, self.headers["authorization"], body))
        said = b"" if body else b"no applications"
        self.send_response(200 if body else 400)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a dashboard."""
    Dashboard.seen = []
    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_config_is_deployed_with_the_token_of_the_cluster(url: str) -> None:
    """As `serve deploy` would."""
    deploy({"applications": []}, url, {"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "token"})
    deploy({"applications": []}, url, {"RAY_AUTH_TOKEN": "secret"})  # a cluster without any

    assert Dashboard.seen == [
        ("/api/serve/applications/", "Bearer secret", {"applications": []}),
        ("/api/serve/applications/", None, {"applications": []}),
    ]


def test_what_serve_rejects_is_said_in_its_words(url: str) -> None:
    """The operator reads why."""
    with pytest.raises(DeployFailed, match=r"rejected the config \(400\):\nno applications"):
        deploy({}, url, {"RAY_AUTH_TOKEN": "secret"})


def test_a_dashboard_that_never_comes_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, but not for ever."""
    monkeypatch.setattr(dashboard, "START_TIMEOUT_S", 0.0)

    with pytest.raises(DeployFailed, match="does not answer"):
        deploy({}, "http://127.0.0.1:9", {"RAY_AUTH_TOKEN": "secret"})
