"""The start of a local gateway: deployed, watched until its models answer, and shown."""

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import typer
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatusOverview

from deployments.local import temporary
from deployments.local.gateway_view import RunningGateway
from deployments.serve_internals.status import start_failure
from gateway.config.loopback import ANY_HOST

POLL_S = 0.5

Address = tuple[str, int]


def say(text: str) -> None:
    """Print, also to a terminal that may have been closed."""
    with contextlib.suppress(OSError):
        typer.echo(text)


def deploy(config: Path, dashboard: str) -> None:
    """Deploy a config to the cluster with this dashboard.

    Raises:
        SystemExit: Serve rejects it.
    """
    tool = str(Path(sys.executable).with_name("serve"))
    command = [tool, "deploy", str(config), "--address", dashboard]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"Serve rejected the config {config}:\n{result.stderr}")


def gateway_address(http_options: dict[str, Any]) -> Address:
    """Address of the gateway for a client on this machine."""
    host = http_options.get("host", ANY_HOST)
    return {ANY_HOST: "127.0.0.1", "::": "::1"}.get(host, host), http_options["port"]


def watch(
    models: list[str], gateway: RunningGateway, address: Address, stopped: threading.Event
) -> int:
    """Print the progress of all applications; 0 once all models answer, 1 if one fails."""
    progress = _StartProgress()
    while not stopped.wait(POLL_S):
        applications = ray_serve.status().applications
        progress.show({name: o.status.lower() for name, o in applications.items()})
        if failed := {n: o for n, o in applications.items() if o.status == "DEPLOY_FAILED"}:
            with contextlib.suppress(OSError):
                lines = [f"{name}: {_reason(o)}" for name, o in failed.items()]
                typer.echo("\n".join(lines), err=True)
            return 1
        # Of the routers themselves: clients may need a key.
        found = next(iter(gateway.reports().values()), None)
        reports = {} if found is None else found.models
        starting = {name: each.reason for name, each in reports.items() if each.state == "starting"}
        progress.show({f"model {name}": reason for name, reason in starting.items()})
        up = {name for name, each in reports.items() if each.state in {"ready", "scaled_to_zero"}}
        if up.issuperset(models) and _answers(address):
            return 0
    return 1


class _StartProgress:
    """Progress as printed so far."""

    def __init__(self) -> None:
        self._printed: dict[str, str] = {}
        self._started_s = time.monotonic()

    def show(self, states: dict[str, str]) -> None:
        """Print changed states, with the seconds since the start."""
        elapsed_s = time.monotonic() - self._started_s
        for name, state in states.items():
            if self._printed.get(name) != state:
                self._printed[name] = state
                say(f"{elapsed_s:6.1f} s  {name}: {state}")


def _answers(address: Address) -> bool:
    """Whether the gateway can be reached at its address."""
    connection = http.client.HTTPConnection(*address, timeout=POLL_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reason(overview: ApplicationStatusOverview) -> str:
    """Reason why an application failed: the last line of the innermost error that Serve reports."""
    messages = [deployment.message for deployment in overview.deployments.values()]
    if failure := next(filter(None, map(start_failure, messages)), ""):
        return failure
    text = "\n".join([overview.message, *messages])
    lines = [line.strip() for line in text.splitlines() if ": " in line]
    errors = [line for line in lines if "Error: " in line.partition(" ")[0] + " "]
    return (errors or lines or [text])[-1]


def welcome(models: list[str], address: Address, dashboard: str, *, needs_key: bool) -> str:
    """Instructions to print once the gateway is ready."""
    key = ' -H "authorization: Bearer $KEY"' if needs_key else ""
    host, port = address
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    body = {"model": models[0], "messages": [{"role": "user", "content": "Who are you?"}]}
    return f"""
The gateway is ready: {url}/v1  (models: {", ".join(models)})
Try it:
  curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \\
    -d '{json.dumps(body)}'
Ctrl-C stops it, once its requests have finished. What happens is shown here; the logs are in
  {temporary.logs_in(Path(tempfile.gettempdir()))}
From another shell:
  export RAY_AUTH_MODE=token RAY_DASHBOARD_ADDRESS={dashboard}
  .venv/bin/serve status
"""
