"""A router's application as Serve calls it, with a shortcut for inference requests.

Between uvicorn and the gateway Serve (Ray 2.60) wraps each request: ids, a context and records for
logs, timers. HAProxy and the gateway do the same, and it takes a quarter of a router's time. So
inference requests go to the gateway at once, and Serve is told what it has to know of them: how
many are under way, for draining and scaling, and its metrics.
"""
# ruff: noqa: SLF001 - Serve has no public names for any of it

import logging
import time

from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.http_util import RequestIdMiddleware
from ray.serve._private.replica import Replica
from ray.serve._private.tracing_utils import is_tracing_enabled
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.asgi import App, Receive, Scope, Send
from gateway.errors import GatewayError
from gateway.http.app import GatewayApp
from gateway.request.routes import ROUTES

UNDER_WAY = RequestMetadata(
    request_id="",
    internal_request_id="",
    is_direct_ingress=True,
    _request_protocol=RequestProtocol.HTTP,
)
"""All that Serve wants to know of a request in order to count it."""

logger = logging.getLogger(__name__)


def shortened(serve: App, gateway: GatewayApp) -> App:
    """The application with the shortcut, if that leaves out nothing operators have asked for."""
    replica = _replica_behind(serve)
    if replica is None or _is_asked_for_more(replica):
        logger.warning("slower than it could be: requests take Serve's whole way to the gateway")
        return serve
    return Shortcut(serve, gateway, replica)


class Shortcut:
    """Serve's application, but for inference requests, which go to the gateway at once."""

    def __init__(self, serve: App, gateway: GatewayApp, replica: Replica) -> None:
        self._serve = serve
        self._gateway = gateway
        self._under_way = replica._start_request
        self._metrics = replica._metrics_manager
        self._app_name = replica._deployment_id.app_name
        self._deployment = replica._deployment_id.name
        self._route = replica._route_prefix or "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI."""
        if scope["type"] != "http" or scope["path"] not in ROUTES:
            await self._serve(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 0
        error: Exception | None = None
        try:
            async with self._under_way(UNDER_WAY):
                status = await self._gateway.answer(scope, receive, send)
        except Exception as broken:
            error = broken
            if not isinstance(broken, GatewayError):  # which has been noted, with its request
                logger.exception("%s failed", scope["path"])
            raise  # uvicorn cuts the connection, without a word
        finally:
            latency_ms = 1000 * (time.perf_counter() - began_s)
            self._record(scope["method"], status, latency_ms, error)

    def _record(self, method: str, status: int, latency_ms: float, error: Exception | None) -> None:
        """Count a request in Serve's own metrics; `status`: 0 if its client has left, or is cut."""
        metrics, route = self._metrics, self._route
        metrics.record_request_metrics(
            route=route,
            latency_ms=latency_ms,
            is_error=error is not None,
            exception_type=None if error is None else type(error).__name__,
        )
        if status:
            metrics.record_ingress_request_metrics(
                protocol=RequestProtocol.HTTP,
                method=method,
                route=route,
                app_name=self._app_name,
                deployment_name=self._deployment,
                latency_ms=latency_ms,
                is_error=status >= 400,
                status_code=str(status),
            )


def _replica_behind(serve: App) -> Replica | None:
    """Serve's replica, if only the middlewares are before it that are always there."""
    inner: object = serve.app if isinstance(serve, ProxyHeadersMiddleware) else serve
    endpoint = inner._app if isinstance(inner, RequestIdMiddleware) else None
    replica = getattr(endpoint, "__self__", None)
    return replica if isinstance(replica, Replica) else None


def _is_asked_for_more(replica: Replica) -> bool:
    """Whether Serve is to do what the shortcut leaves out."""
    options, logging_config = replica._http_options, replica._deployment_config.logging_config
    return (
        options is None
        or options.request_timeout_s is not None
        or replica.max_queued_requests != -1
        or is_tracing_enabled()
        or (logging_config is None or logging_config.get("enable_access_log", True))
        or replica._user_callable_wrapper._run_user_code_in_separate_thread
    )
