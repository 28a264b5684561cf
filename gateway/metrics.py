"""Catalogue of the gateway's own metrics and their labels.

Metrics are recorded through a `Recorder`; the one in `deployments.serve_internals.metrics` passes
them to Ray's metrics agent, which exports them. Label values come from small sets: names in the
configuration, or fixed words; never anything that a client can invent.
"""

from dataclasses import dataclass
from typing import Protocol

Labels = tuple[str, ...]
"""Values of a metric's labels, in order."""

NO_MODEL = "-"
"""Label value for the model of a request that names no known model."""

_UNTIL_A_SECOND = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_UNTIL_MINUTES = (2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """Name, labels and meaning of a metric."""

    name: str
    labels: tuple[str, ...] = ("model",)
    meaning: str

    @property
    def exported_name(self) -> str:
        """Name in Prometheus, as Ray's agent exports it."""
        return f"ray_{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counter(Metric):
    """Value that only grows."""

    @property
    def exported_name(self) -> str:
        """Name in Prometheus."""
        return f"ray_{self.name}_total"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gauge(Metric):
    """Current value, as each router sees it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram(Metric):
    """Distribution of a value; `bounds` are the upper bounds of its buckets."""

    bounds: tuple[float, ...]


class Recorder(Protocol):
    """Interface that records metrics."""

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Increase a counter."""

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Set a gauge."""

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Add an observation to a histogram."""

    def flush(self) -> None:
        """Pass on buffered values; to be called every few seconds."""


class NullRecorder:
    """Recorder that discards everything."""

    def count(self, metric: Counter, labels: Labels, amount: float = 1.0) -> None:
        """Discard it."""

    def set(self, metric: Gauge, labels: Labels, value: float) -> None:
        """Discard it."""

    def observe(self, metric: Histogram, labels: Labels, value: float) -> None:
        """Discard it."""

    def flush(self) -> None:
        """Do nothing."""


REQUESTS = Counter(
    name="gateway_requests",
    labels=("model", "route", "tenant_class", "priority", "outcome"),
    meaning=(
        "Finished requests. `tenant_class`: what tells the client apart from others, `project`,"
        " or without authentication `key` or `address`. `outcome`: `answered`; `refused` (the"
        " client's mistake); `limited` (its project has reached a limit); `shed` (rejected, may"
        " be sent again later); `failed` (an error); `truncated` (a stream ended with an error"
        " event); `timeout` (its deadline passed); `client_cancelled` (the client disconnected)."
    ),
)
AUTH_FAILURES = Counter(
    name="gateway_auth_failures",
    labels=("answer",),
    meaning=(
        "Requests without a valid key. `answer`: `refused` (401) or `throttled` (429, after too"
        " many from one address)."
    ),
)
FAULTS = Counter(
    name="gateway_faults",
    labels=("model", "reason", "action"),
    meaning=(
        "Faults of requests, and what was done about each: `retried`, `resumed`, `fell back`,"
        " `shed`, `failed`, `blamed` (it fails wherever it is sent), `truncated`; and, for a"
        " replica, `ejected`."
    ),
)
TTFT = Histogram(
    name="gateway_ttft_seconds",
    meaning="Time from a streamed request's arrival to the first event of its answer.",
    bounds=(*_UNTIL_A_SECOND[2:], *_UNTIL_MINUTES),
)
INTER_TOKEN = Histogram(
    name="gateway_inter_token_seconds",
    meaning="Time between two tokens: the mean of each answer, measured by its engine.",
    bounds=(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0),
)
E2E = Histogram(
    name="gateway_e2e_seconds",
    meaning="Time from a request's arrival to the end of its answer.",
    bounds=(*_UNTIL_A_SECOND[3:], *_UNTIL_MINUTES, 900.0, 3600.0),
)
QUEUE_WAIT = Histogram(
    name="gateway_queue_wait_seconds",
    meaning="Time a request waited in the gateway, for an engine to have room or to start.",
    bounds=(*_UNTIL_A_SECOND, *_UNTIL_MINUTES),
)
ROUTING = Histogram(
    name="gateway_routing_seconds",
    meaning="Time to admit a request and choose its replica, without its wait.",
    bounds=_SHORT,
)
OVERHEAD = Histogram(
    name="gateway_overhead_seconds",
    meaning=(
        "Time that the gateway itself added before the answer began: everything except waiting,"
        " connecting to the engine, and the engine's own time. Routing is part of it."
    ),
    bounds=_SHORT,
)
PROMPT_TOKENS = Counter(
    name="gateway_prompt_tokens", meaning="Prompt tokens of requests, counted by the engines."
)
CACHED_TOKENS = Counter(
    name="gateway_cached_tokens",
    meaning="Prompt tokens found in the chosen engine's KV cache.",
)
PREDICTED_CACHED_TOKENS = Counter(
    name="gateway_predicted_cached_tokens",
    meaning="Prompt tokens that the router expected in that KV cache when it chose the engine.",
)
COMPLETION_TOKENS = Counter(
    name="gateway_completion_tokens", meaning="Tokens of answers, counted by the engines."
)
SHADOWED = Counter(
    name="gateway_shadow_copies",
    labels=("name", "model", "outcome"),
    meaning=(
        "Copies of requests for `name` sent to the shadow `model`. `outcome`: `answered`, `skipped`"
        " (no room), or the code or status of the error."
    ),
)
IN_FLIGHT = Gauge(name="gateway_in_flight", meaning="Requests being answered by engines.")
QUEUED = Gauge(
    name="gateway_queued",
    labels=("model", "priority"),
    meaning="Requests waiting in a router until an engine has room.",
)
PROJECT_HELD = Gauge(
    name="gateway_project_held",
    labels=("model", "project"),
    meaning=(
        "Interactive requests of a project that wait in a router. `other`: all projects but those"
        " that the model has served most."
    ),
)
PROJECT_SERVED = Gauge(
    name="gateway_project_served_seconds",
    labels=("model", "project"),
    meaning=(
        "Seconds of the engines' time, for what was not cached, that requests of a project have"
        " taken through all routers, as each router sees it since its start. Shared out by weight"
        " while several projects wait. `other`: as above."
    ),
)
AWAITING_START = Gauge(
    name="gateway_awaiting_start", meaning="Requests waiting for an engine to start."
)
REPLICAS = Gauge(
    name="gateway_replicas",
    labels=("model", "state"),
    meaning=(
        "Replicas by `state`: `ready`, `draining`, `ejected` (failed too often), `backoff` (could"
        " not be reached just now), `not_responding` (hangs), `no_telemetry` (in use without"
        " telemetry)."
    ),
)
PREFILL = Gauge(
    name="gateway_learned_prefill_seconds_per_token",
    meaning="Learned time to compute an uncached prompt token.",
)
STEP = Gauge(name="gateway_learned_step_seconds", meaning="Learned time of a decode step.")
SEQUENCE = Gauge(
    name="gateway_learned_step_seconds_per_sequence",
    meaning="Learned time that one more sequence adds to a decode step.",
)
TOKENS_PER_BYTE = Gauge(
    name="gateway_learned_tokens_per_byte", meaning="Learned number of tokens per byte of prompt."
)
OUTPUT_TOKENS = Gauge(
    name="gateway_learned_output_tokens", meaning="Learned mean length of an answer, in tokens."
)
BODY_BYTES = Gauge(
    name="gateway_body_bytes",
    labels=(),
    meaning="Bytes that a router holds, or has promised, for the bodies of requests under way.",
)
BODY_LIMIT_BYTES = Gauge(
    name="gateway_body_limit_bytes",
    labels=(),
    meaning=(
        "Bytes that it may hold, `max_bodies_mb`. Above half of it, large bodies wait, and may get"
        " 429 `body_budget_exceeded`."
    ),
)
LIMIT = Gauge(
    name="gateway_limit",
    labels=("project", "model", "key", "limit"),
    meaning=(
        "Limits of projects. `model`, `key`: what the limit is for, `-` for all. `limit`:"
        " `requests` and `tokens` a minute, `concurrent` requests, `batch_tokens` a day,"
        " `spend_day` and `spend_month` in the currency's unit."
    ),
)
LIMIT_USED = Gauge(
    name="gateway_limit_used",
    labels=("project", "model", "key", "limit"),
    meaning=(
        "How much of the limit is used, at all routers together, as each router sees it; requests"
        " under way count with what they are expected to take."
    ),
)
LIMIT_EXCESS = Counter(
    name="gateway_limit_excess",
    labels=("project", "model", "key", "limit"),
    meaning=(
        "Requests and tokens that were admitted above a limit: because other routers admitted some"
        " at the same time, or because answers were longer than expected. Every router counts all"
        " of it: take the maximum of the routers, not their sum."
    ),
)
SPEND_ALERTS = Counter(
    name="gateway_spend_alerts",
    labels=("project", "interval"),
    meaning=(
        "Alerts of spend that a project has reached in a `day` or `month`. Every router counts each"
        " of them, and logs it."
    ),
)
HAPROXY_CONNECTIONS = Gauge(
    name="gateway_haproxy_connections",
    labels=("node",),
    meaning="Connections of clients that HAProxy has open on a node.",
)
HAPROXY_CONNECTION_LIMIT = Gauge(
    name="gateway_haproxy_connection_limit",
    labels=("node",),
    meaning=(
        "Connections that HAProxy accepts on a node. Near it, new ones get 503"
        " `too_many_connections`."
    ),
)
HAPROXY_CUT = Counter(
    name="gateway_haproxy_cut",
    labels=("node", "state"),
    meaning=(
        "Requests that HAProxy saw end badly, by the first two letters of its termination state:"
        " `SD`, `SH` (the router ended during, or before, its answer), `SC` (no router took the"
        " connection), `CD`, `CH`, `CR` (the client left), `cD`, `cR`, `sD`, `sH` (the client or"
        " the router was silent for too long), `PR` (refused by HAProxy). `restart`: HAProxy itself"
        " was killed, with all its connections."
    ),
)
ACCOUNTS_ROWS = Counter(
    name="gateway_accounts_rows",
    labels=("kind",),
    meaning=(
        "Rows that Accounts has written: `engine` (as an engine reported them), `estimated` (the"
        " engine died, and a router knows only what it relayed), `known` (they were there already,"
        " and nothing was written)."
    ),
)
ACCOUNTS_REJECTED = Counter(
    name="gateway_accounts_rejected",
    labels=(),
    meaning="Records that the database would not take, and that are lost; the log has them.",
)
ACCOUNTS_DROPPED = Counter(
    name="gateway_accounts_dropped",
    meaning=(
        "Usage records that engines dropped before Accounts could read them, because they keep only"
        " so many."
    ),
)
ACCOUNTS_KEPT = Gauge(
    name="gateway_accounts_kept",
    meaning="Usage records that engines keep because they are not in the ledger.",
)
ACCOUNTS_LAG = Gauge(
    name="gateway_accounts_lag_seconds",
    labels=(),
    meaning="Age of the oldest usage record that Accounts has read and not written.",
)
ACCOUNTS_UNWRITABLE = Gauge(
    name="gateway_accounts_unwritable_seconds",
    labels=(),
    meaning="For how long the database has taken nothing: gone, full or read-only; 0 if it does.",
)
SETTLEMENTS_KEPT = Gauge(
    name="gateway_settlements_kept",
    labels=(),
    meaning="Attempts that a router keeps until the ledger has them.",
)
SETTLEMENTS_DROPPED = Counter(
    name="gateway_settlements_dropped",
    labels=(),
    meaning="Attempts that a router gave up to settle, because there were too many.",
)

BATCHES = Gauge(
    name="gateway_batches",
    labels=("status",),
    meaning="Batches that have not ended, by their status.",
)
BATCH_LINES = Gauge(
    name="gateway_batch_lines",
    labels=("state",),
    meaning="Requests of these batches: `done`, `under_way` at an engine or in a queue, `waiting`.",
)
METRICS: tuple[Metric, ...] = (
    *(REQUESTS, AUTH_FAILURES, FAULTS, TTFT, INTER_TOKEN, E2E, QUEUE_WAIT, ROUTING, OVERHEAD),
    *(PROMPT_TOKENS, CACHED_TOKENS, PREDICTED_CACHED_TOKENS, COMPLETION_TOKENS, SHADOWED),
    *(IN_FLIGHT, QUEUED, AWAITING_START, REPLICAS),
    *(PREFILL, STEP, SEQUENCE, TOKENS_PER_BYTE, OUTPUT_TOKENS),
    *(PROJECT_HELD, PROJECT_SERVED),
    *(BODY_BYTES, BODY_LIMIT_BYTES),
    *(LIMIT, LIMIT_USED, LIMIT_EXCESS, SPEND_ALERTS),
    *(HAPROXY_CONNECTIONS, HAPROXY_CONNECTION_LIMIT, HAPROXY_CUT),
    *(ACCOUNTS_ROWS, ACCOUNTS_REJECTED, ACCOUNTS_DROPPED, ACCOUNTS_KEPT, ACCOUNTS_LAG),
    ACCOUNTS_UNWRITABLE,
    *(SETTLEMENTS_KEPT, SETTLEMENTS_DROPPED),
    *(BATCHES, BATCH_LINES),
)
"""All metrics, in the order of the docs."""
