"""Deploys a local gateway by the REST API of Ray's dashboard, as `serve deploy` does."""

import contextlib
import http.client
import json
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.proxy_key import required_token

APPLICATIONS = "/api/serve/applications/"
TIMEOUT_S = 180.0
"""The answer waits until Serve's controller has started."""
START_TIMEOUT_S = 30.0
"""How long a dashboard may take until it accepts connections."""
POLL_S = 0.3


class DeployFailed(Exception):
    """Serve does not take the config; the message says why."""


def deploy(document: Mapping[str, object], dashboard: str, environ: Mapping[str, str]) -> None:
    """Deploy a Serve config to the cluster with this dashboard.

    `environ`: names the cluster's token.

    Raises:
        DeployFailed: Serve rejects it, or the dashboard does not answer.
    """
    headers = {"content-type": "application/json"}
    if token := required_token(environ):
        headers["authorization"] = f"Bearer {token}"
    try:
        status, said = _put(urlsplit(dashboard).netloc, json.dumps(document), headers)
    except (OSError, http.client.HTTPException) as error:
        raise DeployFailed(f"Ray's dashboard at {dashboard} does not answer: {error}") from None
    if status != http.HTTPStatus.OK:
        raise DeployFailed(f"Serve rejected the config ({status}):\n{said}")


def _put(host: str, body: str, headers: dict[str, str]) -> tuple[int, str]:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
        try:
            connection.connect()
        except ConnectionRefusedError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(POLL_S)  # noqa: TID251 - no event loop runs here
            continue
        with contextlib.closing(connection):
            connection.request("PUT", APPLICATIONS, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
