"""All environment variables for the shell that starts Ray, and the settings read from them."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec

HAPROXY_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
HAPROXY_SCRIPT = "gateway-haproxy"
"""The command, installed with this package, that starts HAProxy in Serve's place."""
HAPROXY_LOG_TARGET = "RAY_SERVE_HAPROXY_LOG_TARGET"
HAPROXY_THREADS = "RAY_SERVE_HAPROXY_NBTHREAD"
HAPROXY_MAXCONN = "RAY_SERVE_HAPROXY_MAXCONN"
HAPROXY_SOCKET = "RAY_SERVE_HAPROXY_SOCKET_PATH"
HAPROXY_SOCKET_DEFAULT = "/tmp/haproxy-serve/admin.sock"  # noqa: S108 - Serve's own default
HAPROXY_LISTEN = "GATEWAY_HAPROXY_LISTEN"
CONNECTIONS_PER_ADDRESS = "GATEWAY_CONNECTIONS_PER_ADDRESS"
ADMIN_KEY = "GATEWAY_ADMIN_KEY"
API_KEY = "GATEWAY_API_KEY"
GATEWAY_URL = "GATEWAY_URL"
PROXY_KEY = "GATEWAY_PROXY_KEY"
"""Set by `gateway-haproxy` for its HAProxy alone, so that the key stands in no file."""
LOOPBACK = "127.0.0.1"
AUTH_MODE = "RAY_AUTH_MODE"
AUTH_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a variable's name
AUTH_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - a variable's name
HAPROXY_METRICS_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT"
HAPROXY_STATS_PORT = "RAY_SERVE_HAPROXY_STATS_PORT"
HAPROXY_CONFIG_FILE = "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"
HAPROXY_METRICS_SOCKET = "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"
HAPROXY_STATE_BASE = "RAY_SERVE_HAPROXY_SERVER_STATE_BASE"
HAPROXY_STATE_FILE = "RAY_SERVE_HAPROXY_SERVER_STATE_FILE"
TEMPORARY, RAY_TEMPORARY = "TMPDIR", "RAY_TMPDIR"
FALLBACK_PROXY_PORT = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"
ROUTER_MIN_PORT = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"
ROUTER_MAX_PORT = "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"
ROUTER_MIN_DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
HAS_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
IS_THROUGHPUT_OPTIMIZED = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
SEPARATE_THREAD = "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"
CLUSTER_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class Variable(msgspec.Struct, frozen=True):
    """An environment variable and its purpose."""

    name: str
    meaning: str
    value: str | None = None
    """The recommended value, if there is one for every installation."""


