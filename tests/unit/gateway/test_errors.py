"""Errors: their shape for OpenAI's and Anthropic's clients, and pickling between processes."""

import json
import pickle
import re

import pytest

from gateway import errors
from gateway.errors import (
    access,
    administration,
    gateway_error,
    limits,
    request,
    startup,
    state,
    upstream,
)
from gateway.errors.access import AuthUnavailable, TooManyFailures
from gateway.errors.gateway_error import GatewayError, RetryLater
from gateway.errors.limits import (
    BodyBudgetExceeded,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    SpendUnknown,
)
from gateway.errors.request import MethodNotAllowed, ModelNotFound
from gateway.errors.upstream import ModelUnavailable

CLASSES = [
    kind
    for module in (
        *(gateway_error, startup, request, administration, access, limits, state, upstream),
    )
    for name, kind in vars(module).items()
    if isinstance(kind, type)
    and issubclass(kind, GatewayError)
    and kind.__module__ == module.__name__
    and not (name.startswith("_") or kind is RetryLater)
]
ARGUMENTS: dict[type[GatewayError], tuple[object, ...]] = {
    ModelNotFound: ("m", None),
    MethodNotAllowed: ("no", "GET"),
    ModelUnavailable: ("not yet", 2.5),
    Overloaded: ("too many", 2.5),
    BodyBudgetExceeded: ("too many bytes", 2.5),
    RateLimited: ("too many tokens", "requests", 2.5),
    QuotaExceeded: ("too much money", 2.5),
    SpendUnknown: ("nobody knows", 2.5),
    TooManyFailures: ("too many failures", 2.5),
    AuthUnavailable: ("no keys", 2.5),
}


def instance(kind: type[GatewayError]) -> GatewayError:
    """An error of that class."""
    return kind(*ARGUMENTS.get(kind, ("message", "parameter")))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_pickling(kind: type[GatewayError]) -> None:
    """An unpickled error has the same type, body, status, headers and text."""
    error = instance(kind)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert (copy.body(), copy.status, copy.headers) == (error.body(), error.status, error.headers)
    assert str(copy) == str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_body_has_openais_shape(kind: type[GatewayError]) -> None:
    """The body is `{"error": {message, type, param, code}}` and nothing else."""
    error = instance(kind)
    assert json.loads(error.body()) == {
        "error": {
            "message": error.message,
            "type": kind.type,
            "param": error.param,
            "code": kind.code,
        }
    }


def drawn(tree: str) -> dict[str, tuple[str, str, str]]:
    """Parent, status and code of each class in a tree; a class without a status has its parent's.

    The code of the three at the top is left empty: they show their `type`, or nothing.
    """
    found: dict[str, tuple[str, str, str]] = {}
    parents: list[str] = []
    for line in tree.splitlines():
        match = re.match(r"([│├└─ ]*)(\w+) +(\d{3})? *(\w+)?", line)
        if match is None or (line[0].isalpha() and parents):
            continue
        indent, name, status, code = match.groups()
        depth = len(indent) // 4
        parents[depth:] = [name]
        parent = parents[depth - 1] if depth else ""
        status = status or found[parent][1]
        found[name] = parent, status, code or ""
    return found


def test_the_tree_shows_every_error() -> None:
    """With its parent, its status and its code."""
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    found = drawn(tree)
    known = {kind.__name__ for kind in CLASSES}
    assert found.keys() == known
    for kind in CLASSES:
        public = [each for each in kind.__mro__[1:] if each.__name__ in known]
        parent, status, code = found[kind.__name__]
        assert parent == (public[0].__name__ if public else "")
        if kind in {GatewayError, request.InvalidRequest}:
            assert (int(status), code) == (kind.status, kind.type)
        elif code:
            assert (int(status), code) == (kind.status, kind.code)
        else:
            assert kind in {startup.ConfigError, startup.PlacementFailed}


def test_an_unknown_model_gives_openais_message() -> None:
    """Clients that match OpenAI's sentence find it."""
    message = "The model `gpt-9` does not exist or you do not have access to it."
    assert ModelNotFound("gpt-9").message == message


def test_a_long_model_name_is_cut() -> None:
    """A model name of megabytes is not repeated in the error."""
    assert len(ModelNotFound("x" * 10_000_000).message) < 400


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.0, b"1"), (2.5, b"3"), (60.0, b"60")])
def test_retry_after_is_whole_seconds(retry_after_s: float, header: bytes) -> None:
    """`Retry-After` is rounded up, and never zero; milliseconds say it more exactly."""
    found = dict(ModelUnavailable("not yet", retry_after_s).headers)
    assert found[b"retry-after"] == header
    assert int(found[b"retry-after-ms"]) == max(1, 1000 * retry_after_s)
