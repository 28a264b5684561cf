"""Metrics of a node's HAProxy, published by one of the node's routers.

HAProxy's supervisor counts what HAProxy saw cut (`haproxy_terminations`); HAProxy itself says how
many connections it has. Of all routers on the node, the one that holds a lock publishes both. What
it has published of the counts is kept beside them, for the router that comes after it.
"""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ray

from deployments.serve_internals.haproxy_terminations import (
    COUNTS_SUFFIX,
    RESTART,
    read_counts,
    write_counts,
)
from gateway.environment import HAPROXY_SOCKET, HAPROXY_SOCKET_DEFAULT
from gateway.metrics import HAPROXY_CONNECTION_LIMIT, HAPROXY_CONNECTIONS, HAPROXY_CUT, Recorder

LOCK_SUFFIX = ".reporter"
PUBLISHED_SUFFIX = ".published"
ANSWER_TIMEOUT_S = 2.0
BY_ROUTER = ("SD", "SH")
"""States of answers that a router broke off: before their end, or before their first byte."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HAProxyReading:
    """State of a HAProxy, and the events since the last one that was published."""

    connections: int
    limit: int
    events: dict[str, int]


class HAProxyReport:
    """Publishes the metrics of the HAProxy with the admin socket `admin`, on the node `node`."""

    def __init__(self, admin: Path, node: str, recorder: Recorder) -> None:
        self._admin = admin
        self._node = node
        self._recorder = recorder
        self._lock: int | None = None

    def read(self) -> HAProxyReading | None:
        """What is new; None if another router reports it, or there is no HAProxy. Blocks shortly.

        The events count as published from here on.
        """
        with contextlib.suppress(OSError, ValueError):
            if self._is_reporter():
                connections, limit = self._connections()
                return HAProxyReading(connections, limit, self._fresh_events())
        return None

    def publish(self, reading: HAProxyReading) -> None:
        """Record a reading, and log what no router can have logged."""
        self._recorder.set(HAPROXY_CONNECTIONS, (self._node,), reading.connections)
        self._recorder.set(HAPROXY_CONNECTION_LIMIT, (self._node,), reading.limit)
        for state, count in reading.events.items():
            self._recorder.count(HAPROXY_CUT, (self._node, state), count)
        if broken := sum(reading.events.get(state, 0) for state in BY_ROUTER):
            logger.warning(
                "HAProxy saw %d answers break off because a router ended or closed its connection",
                broken,
            )
        if killed := reading.events.get(RESTART, 0):
            logger.warning(
                "HAProxy was killed and started again %d times; its connections were cut", killed
            )

    def close(self) -> None:
        """Leave it to another router."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_reporter(self) -> bool:
        if self._lock is None:
            file = os.open(self._beside(LOCK_SUFFIX), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                return False
            self._lock = file
        return True

    def _connections(self) -> tuple[int, int]:
        with socket.socket(socket.AF_UNIX) as haproxy:
            haproxy.settimeout(ANSWER_TIMEOUT_S)
            haproxy.connect(str(self._admin))
            haproxy.sendall(b"show info\n")
            answer = b"".join(iter(lambda: haproxy.recv(65_536), b"")).decode()
        found = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
        return int(found.get("CurrConns", 0)), int(found.get("Maxconn", 0))

    def _fresh_events(self) -> dict[str, int]:
        counts = read_counts(self._beside(COUNTS_SUFFIX))
        published = read_counts(self._beside(PUBLISHED_SUFFIX))
        fresh = {
            state: count - published.get(state, 0)
            for state, count in counts.items()
            if count > published.get(state, 0)
        }
        if fresh:
            write_counts(self._beside(PUBLISHED_SUFFIX), counts)
        return fresh

    def _beside(self, suffix: str) -> Path:
        return self._admin.with_name(self._admin.name + suffix)


def report_of_this_node(recorder: Recorder, environ: Mapping[str, str]) -> HAProxyReport:
    """The report of the HAProxy on this replica's node, in Serve's environment."""
    path = Path(environ.get(HAPROXY_SOCKET, HAPROXY_SOCKET_DEFAULT))
    node = ray.get_runtime_context().get_node_id()
    # Serve gives each node a directory of its own.
    admin = path.parent / node / path.name
    return HAProxyReport(admin, ray.util.get_node_ip_address(), recorder)
