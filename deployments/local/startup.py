"""The start of a local gateway: watched until its models answer, and shown."""

import contextlib
import http.client
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import typer
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatusOverview

from deployments.local.gateway_view import RunningGateway
from deployments.local.terminal import StartProgress
from deployments.serve_internals.status import start_failure
from gateway.config.loopback import ANY_HOST
from gateway.routing.fleet import ModelState

POLL_S = 0.5
UP = {ModelState.READY, ModelState.SCALED_TO_ZERO}
LOOPBACKS = {ANY_HOST: "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where clients reach a gateway."""

    host: str
    port: int

    @classmethod
    def of(cls, host: str, port: int, dashboard: str = "") -> "GatewayAddress":
        """Address by what Serve listens on; `dashboard`: its URL, on the cluster's head."""
        if host in LOOPBACKS:
            head = urlsplit(dashboard).hostname if dashboard else None
            host = head or LOOPBACKS[host]
        return cls(host, port)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def answers(self) -> bool:
        """Whether the gateway can be reached there."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=POLL_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def watch(
    models: Sequence[str],
    gateway: RunningGateway,
    address: GatewayAddress,
    stopped: threading.Event,
) -> int:
    """Show the progress of all applications; 0 once all models answer, 1 if one fails."""
    with StartProgress.shown(len(models)) as progress:
        while not stopped.wait(POLL_S):
            applications = ray_serve.status().applications
            progress.show({name: o.status.lower() for name, o in applications.items()})
            if failed := {n: o for n, o in applications.items() if o.status == "DEPLOY_FAILED"}:
                with contextlib.suppress(OSError):
                    lines = [f"{name}: {_reason(o)}" for name, o in failed.items()]
                    typer.echo("\n".join(lines), err=True)
                return 1
            if _show_models(models, gateway, progress) and address.answers():
                return 0
    return 1


def _show_models(models: Sequence[str], gateway: RunningGateway, progress: StartProgress) -> bool:
    """Show how the models stand, by the routers themselves; whether all of them are up."""
    found = next(iter(gateway.reports().values()), None)  # clients may need a key
    reports = {} if found is None else found.models
    starting = {name: each.reason for name, each in reports.items() if each.state == "starting"}
    progress.show({f"model {name}": reason for name, reason in starting.items()})
    awaited = [name for name in models if name not in reports or reports[name].state not in UP]
    reason = starting.get(awaited[0], "waits for its engine") if awaited else ""
    progress.count(len(models) - len(awaited), f"{awaited[0]}: {reason}" if awaited else "")
    return not awaited


def _reason(overview: ApplicationStatusOverview) -> str:
    """Reason why an application failed: the last line of the innermost error that Serve reports."""
    messages = [deployment.message for deployment in overview.deployments.values()]
    if failure := next(filter(None, map(start_failure, messages)), ""):
        return failure
    text = "\n".join([overview.message, *messages])
    lines = [line.strip() for line in text.splitlines() if ": " in line]
    errors = [line for line in lines if "Error: " in line.partition(" ")[0] + " "]
    return (errors or lines or [text])[-1]


def welcome(
    models: Sequence[str], address: GatewayAddress, dashboard: str, *, needs_key: bool
) -> str:
    """Instructions to print once the gateway is ready."""
    key = ' -H "authorization: Bearer $KEY"' if needs_key else ""
    body = {"model": models[0], "messages": [{"role": "user", "content": "Who are you?"}]}
    return f"""
The gateway is ready: {address.url}/v1  (models: {", ".join(models)})
Try it:
  curl {address.url}/v1/chat/completions -H 'content-type: application/json'{key} \\
    -d '{json.dumps(body)}'
From another shell, `gateway status`, `gateway top`, `gateway logs ID` and `serve status`, after
  export GATEWAY_URL={address.url} RAY_AUTH_MODE=token RAY_DASHBOARD_ADDRESS={dashboard}"""
