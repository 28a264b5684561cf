"""What a batch needs of a router: one line answered, and what is wrong with a whole batch."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCall:
    """One try to have a line answered."""

    project_id: str
    path: str
    body: bytes
    request_id: str
    session: str
    """Lane of the batch: its lines share a prefix, and so prefer one replica."""
    is_guaranteed: bool = False
    """It does not wait for interactive requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAnswer:
    """Answer of the gateway to a line."""

    status: int
    body: bytes
    request_id: str
    retry_after_s: float = 0.0
    """When the gateway wants it to be tried again; 0 if it does not say."""
    may_retry: bool = True
    """Whether the same request may be answered later, as far as the gateway knows."""


class LineCaller(Protocol):
    """The gateway, as batches use it."""

    def refusal(self, project_id: str, path: str, model: str) -> tuple[str, str] | None:
        """Code and message of why no line of a batch would be answered; None if some may be."""

    async def call(self, call: LineCall) -> LineAnswer:
        """Have a line answered; cancelled, it leaves the engine at once."""
