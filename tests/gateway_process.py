"""A gateway started the way a user starts it, for the tests that need a running one."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from deployments.local.processes import Session, free_port

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60
PAUSE_S = 0.1

Document = dict[str, Any]


@dataclass
class GatewayProcess:
    """`python -m deployments.local serve` and what it has started."""

    document: Document
    directory: Path
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        """Start, and wait until it says that it is ready."""
        self._log = self.directory / "gateway.log"
        config = self._write(self.document)
        command = [sys.executable, "-m", "deployments.local", "serve", str(config)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: "is ready" in self.log or not self.is_running, START_TIMEOUT_S)
            assert self.is_running, self.log
            self.session = Session.read(ROOT / ".run" / f"{self.process.pid}.json")
        except BaseException:
            self.process.terminate()  # it takes down what it has started
            self.process.wait(STOP_TIMEOUT_S)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(STOP_TIMEOUT_S)
        assert not self.session.members, self.session.members

    @property
    def is_running(self) -> bool:
        """Whether its outer process lives."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What another shell has to export, as the gateway printed it."""
        (line,) = [line for line in self.log.splitlines() if line.startswith("  export ")]
        return os.environ | dict(word.split("=", 1) for word in line.split()[1:])

    def deploy(self, document: Document) -> None:
        """`serve deploy` of an edited config."""
        config = self._write({**document, "http_options": self._http_options})
        self._serve("deploy", str(config))

    def status(self) -> Document:
        """`serve status`, parsed."""
        status: Document = yaml.safe_load(self._serve("status"))
        return status

    def replica_processes(self, app: str, deployment: str = "Engine") -> list[psutil.Process]:
        """The replicas' own processes."""
        name = f"ray::ServeReplica:{app}:{deployment}"
        return [p for p in self.session.members if name in command_line(p)]

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One JSON request: its status and parsed answer."""
        with self.open(method, path, body) as response:
            return response.status, json.loads(response.read() or b"null")

    def chat(self, model: str, text: str = "Hello", **more: object) -> tuple[int, Any]:
        """One chat completion: its status and parsed answer."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, **more}
        return self.request("POST", "/v1/chat/completions", body)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Iterator[http.client.HTTPResponse]:
        """One JSON request whose answer is read by the caller; leaving closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        data = None if body is None else json.dumps(body)
        try:
            every = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, data, every)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    @contextmanager
    def stream(self, model: str, text: str, max_tokens: int) -> Iterator[Iterator[Document]]:
        """The events of a streamed chat completion; leaving before its end drops the connection."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": True}
        with self.open("POST", "/v1/chat/completions", body) as response:
            assert response.status == 200, response.read()
            yield events(response)

    @property
    def _http_options(self) -> Document:
        return {**self.document.get("http_options", {}), "port": self.port}

    def _write(self, document: Document) -> Path:
        config = self.directory / "config.yaml"
        config.write_text(yaml.safe_dump(document))
        return config

    def _serve(self, *arguments: str) -> str:
        tool = str(Path(sys.executable).with_name("serve"))
        result = subprocess.run(
            [tool, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


def command_line(process: psutil.Process) -> str:
    """What a process is called; nothing for one that has just gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def events(response: http.client.HTTPResponse) -> Iterator[Document]:
    """The JSON events of a stream, which must end with `[DONE]`."""
    for line in response:
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return
        if data:
            yield json.loads(data)
    raise AssertionError("the stream broke off before [DONE]")


def text_of(stream: Iterator[Document]) -> str:
    """The whole text of a streamed chat completion."""
    choices = [choice for event in stream for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Return once `condition` holds; fail if it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(PAUSE_S)  # noqa: TID251 - tests of processes have no event loop to block


def model_application(**args: object) -> Document:
    """A model's Serve application, named as the model."""
    return {
        "name": args["name"],
        "import_path": "deployments.app:model",
        "route_prefix": None,
        "args": args,
    }


def gateway_application(**user_config: object) -> Document:
    """The gateway's Serve application."""
    return {
        "name": "gateway",
        "import_path": "deployments.app:gateway",
        "route_prefix": "/",
        "deployments": [{"name": "Router", "user_config": user_config}],
    }


def document(*applications: Document) -> Document:
    """A Serve config for this machine."""
    return {"http_options": {"host": "127.0.0.1"}, "applications": list(applications)}