RECOMMENDED = (
    Variable(
        HAS_HAPROXY,
        "HAProxy accepts connections in place of Serve's Python proxy. Several times faster.",
        "1",
    ),
    Variable(
        IS_THROUGHPUT_OPTIMIZED,
        "Serve and the router share one event loop, which saves a thread switch per message.",
        "1",
    ),
    Variable(
        HAPROXY_BINARY,
        "Full path of `gateway-haproxy`, which starts HAProxy with `-dS`, starts it again if it is"
        " killed, and adds to its configuration: limits on connections and on how long a request"
        " may take to arrive, the client's true address, the key that routers ask for, and errors"
        " in OpenAI's shape. Without it, HAProxy 2.8 often misses a client that"
        " disconnects while it waits for an unstreamed answer, and the engine finishes an answer"
        " that nobody reads.",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S",
        "Seconds without progress while a client reads an answer or sends a body. A client that"
        " reads 1 kB/s makes room in the kernel's buffer about once a minute. Waiting for an answer"
        " does not count.",
        "300",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S",
        "Seconds that an answer may be silent, before its first byte or between two. The model's"
        " own `timeout_s` is the limit that matters.",
        "14400",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S",
        "Seconds that an old HAProxy process lives on for its streams. Serve replaces HAProxy"
        " whenever a router comes or goes; its own value would end streams older than two minutes.",
        "14400",
    ),
    Variable(
        "RAY_SERVE_PORT_QUARANTINE_S",
        "Seconds before the port of a stopped router is used again. Serve would wait as long as an"
        " old HAProxy may live. A client's idle connection lasts 90 s at most, so nothing reaches"
        " the old port after that.",
        "150",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_RETRY_ON",
        "Repeats a request that reached a router just as it closed the connection. Otherwise"
        " HAProxy closes the client's connection without an answer.",
        "conn-failure empty-response",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT",
        "A router that refuses a connection has died: requests go elsewhere at once, without one to"
        " Serve's own proxy, where they wait for the next router. After more failures HAProxy has"
        " no retries left, and closes a client's connection without an answer.",
        "1",
    ),
    Variable(
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S",
        "Seconds between Serve's checks of a node's HAProxy and its supervisor. It replaces both"
        " after three failed ones, which would take half a minute.",
        "1",
    ),
    Variable(
        "RAY_SERVE_HAPROXY_METRICS_ENABLED",
        "Routers count requests for Serve's metrics themselves. Otherwise HAProxy logs a line per"
        " request for a Python process to read, which costs an eighth of a router's CPU.",
        "0",
    ),
    Variable(
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE",
        "Log lines are written at once. Otherwise Serve holds back a thousand of them, and loses"
        " them if the process is killed.",
        "1",
    ),
    Variable(
        AUTH_MODE,
        "Ray's ports, and those of Serve's replicas, accept only processes that have the cluster's"
        " token: `~/.ray/auth_token`, or what `RAY_AUTH_TOKEN_PATH` or `RAY_AUTH_TOKEN` name. Ray"
        " itself would only warn on several machines, and whoever reaches a port could run any"
        " code. HAProxy and routers derive the key from it by which they know each other.",
        "token",
    ),
    Variable(
        "RAY_gcs_rpc_server_reconnect_timeout_s",
        "Seconds that a node goes on without the head: engines and routers answer as before. After"
        " a minute, Ray would otherwise end the node with all that runs on it.",
        "600",
    ),
    Variable("RAY_USAGE_STATS_ENABLED", "Ray sends no usage statistics to its makers.", "0"),
)
"""Variables to set on every node before Ray starts."""

OPTIONAL = (
    Variable(
        HAPROXY_LOG_TARGET,
        "A syslog server (`host:port`) that gets a line for each request. Unset, HAProxy logs only"
        " changes of its servers.",
    ),
    Variable(
        HAPROXY_THREADS, "HAProxy's threads; Serve's default is 4. Use fewer on a small machine."
    ),
    Variable(
        HAPROXY_METRICS_PORT, "Port of HAProxy's own Prometheus exporter on every node (9101)."
    ),
    Variable(
        "RAY_SERVE_SLOW_STARTUP_WARNING_S",
        "Seconds until `serve status` reports that an engine is still waiting for a place (30).",
    ),
    Variable(
        HAPROXY_MAXCONN,
        "Connections that each HAProxy accepts. Unset: as many as it may open files for"
        " (`ulimit -Hn`, two for each connection), at most 65,536. When nearly all are in use, new"
        " ones get 503 `too_many_connections` at once.",
    ),
    Variable(
        CONNECTIONS_PER_ADDRESS,
        "Connections that one client address may have at each HAProxy; more get 429"
        " `too_many_connections`. Unset: half of all. `0`: any number. The `trusted_proxies` of the"
        " gateway config may have any number.",
    ),
    Variable(
        HAPROXY_LISTEN,
        "Address that HAProxy's statistics page and Prometheus exporter listen on. Unset:"
        " `127.0.0.1`. They show addresses of routers, and ask for no password.",
    ),
    Variable(AUTH_TOKEN_PATH, "File with the cluster's token, in place of `~/.ray/auth_token`."),
    Variable(
        "RAY_DASHBOARD_ADDRESS", "The cluster that `serve deploy` and `serve status` talk to."
    ),
    Variable(
        SEPARATE_THREAD,
        "Leave it unset. With `1`, requests take Serve's full request path, which costs about 25 %"
        " more of a router's CPU.",
    ),
    Variable(
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH",
        "Leave it unset. Middlewares of your own send requests through Serve's full request path,"
        " as `request_timeout_s` in `http_options` does.",
    ),
)
"""Variables that an operator may want to set."""

