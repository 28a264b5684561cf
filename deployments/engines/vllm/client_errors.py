"""Errors of vLLM that the request has caused, although vLLM calls them the server's.

Made up for, of vLLM 0.32: it validates and renders requests in code that trusts their shape (an
assistant item without content is indexed, a tool without `function` is looked up), and answers 500
to the `LookupError`. Before the engine has a request, nothing but that code has run.
"""

import logging
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.serve.exception_handling.handlers.exception import exception_handler
from vllm.exceptions import VLLMValidationError

from deployments.engines.call import current_call
from deployments.engines.vllm.api.api_errors import HANDLERS

logger = logging.getLogger(__name__)

BY_SHAPE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError),
    *(NotImplementedError, TypeError, ValueError),
)
"""Errors of code that reads a value of another shape than it expects. What depends on the machine
is not among them: `OSError`, `MemoryError`, `RuntimeError`."""


def blame_requests(app: Any) -> Any:  # noqa: ANN401 - vLLM's FastAPI application
    """Have the application answer 400 where a request cannot be validated or rendered."""
    # vLLM's handler of engine errors wants to end a server, which is not its own here.
    app.state.server = SimpleNamespace(should_exit=False)
    handlers = app.middleware_stack or app  # vLLM's start has built the stack already
    while not hasattr(handlers, "add_exception_handler"):
        handlers = handlers.app
    kind: type[Exception]
    for kind in BY_SHAPE:
        if kind not in (TypeError, ValueError):  # those are 400 anyway
            handlers.add_exception_handler(kind, _handle)
    for kind, handler in HANDLERS.items():
        handlers.add_exception_handler(kind, handler)
    return app


def client_error(error: Exception) -> VLLMValidationError:
    """The client's error in place of one by which validation or rendering has ended."""
    logger.info("a request cannot be validated or rendered", exc_info=error)
    text = str(error) or type(error).__name__
    if not isinstance(error, ValueError | NotImplementedError):
        text = f"part of the request has another form than expected: {type(error).__name__}: {text}"
    return VLLMValidationError(text)


async def _handle(request: Any, error: Exception) -> Any:  # noqa: ANN401 - Starlette's
    call = current_call()
    if call is not None and not call.has_reached_engine:
        error = client_error(error)
    return await exception_handler(request, error)
