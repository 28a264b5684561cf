"""Direct way for inference, and what State answers, from uvicorn to the gateway, past Serve.

Between uvicorn and the gateway Serve (Ray 2.60) wraps each request: ids, a context and records for
logs, timers. HAProxy and the gateway do the same, and it costs a quarter of a router's CPU time. So
inference requests go straight to the gateway, and only what Serve needs is passed to it: the number
of requests in flight, for draining and scaling, and its metrics.
"""

import inspect
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from deployments.serve_internals.body_writer import body_writer_behind
from deployments.serve_internals.fallback import GONE
from gateway.asgi import App, Receive, Scope, Send
from gateway.config.route_paths import ROUTES
from gateway.config.state_paths import is_state_path
from gateway.errors.gateway_error import GatewayError
from gateway.http.app import GatewayApp

CONSEQUENCE = "inference requests take Serve's own path, at a quarter more of a router's CPU time"

logger = logging.getLogger(__name__)


def with_direct_ingress(serve_app: App, gateway: GatewayApp) -> App:
    """Serve's application, but with a direct way for inference requests to `gateway`.

    Serve's application unchanged if Serve is configured to do something that the direct way leaves
    out, or if this version of Ray lacks a name that it needs.
    """
    try:
        replica = _replica_behind(serve_app)
        if replica is None:
            logger.warning("no direct ingress, Serve has added middleware: %s", CONSEQUENCE)
            return serve_app
        if obstacle := _obstacle(replica):
            logger.warning("no direct ingress because of %s: %s", obstacle, CONSEQUENCE)
            return serve_app
        return DirectIngress(serve_app, gateway, ServeReplica.of(replica))
    except GONE as error:
        logger.warning("no direct ingress with this version of Ray (%r): %s", error, CONSEQUENCE)
        return serve_app


@dataclass(frozen=True, slots=True)
class ServeReplica:
    """The parts of Serve's replica that count requests."""

    count_in_flight: Callable[[], AbstractAsyncContextManager[object]]
    record_request: Callable[..., None]
    record_reply: Callable[..., None]

    @classmethod
    def of(cls, replica: Any) -> "ServeReplica":  # noqa: ANN401 - Ray has no types
        """The parts of a `ray.serve._private.replica.Replica`.

        Raises:
            AttributeError, ImportError, TypeError, ValueError: this version of Ray differs.
        """
        from ray.serve._private.common import RequestMetadata, RequestProtocol

        metadata = RequestMetadata(
            request_id="",
            internal_request_id="",
            is_direct_ingress=True,
            _request_protocol=RequestProtocol.HTTP,
        )
        start, metrics = replica._start_request, replica._metrics_manager
        route, deployment = replica._route_prefix or "/", replica._deployment_id
        labels = {
            "protocol": RequestProtocol.HTTP,
            "route": route,
            "app_name": deployment.app_name,
            "deployment_name": deployment.name,
        }
        record_request = metrics.record_request_metrics
        record_ingress = metrics.record_ingress_request_metrics
        # Checked here, because a request must not be the first to fail.
        inspect.signature(start).bind(metadata)
        if not isinstance(start(metadata), AbstractAsyncContextManager):
            raise TypeError("`Replica._start_request` does not return a context manager")
        inspect.signature(record_request).bind(
            route=route, latency_ms=1.0, is_error=False, exception_type=None
        )
        inspect.signature(record_ingress).bind(
            **labels, method="POST", latency_ms=1.0, is_error=False, status_code="200"
        )
        return cls(
            count_in_flight=lambda: start(metadata),
            record_request=lambda **values: record_request(route=route, **values),
            record_reply=lambda **values: record_ingress(**labels, **values),
        )


class DirectIngress:
    """Serve's application, but for inference requests, which go straight to the gateway."""

    def __init__(self, serve_app: App, gateway: GatewayApp, replica: ServeReplica) -> None:
        self._serve_app = serve_app
        self._gateway = gateway
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http" or not _goes_directly(scope["path"]):
            await self._serve_app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 0
        error: Exception | None = None
        try:
            async with self._replica.count_in_flight():
                writer = body_writer_behind(send)
                status = await self._gateway.answer(scope, receive, send, writer)
        except Exception as broken:
            error = broken
            if not isinstance(broken, GatewayError):  # which is logged already, with its request
                logger.exception("%s failed; its connection is closed", scope["path"])
            raise  # uvicorn closes the connection without a response
        finally:
            latency_ms = 1000 * (time.perf_counter() - began_s)
            self._record(scope["method"], status, latency_ms, error)

    def _record(self, method: str, status: int, latency_ms: float, error: Exception | None) -> None:
        """Count a request in Serve's own metrics; `status`: 0 if its client left, or it broke."""
        self._replica.record_request(
            latency_ms=latency_ms,
            is_error=error is not None,
            exception_type=None if error is None else type(error).__name__,
        )
        if status:
            self._replica.record_reply(
                method=method,
                latency_ms=latency_ms,
                is_error=status >= 400,
                status_code=str(status),
            )


def _goes_directly(path: str) -> bool:
    return path in ROUTES or is_state_path(path)


def _replica_behind(serve_app: App) -> Any:  # noqa: ANN401 - Ray has no types
    """Serve's replica, if only the middlewares are before it that are always there; else None."""
    from ray.serve._private.http_util import RequestIdMiddleware
    from ray.serve._private.replica import Replica
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    inner: Any = serve_app.app if isinstance(serve_app, ProxyHeadersMiddleware) else serve_app
    endpoint = inner._app if isinstance(inner, RequestIdMiddleware) else None
    replica = getattr(endpoint, "__self__", None)
    return replica if isinstance(replica, Replica) else None


def _obstacle(replica: Any) -> str:  # noqa: ANN401 - Ray has no types
    """A feature that Serve is configured with and the direct way leaves out; empty if none."""
    from ray.serve._private.tracing_utils import is_tracing_enabled

    options, logging_config = replica._http_options, replica._deployment_config.logging_config
    obstacles = {
        "missing HTTP options": options is None,
        "`request_timeout_s`": options is not None and options.request_timeout_s is not None,
        "`max_queued_requests`": replica.max_queued_requests != -1,
        "Serve's tracing": is_tracing_enabled(),
        "Serve's access log": logging_config is None
        or logging_config.get("enable_access_log", True),
        "user code in a thread of its own": (
            replica._user_callable_wrapper._run_user_code_in_separate_thread
        ),
    }
    return next((name for name, is_there in obstacles.items() if is_there), "")