TRACING = (
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "The collector; it turns tracing on. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` goes first.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "`http/protobuf` (the default) or `grpc`. `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` goes first.",
    ),
    Variable("OTEL_TRACES_EXPORTER", "`otlp`, `console` (the router's log) or `none`."),
    Variable(
        "OTEL_TRACES_SAMPLER",
        "Which requests are traced, with `OTEL_TRACES_SAMPLER_ARG`. Unset: all, unless the client's"
        " `traceparent` says no.",
    ),
    Variable("OTEL_SERVICE_NAME", "The service's name in traces; `ray-llm-gateway` if unset."),
    Variable("OTEL_SDK_DISABLED", "`true` turns tracing off."),
)
"""OpenTelemetry's standard variables that a router reads itself."""

COMMANDS = (
    Variable(
        ADMIN_KEY,
        "Admin key for `gateway status`, `top`, `logs`, `projects`, `keys`, `usage` and `costs`: no"
        " argument, because all"
        " users of a machine see those.",
    ),
    Variable(API_KEY, "A project's API key for `gateway batches`, where clients need one."),
    Variable(
        GATEWAY_URL,
        "Address of the gateway for these commands, unless `--url` names it. Unset:"
        " `http://127.0.0.1:8000`.",
    ),
)
"""Variables that commands which ask a running gateway read, where they run."""

LOCAL = (
    Variable(FALLBACK_PROXY_PORT, "A free port, so that two clusters fit on one machine."),
    Variable(ROUTER_MIN_PORT, "The first port for this cluster's routers."),
    Variable(ROUTER_MAX_PORT, "The last port for this cluster's routers."),
    Variable(HAPROXY_STATS_PORT, "A free port for HAProxy's statistics."),
    Variable(
        ROUTER_MIN_DRAINING,
        "3: only this cluster's own HAProxy has to learn that a router is stopping.",
    ),
    Variable(
        CLUSTER_ON_LOOPBACK,
        "0: despite its name, this keeps Ray's cluster on the machine's loopback interface.",
    ),
    Variable(TEMPORARY, "A directory of its own, removed in the end."),
    Variable(RAY_TEMPORARY, "The same directory, for Ray's session."),
    Variable(HAPROXY_CONFIG_FILE, "A file in that directory; Serve's default is in `/tmp`."),
    Variable(HAPROXY_SOCKET, "HAProxy's admin socket, in that directory."),
    Variable(HAPROXY_METRICS_SOCKET, "A socket in that directory."),
    Variable(HAPROXY_STATE_BASE, "A folder in that directory."),
    Variable(HAPROXY_STATE_FILE, "A file in that directory."),
)
"""Variables that `gateway serve` sets as well, for a cluster of its own on one machine."""


def recommended(haproxy_binary: str) -> dict[str, str]:
    """The variables to set before Ray starts, by name."""
    values = {each.name: each.value for each in RECOMMENDED if each.value is not None}
    return {**values, HAPROXY_BINARY: haproxy_binary}


def installed_haproxy() -> str:
    """The full path of `gateway-haproxy`, as it was installed with this package.

    Raises:
        FileNotFoundError: it was not.
    """
    places = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    search = os.pathsep.join([*places, os.environ.get("PATH", os.defpath)])
    found = shutil.which(HAPROXY_SCRIPT, path=search)
    if found is None:
        raise FileNotFoundError(
            f"{HAPROXY_SCRIPT} is not installed beside {sys.executable} or on PATH:"
            " install the package ray-llm-gateway there"
        )
    return found


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of Ray Serve, read from the process's environment."""

    has_haproxy: bool
    """Serve puts HAProxy in front of the routers."""
    is_throughput_optimized: bool
    """Serve runs its own parts and the router on one event loop."""
    is_hardened: bool
    """`gateway-haproxy` starts HAProxy, which passes on the client's address."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`."""
        return cls(
            has_haproxy=environ.get(HAS_HAPROXY) == "1",
            is_throughput_optimized=environ.get(IS_THROUGHPUT_OPTIMIZED) == "1",
            is_hardened=environ.get(HAPROXY_BINARY, "").endswith(HAPROXY_SCRIPT),
        )

    @property
    def names_clients(self) -> bool:
        """Whether `x-forwarded-for` comes from the proxy, and not from the client itself."""
        return self.has_haproxy and self.is_hardened

    @property
    def missing(self) -> list[str]:
        """The variables without which the gateway works, but several times slower."""
        wanted = {
            HAS_HAPROXY: self.has_haproxy,
            IS_THROUGHPUT_OPTIMIZED: self.is_throughput_optimized,
        }
        return [name for name, is_set in wanted.items() if not is_set]
