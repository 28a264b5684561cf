"""Types of ASGI, as far as the gateway uses it, and look-up of headers."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

Headers = list[tuple[bytes, bytes]]
"""Pairs of lower-case name and value, in order."""
Message = MutableMapping[str, Any]  # as the ASGI specification has it
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
FIELDS = "gateway.fields"
"""Entry of a request's scope: its headers by name, once they have been asked for."""


class BodyWriter(Protocol):
    """A server's own way to write parts of one response's body, in turn with those sent by ASGI."""

    def write(self, body: bytes, chunks: bytes) -> bool:
        """Write a part after which more follows; returns False if it has to be sent by ASGI.

        It does if the client is slow, or nothing has been sent yet. `chunks`: the part in HTTP's
        chunked coding, where it came like that; otherwise empty.
        """


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes, default: bytes) -> bytes:
    """The first value of the header `name`, in lower case; `default` where there is none."""
    for key, value in headers:
        if key == name:
            return value
    return default


def fields_of(scope: Scope) -> Mapping[bytes, bytes]:
    """Headers of a request by name; of several with one name, the last."""
    fields: Mapping[bytes, bytes] | None = scope.get(FIELDS)
    if fields is None:
        fields = scope[FIELDS] = dict(scope["headers"])
    return fields


def has_body(scope: Scope) -> bool:
    """Whether a request has a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
