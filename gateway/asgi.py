"""The words of ASGI, as far as the gateway speaks them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Headers = list[tuple[bytes, bytes]]
"""Pairs of lower-case name and value, in order."""
Message = MutableMapping[str, Any]  # the ASGI specification's own type
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
