"""Our routes in front of vLLM's of the same paths."""

from typing import Any

from deployments.engines.vllm.api import chat, completions, embeddings, messages, responses

ROUTERS = (chat.router, completions.router, embeddings.router, messages.router, responses.router)
BESIDE = {"/v1/responses/input_tokens": "/v1/responses"}
"""Paths that vLLM does not have, and those of vLLM's with which they come."""


def put_first(app: Any) -> Any:  # noqa: ANN401 - vLLM's FastAPI application
    """Have `app` answer with our routes where it has vLLM's of the same path and method.

    Models without such a route, as pooling models have no chat, do not get one.
    """
    of_vllm = {place for route in app.routes for place in _places(route)}
    own = [route for router in ROUTERS for route in router.routes]
    app.router.routes[:0] = [route for route in own if _places(route) <= of_vllm]
    return app


def _places(route: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - Starlette's, of several kinds
    """Path and method of each request that a route answers."""
    methods = getattr(route, "methods", None) or ()
    return {(BESIDE.get(route.path, route.path), method) for method in methods}
