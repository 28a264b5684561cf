"""Ray clusters for a local gateway: one that is started here, or one that runs already."""

from collections.abc import Callable
from typing import Any

import ray

from deployments.serve_internals.fallback import warn_once


def start_cluster(metrics_port: int, init: Callable[..., Any] = ray.init) -> str:
    """Start a Ray cluster in this process, on this machine; the URL of its dashboard.

    A metrics port of Ray's own choice may be given to one of its connections before it is used.
    """
    options = {
        "address": "local",
        "namespace": "serve",
        "log_to_driver": False,
        "logging_level": "warning",
    }
    try:
        context = init(**options, _metrics_export_port=metrics_port)
    except (RuntimeError, TypeError) as error:
        if "_metrics_export_port" not in str(error):
            raise
        warn_once("ray.init's `_metrics_export_port`", "Ray chooses the port", repr(error))
        context = init(**options)
    return f"http://{context.dashboard_url}"


def join_cluster(address: str, init: Callable[..., Any] = ray.init) -> tuple[str, str]:
    """Connect to a cluster that runs; the URL of its dashboard, and its session's directory.

    The directory is empty if this version of Ray does not tell it.

    Raises:
        ConnectionError, RuntimeError, ValueError: there is none at this address.
    """
    context = init(address=address, namespace="serve", log_to_driver=False, logging_level="warning")
    info = getattr(context, "address_info", {})
    return f"http://{context.dashboard_url}", str(info.get("session_dir") or "")
