"""Types of the ASGI interface."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Headers = list[tuple[bytes, bytes]]
"""Pairs of lower-case name and value, in order."""
Message = MutableMapping[str, Any]  # as the ASGI specification has it
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
