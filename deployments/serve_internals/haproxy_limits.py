"""How many connections HAProxy accepts: as many as the process may have files open for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gateway.cluster.connections import (
    MAX_CONNECTIONS,
    connections_with,
    files_for,
    max_files,
)
from gateway.environment import CONNECTIONS_PER_ADDRESS, HAPROXY_MAXCONN
from gateway.errors.limits import TooManyConnections


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the connections of one HAProxy."""

    total: int
    """Connections that it accepts."""
    per_address: int
    """Connections that one client address may have; 0: any number."""

    @classmethod
    def read(cls, environ: Mapping[str, str], allowed_files: int | None = None) -> Self:
        """Limits from Serve's environment and the number of files that may be open.

        Raises:
            SystemExit: a variable is not a number, or demands more than there are files.
        """
        files = max_files() if allowed_files is None else allowed_files
        possible = connections_with(files)
        total = _number(environ, HAPROXY_MAXCONN, min(possible, MAX_CONNECTIONS))
        if total > possible:
            needed = files_for(total)
            raise SystemExit(
                f"gateway-haproxy: {HAPROXY_MAXCONN}={total} needs {needed} open files, and"
                f" {files} are allowed: raise the limit (ulimit -Hn {needed}) or lower the variable"
            )
        return cls(total, _number(environ, CONNECTIONS_PER_ADDRESS, max(1, total // 2)))

    @property
    def reserve(self) -> int:
        """Connections at the end of `total` that are accepted only to be told to come back."""
        return max(4, self.total // 16)

    @property
    def refused_per_address(self) -> int:
        """Connections beyond `per_address` that are accepted only to be told to come back."""
        return max(4, self.per_address // 16)

    @property
    def excess_error(self) -> TooManyConnections:
        """Answer on a connection beyond `per_address`."""
        return TooManyConnections(
            f"This address has {self.per_address} open connections to the gateway, which is its"
            " limit. Close idle ones, or use one client for many requests."
        )

    @property
    def full_error(self) -> TooManyConnections:
        """Answer on a connection at the end of `total`."""
        return TooManyConnections(
            f"All {self.total} connections of the gateway are in use. Try again later."
        )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal():
        raise SystemExit(f"gateway-haproxy: {name}={text} is not a whole number")
    return int(text)
