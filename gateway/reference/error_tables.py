"""Table of all errors that a client may see, generated from their classes."""

from collections.abc import Iterator

from gateway.errors import ConfigError, GatewayError, PlacementFailed
from gateway.reference.markdown import code, table

INTERNAL = (ConfigError, PlacementFailed)
"""Errors that stop a start and never reach a client."""
CATALOGUE = GatewayError.__module__
"""Where the gateway's errors are defined; those of simulated engines, elsewhere, are left out."""


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
        is_public = error.__module__ == CATALOGUE and not error.__name__.startswith("_")
        if is_public and error not in INTERNAL:
            yield error


def _meaning(error: type[GatewayError]) -> str:
    return (error.__doc__ or "").partition("\n\n")[0]
