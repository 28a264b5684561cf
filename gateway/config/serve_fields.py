"""Fields of Serve's config that the gateway cannot honour, each with the reason.

Every field that Serve (2.60) knows is in one of the two tables below, and a test compares them with
the installed Ray: a new field is refused as unknown until somebody has decided about it. A refused
field may be written with a value that changes nothing, as `serve build` writes some of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.config.strict import ConfigPath, FieldError

ACCEPTED: Mapping[str, str] = {
    "file": "proxy_location http_options grpc_options controller_options logging_config"
    " applications",
    "http_options": "host port keep_alive_timeout_s",
    "grpc_options": "port request_timeout_s enable_reflection",
    "application": "name route_prefix import_path runtime_env deployments args logging_config",
    "router": "name num_replicas user_config autoscaling_config graceful_shutdown_wait_loop_s"
    " graceful_shutdown_timeout_s health_check_period_s health_check_timeout_s ray_actor_options"
    " max_replicas_per_node logging_config rolling_update_percentage max_surge_percent",
    "model": "name graceful_shutdown_wait_loop_s health_check_period_s health_check_timeout_s"
    " logging_config max_surge_percent",
    "ray_actor_options": "runtime_env num_cpus num_gpus memory resources accelerator_type"
    " label_selector fallback_strategy",
}
"""Fields that work as Serve documents them, by part of the file."""

MAX_KEEP_ALIVE_S = 120
"""Serve uses a stopped router's port again after 150 s, and no connection may lead there then."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused."""

    reason: str
    harmless: tuple[object, ...] = (None,)
    """Values that change nothing, and that Serve accepts."""

    def applies_to(self, value: object) -> bool:
        """Whether `value` asks for what the gateway cannot do."""
        return not any(type(value) is type(each) and value == each for each in self.harmless)


_OWN_LIMITS = (
    "the gateway limits requests itself, with a queue for each replica: set the model's `queue`"
)
_LIMITED_BY_GATEWAY = Refusal(_OWN_LIMITS, ())
_QUEUED_BY_GATEWAY = Refusal(_OWN_LIMITS, (-1,))
_SINGLE_PROCESS = "a router is a single process: set its `ray_actor_options`"
_NO_BUNDLES = Refusal(_SINGLE_PROCESS, ())
_ONE_PROCESS = Refusal(_SINGLE_PROCESS)
_NO_TLS = Refusal(
    "HAProxy listens without TLS, so clients would not be protected: put a load balancer with TLS"
    " in front"
)
_SET_PER_FILE = Refusal("has no effect here: set it in `http_options`", ())
_NO_ACTORS = Refusal("the gateway's deployments have no such actors", (None, []))

REFUSED: Mapping[str, Mapping[str, Refusal]] = {
    "file": {
        "tracing_config": Refusal(
            "would send all requests through Serve's own, slower path: set"
            " OTEL_EXPORTER_OTLP_ENDPOINT where Ray starts, and routers trace them",
            (None, {"enabled": False}),
        ),
        "target_capacity": Refusal(
            "would scale models and routers without the gateway's knowledge: change `replicas`,"
            " `autoscaling` and the Router's `num_replicas`",
            (None, 100, 100.0),
        ),
    },
    "http_options": {
        "root_path": Refusal(
            "is not supported: routers find their routes by the whole path. Let the proxy in front"
            " remove its prefix, and leave this empty",
            ("",),
        ),
        "request_timeout_s": Refusal(
            "would cut streams without an error, and send all requests through Serve's own, slower"
            " path: set the model's `timeout_s`"
        ),
        "ssl_keyfile": _NO_TLS,
        "ssl_certfile": _NO_TLS,
        "ssl_keyfile_password": _NO_TLS,
        "ssl_ca_certs": _NO_TLS,
    },
    "grpc_options": {
        "grpc_servicer_functions": Refusal("the gateway has no gRPC services", ([],)),
    },
    "application": {
        "host": _SET_PER_FILE,
        "port": _SET_PER_FILE,
        "autoscaling_policy": Refusal("models scale by the `autoscaling` of their entries"),
        "external_scaler_enabled": Refusal(
            "would turn off the autoscaling of models: change their `replicas` and deploy instead",
            (False,),
        ),
    },
    "router": {
        "max_ongoing_requests": _LIMITED_BY_GATEWAY,
        "max_queued_requests": _QUEUED_BY_GATEWAY,
        "backpressure_config": _LIMITED_BY_GATEWAY,
        "placement_group_bundles": _NO_BUNDLES,
        "placement_group_strategy": _NO_BUNDLES,
        "placement_group_bundle_label_selector": _NO_BUNDLES,
        "gang_scheduling_config": _ONE_PROCESS,
        "request_router_config": Refusal("HAProxy chooses the router of a request", ()),
        "deployment_actors": _NO_ACTORS,
    },
    "model": {
        "max_ongoing_requests": _LIMITED_BY_GATEWAY,
        "max_queued_requests": _QUEUED_BY_GATEWAY,
        "backpressure_config": _LIMITED_BY_GATEWAY,
        "deployment_actors": _NO_ACTORS,
        "rolling_update_percentage": Refusal(
            "has no effect on engines: set `max_surge_percent` (0 stops old engines first)",
            (),
        ),
    },
}
"""Fields that are refused, by part of the file; those that a model's entry sets are elsewhere."""


def known_fields(part: str) -> tuple[str, ...]:
    """All fields that Serve knows in one part of the file."""
    part = "router" if part == "deployment" else part  # the router's tables have all of them
    return (*ACCEPTED[part].split(), *REFUSED.get(part, ()))


def refused_fields(
    part: str, fields: Mapping[str, object], path: ConfigPath
) -> Iterator[FieldError]:
    """Fields in one part of the file that ask for what the gateway cannot do."""
    for name, refusal in REFUSED.get(part, {}).items():
        if name in fields and refusal.applies_to(fields[name]):
            yield FieldError((*path, name), refusal.reason)
    if part == "file" and fields.get("proxy_location") == "Disabled":
        yield FieldError((*path, "proxy_location"), "no client could reach the gateway")
    keep_alive_s = fields.get("keep_alive_timeout_s") if part == "http_options" else None
    if isinstance(keep_alive_s, int | float) and keep_alive_s > MAX_KEEP_ALIVE_S:
        message = f"must be at most {MAX_KEEP_ALIVE_S}: routers' ports are used again after 150 s"
        yield FieldError((*path, "keep_alive_timeout_s"), message)
    logging = fields.get("logging_config") if part == "router" else None
    if isinstance(logging, Mapping) and logging.get("enable_access_log", True) is not False:
        message = (
            "must have `enable_access_log: false`: a line for each request costs a quarter of a"
            " router's CPU time (RAY_SERVE_HAPROXY_LOG_TARGET has HAProxy write one instead)"
        )
        yield FieldError((*path, "logging_config"), message)
