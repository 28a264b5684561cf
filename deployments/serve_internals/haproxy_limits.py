"""How many connections HAProxy accepts: as many as the process may have files open for."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gateway.environment import CONNECTIONS_PER_ADDRESS, HAPROXY_MAXCONN
from gateway.errors import TooManyConnections

MAX_TOTAL = 65_536
"""Connections by default where files are plenty; each may take 33 KB of memory."""
FILES_PER_CONNECTION = 2
"""One to the client and one to a router."""
OTHER_FILES = 256
"""Files for listeners, health checks, logs and the poller of each thread."""
MIN_TOTAL = 64


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the connections of one HAProxy."""

    total: int
    """Connections that it accepts."""
    per_address: int
    """Connections that one client address may have; 0: any number."""

    @classmethod
    def read(cls, environ: Mapping[str, str], max_files: int | None = None) -> Self:
        """Limits from Serve's environment and the number of files that may be open.

        Raises:
            SystemExit: a variable is not a number, or demands more than there are files.
        """
        files = _max_files() if max_files is None else max_files
        possible = max(MIN_TOTAL, (files - OTHER_FILES) // FILES_PER_CONNECTION)
        total = _number(environ, HAPROXY_MAXCONN, min(possible, MAX_TOTAL))
        if total > possible:
            needed = total * FILES_PER_CONNECTION + OTHER_FILES
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


def _max_files() -> int:
    """Number of files that HAProxy can have open: it raises its own limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else 2**20
