"""Where State's own HTTP server listens, and the key that it wants."""

from typing import Protocol

import msgspec


class StateLocation(msgspec.Struct, frozen=True):
    """Where State's server is now; it moves when State is started again."""

    host: str
    port: int
    key: str


class StateLocator(Protocol):
    """Finds State."""

    async def locate(self) -> StateLocation:
        """Where State is now.

        Raises:
            StateUnavailable: it does not run.
        """
