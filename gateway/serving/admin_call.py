"""Requests for the admin API, as routers pass them on to Accounts."""

import msgspec


class AdminCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the admin API, whose sender a router has authenticated."""

    method: str
    path: str
    """From `/v1/organization` on, percent-encoded as it came."""
    query: bytes = b""
    body: bytes = b""
    actor: str = ""
    """Id of the admin key, or of whoever a token stands for."""
    request_id: str = ""
    address: str = ""
    """Address of the client, for the audit log."""


class AdminAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of the admin API."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    changes: int = 0
    """Number of changes after which the answer holds, where it has made one."""
