"""Table of all errors that a client may see, generated from their classes."""

from collections.abc import Iterator

from gateway.errors import access, administration, limits, request, state, upstream
from gateway.errors.gateway_error import GatewayError, RetryLater
from gateway.reference.markdown import code, table

CATALOGUE = {GatewayError.__module__} | {
    module.__name__ for module in (access, administration, limits, request, state, upstream)
}
"""Where errors for clients are defined; those of simulated engines, elsewhere, are left out."""


def error_tables() -> dict[str, str]:
    """Every error, by its status."""
    errors = sorted(set(client_errors()), key=lambda error: (error.status, error.code))
    rows = [
        (f"{error.status}", code(error.code), code(error.type), _meaning(error)) for error in errors
    ]
    return {"gateway": table(("status", "`code`", "`type`", "meaning"), rows)}


def client_errors() -> Iterator[type[GatewayError]]:
    """The classes of all errors that a client may see."""
    todo: list[type[GatewayError]] = [GatewayError]
    while todo:
        error = todo.pop()
        todo += error.__subclasses__()
        is_public = error.__module__ in CATALOGUE and not error.__name__.startswith("_")
        if is_public and error is not RetryLater:
            yield error


def _meaning(error: type[GatewayError]) -> str:
    return (error.__doc__ or "").partition("\n\n")[0]
