"""A gateway started the way a user starts it, for the tests that need a running one."""

import copy
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import yaml

from deployments.local.processes import Session, free_port
from gateway.config.gateway import GatewayConfig
from gateway.local_files import DATA_HOME
from gateway.proxy_key import cluster_token

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60
DASHBOARD_TIMEOUT_S = 60
APPLICATIONS = "/api/serve/applications/"
"""Where the dashboard takes and tells what `serve deploy` and `serve status` do."""
PAUSE_S = 0.1
HAPROXY = "haproxy"
SETTLED = {"ready", "scaled_to_zero"}
"""The states of a model that has been deployed."""
OPEN = {"open_on_loopback": True}
"""Part of every gateway config here: the tests ask the operators' routes without a key."""

Document = dict[str, Any]


@dataclass
class GatewayProcess:
    """`python -m deployments.local serve` and what it has started."""

    document: Document
    directory: Path
    port: int = field(default_factory=free_port)
    start_timeout_s: float = START_TIMEOUT_S

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
                env={**os.environ, DATA_HOME: str(self.directory / "data")},
                start_new_session=True,
            )
        try:
            wait_for(lambda: "is ready" in self.log or not self.is_running, self.start_timeout_s)
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
        """Deploy an edited config, as `serve deploy` does: by the dashboard's REST API."""
        status, said = self._ask_dashboard("PUT", self._complete(document))
        assert status == 200, said

    def status(self) -> Document:
        """Applications, deployments and replicas, in the words and shape of `serve status`.

        Serve's controller may be restarting: then it is asked again.
        """
        answers: list[str] = []

        def is_told() -> bool:
            status, said = self._ask_dashboard("GET")
            answers.append(said)
            return status == 200

        wait_for(is_told)
        return status_of(json.loads(answers[-1]))

    def deploy_models(self, *models: Document, **user_config: object) -> None:
        """Deploy these models beside the resident ones, and no others; and the gateway's config."""
        self.deploy(self.beside_resident(*models, **user_config))

    def beside_resident(self, *models: Document, **user_config: object) -> Document:
        """What it has been started with, and these models; with this config of the gateway."""
        front, *resident = copy.deepcopy(self.document["applications"])
        front["deployments"][0]["user_config"] = {**OPEN, **user_config}
        return {**self.document, "applications": [front, *resident, *models]}

    @contextmanager
    def models(self, *models: Document, **user_config: object) -> Iterator[Self]:
        """Have more models, and a config of the gateway, until this is left.

        What is resident is not touched by that: its engines are the same ones in the end. The
        engines of the others may still be stopping then: no two modules have models of one name.
        """
        resident = [app["args"]["name"] for app in self.document["applications"][1:]]
        before = [self.replica_processes(name) for name in resident]
        self.deploy_models(*models, **user_config)
        wait_for(lambda: self._serves(models, user_config), START_TIMEOUT_S)
        yield self
        self.deploy(self.document)
        wait_for(lambda: self._serves((), {}) and self._listed == set(resident))
        assert [self.replica_processes(name) for name in resident] == before

    @property
    def _listed(self) -> set[str]:
        _, listing = self.request("GET", "/v1/models")
        return {card["id"] for card in listing["data"]}

    def _serves(self, models: Sequence[Document], user_config: Document) -> bool:
        """Whether these models are up, or sleep, and the gateway goes by this config.

        All routers have to know: they are asked in turn.
        """
        status, told = self.request("GET", "/gateway/config")
        if status != 200:
            return False  # the config before does not open the operators' routes
        wanted = GatewayConfig(**{**OPEN, **user_config}).model_dump(mode="json")
        is_adopted = all(
            wanted[field] == value
            for router in told["data"]
            for field, value in router["config"].items()
        )
        names = {model["name"] for model in models}
        return is_adopted and all(self._settled >= names for _ in told["data"])

    @property
    def _settled(self) -> set[str]:
        """Models that are up, or sleep, as one of the routers sees it."""
        _, listing = self.request("GET", "/v1/models")
        return {card["id"] for card in listing["data"] if card["state"] in SETTLED}

    def deploy_by_command(self, document: Document) -> None:
        """Run `serve deploy` on an edited config."""
        self._serve("deploy", str(self._write(self._complete(document))))

    def status_by_command(self) -> Document:
        """Run `serve status`; what it prints, parsed."""
        status: Document = yaml.safe_load(self._serve("status"))
        return status

    def replica_processes(self, app: str, deployment: str = "Engine") -> list[psutil.Process]:
        """The replicas' own processes."""
        name = f"ray::ServeReplica:{app}:{deployment}"
        return [p for p in self.session.members if name in command_line(p)]

    def haproxies(self) -> list[psutil.Process]:
        """The processes of HAProxy."""
        return [
            p for p in self.session.members if Path(command_line(p).split(" ")[0]).name == HAPROXY
        ]

    def request(
        self, method: str, path: str, body: object = None, *, timeout_s: float = 60
    ) -> tuple[int, Any]:
        """One JSON request: its status and parsed answer."""
        with self.open(method, path, body, timeout_s=timeout_s) as response:
            return response.status, json.loads(response.read() or b"null")

    def chat(self, model: str, text: str = "Hello", **more: object) -> tuple[int, Any]:
        """One chat completion, the same every time: its status and parsed answer."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "temperature": 0, **more}
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

    def _complete(self, document: Document) -> Document:
        http_options = {**self.document.get("http_options", {}), "port": self.port}
        return {**document, "http_options": http_options}

    def _ask_dashboard(self, method: str, body: Document | None = None) -> tuple[int, str]:
        host = urlsplit(self.environment["RAY_DASHBOARD_ADDRESS"]).netloc
        connection = http.client.HTTPConnection(host, timeout=DASHBOARD_TIMEOUT_S)
        headers = {
            "authorization": f"Bearer {cluster_token(os.environ)}",
            "content-type": "application/json",
        }
        try:
            connection.request(method, APPLICATIONS, json.dumps(body) if body else None, headers)
            with connection.getresponse() as response:
                return response.status, response.read().decode()
        finally:
            connection.close()

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


def status_of(details: Document) -> Document:
    """What `serve status` makes of the dashboard's details: replicas counted by their states."""
    applications = {
        name: {
            "status": application["status"],
            "message": application["message"],
            "deployments": {
                deployment: {
                    "status": each["status"],
                    "message": each["message"],
                    "replica_states": dict(Counter(r["state"] for r in each["replicas"])),
                }
                for deployment, each in application["deployments"].items()
            },
        }
        for name, application in details["applications"].items()
    }
    return {"applications": applications}


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
        "deployments": [{"name": "Router", "user_config": {**OPEN, **user_config}}],
    }


def document(*applications: Document) -> Document:
    """A Serve config for this machine."""
    return {"http_options": {"host": "127.0.0.1"}, "applications": list(applications)}


RESIDENT = model_application(name="resident", engine="sim", simulation={"instant": True})
"""A model that a gateway is started with to which others are added: it always has one."""
