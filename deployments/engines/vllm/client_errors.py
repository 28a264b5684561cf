"""Whose fault an error inside vLLM is: the client's before the engine has the request, ours after.

Made up for, of vLLM 0.32: it validates and renders requests in code that trusts their shape (an
assistant item without content is indexed, a tool without `function` is looked up), and answers 500
to the `LookupError`, and 400 to any `TypeError`. Before the engine has a request, nothing but that
code has run, and it fails for no other request: a 500 would have routers try others, and count
against each. After that, code of this shape reads what the engine has made.
"""

import logging
import traceback
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.serve.exception_handling.handlers.exception import exception_handler
from vllm.exceptions import GenerationError, VLLMValidationError

from deployments.engines.call import current_call
from deployments.engines.vllm.api.api_errors import HANDLERS
from deployments.engines.vllm.api.error_words import OTHER_FORM
from gateway.rare_warning import RareWarning

logger = logging.getLogger(__name__)
_unexplained = RareWarning(logger)

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
        if kind is not ValueError:  # 400 anyway, and in words for clients
            handlers.add_exception_handler(kind, _handle)
    for kind, handler in HANDLERS.items():
        handlers.add_exception_handler(kind, handler)
    return app


def client_error(error: Exception) -> VLLMValidationError:
    """The client's error in place of one by which validation or rendering has ended.

    Only a `ValueError` or a `NotImplementedError` has words that are meant for somebody.
    """
    is_said = isinstance(error, ValueError | NotImplementedError)
    if is_said:
        logger.info("a request cannot be validated or rendered", exc_info=error)
    else:
        _unexplained.log(
            "vLLM cannot validate or render a request, whose client gets 400; if it is in order,"
            " report it:\n%s",
            "".join(traceback.format_exception(error)).rstrip(),
        )
    return VLLMValidationError(str(error) if is_said and str(error) else OTHER_FORM)


async def _handle(request: Any, error: Exception) -> Any:  # noqa: ANN401 - Starlette's
    call = current_call()
    if call is not None and not call.has_reached_engine:
        error = client_error(error)
    elif isinstance(error, TypeError):
        error = GenerationError(str(error))  # vLLM would call it the client's
    return await exception_handler(request, error)
