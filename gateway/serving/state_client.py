"""What a router asks of State, the process that keeps projects' files, batches and responses."""

from dataclasses import dataclass
from typing import Protocol

from gateway.asgi import Receive, Scope
from gateway.serving.client_response import ClientResponse


class StateUnavailable(Exception):
    """State does not answer; requests that need nothing of it go on."""


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """Answer of State to a small request."""

    status: int
    body: bytes


class StateClient(Protocol):
    """State, as routers use it."""

    async def request(self, project: str, method: str, path: str, body: bytes = b"") -> StateAnswer:
        """Ask State for JSON, on behalf of a project ("" where nobody is authenticated).

        `path`: percent-encoded, with its query; those below `/internal/` are for routers alone.
        `body`: JSON, or nothing.

        Raises:
            StateUnavailable: it cannot be reached, or did not answer in time.
        """

    async def forward(self, scope: Scope, receive: Receive, response: ClientResponse) -> None:
        """Pass a client's whole request on, and the answer back, both as they come.

        The project is that of the identity in `scope`.

        Raises:
            StateDown: State cannot be reached, or its answer broke off.
            ClientDisconnected: the client has left.
        """
