"""Values of Serve's own fields that can be known to be wrong before anything starts.

Whatever Serve would refuse is refused here; a test compares the two for many values of each field.
Null is Serve's default only where a rule says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.references import MASK
from gateway.config.secrets import shown
from gateway.config.serve_rules import (
    AnyText,
    Either,
    ListOf,
    MappingOf,
    Number,
    OneOf,
    OrNull,
    Rule,
    Switch,
    Text,
)
from gateway.config.strict import ConfigPath, FieldError

DEFAULT_PORT = 8000
"""Serve's own."""
_PORT = Number(1, 65535, is_whole=True)
_AMOUNT = Number(minimum=0)
_RESOURCE = Number(minimum=0, finest=0.0001)
_DURATION = Number(above=0)
_COUNT = Number(0, 10_000, is_whole=True)
_POSITIVE_COUNT = Number(1, 10_000, is_whole=True)

_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_SELECTOR = Text(form=rf"!?(in)?\({_LABEL}(, ?{_LABEL})*\)|!?{_LABEL}", noun="a label")
_LABELS = MappingOf(
    key=Text(form=rf"([a-zA-Z0-9][a-zA-Z0-9.-]{{0,252}}/)?{_LABEL}", noun="a label"),
    item=_SELECTOR,
)
_VARIABLES = MappingOf(key=Text(), item=AnyText())
_PACKAGE = Text(
    form=r"(https?|s3|gs|azure|abfss|file|gcs)://\S+|local:///\S*",
    noun="an address such as `https://...` or `local:///path`",
)
_RUNTIME_ENV = MappingOf(
    fields={
        "env_vars": _VARIABLES,
        "working_dir": OrNull(_PACKAGE),
        "py_modules": ListOf(_PACKAGE),
    }
)
_RECORD_FIELDS = (
    "args asctime created exc_info exc_text filename funcName levelname levelno lineno message"
    " module msecs msg name pathname process processName relativeCreated stack_info thread"
    " threadName taskName"
)
_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET")
_LOGGING = MappingOf(
    fields={
        "encoding": Text(("TEXT", "JSON")),
        "log_level": Either(Text(_LEVELS), OneOf((0, 10, 20, 30, 40, 50))),
        "logs_dir": OrNull(Text()),
        "enable_access_log": Switch(),
        "additional_log_standard_attrs": ListOf(Text(tuple(_RECORD_FIELDS.split()))),
    },
    is_closed=True,
)
_AUTOSCALING = MappingOf(
    fields={
        "min_replicas": _COUNT,
        "initial_replicas": OrNull(_COUNT),
        "max_replicas": _POSITIVE_COUNT,
        "target_ongoing_requests": OrNull(_DURATION),
        "metrics_interval_s": _DURATION,
        "look_back_period_s": _DURATION,
        "smoothing_factor": _DURATION,
        "upscale_smoothing_factor": OrNull(_DURATION),
        "downscale_smoothing_factor": OrNull(_DURATION),
        "upscaling_factor": OrNull(_DURATION),
        "downscaling_factor": OrNull(_DURATION),
        "upscale_delay_s": _AMOUNT,
        "downscale_delay_s": _AMOUNT,
        "downscale_to_zero_delay_s": OrNull(_AMOUNT),
        "aggregation_function": Text(("mean", "max", "min")),
        "policy": MappingOf(
            fields={"policy_function": Text(), "policy_kwargs": MappingOf()}, is_closed=True
        ),
    },
    is_closed=True,
)
_DEPLOYMENT: Mapping[str, Rule] = {
    "user_config": OrNull(MappingOf()),
    "num_replicas": OrNull(Number(1, 10_000, is_whole=True, words=("auto",))),
    "autoscaling_config": OrNull(_AUTOSCALING),
    "graceful_shutdown_wait_loop_s": _AMOUNT,
    "graceful_shutdown_timeout_s": _AMOUNT,
    "health_check_period_s": _DURATION,
    "health_check_timeout_s": _DURATION,
    "max_replicas_per_node": Number(1, 100, is_whole=True),
    "ray_actor_options": MappingOf(),
    "logging_config": _LOGGING,
    "rolling_update_percentage": Number(maximum=1, above=0),
    "max_surge_percent": Number(0, 100, is_whole=True),
}
RULES: Mapping[str, Mapping[str, Rule]] = {
    "file": {
        "proxy_location": Text(("EveryNode", "HeadOnly", "Disabled")),
        "controller_options": OrNull(
            MappingOf(
                fields={
                    "runtime_env": OrNull(
                        MappingOf(fields={"env_vars": _VARIABLES}, is_closed=True)
                    )
                },
                is_closed=True,
            )
        ),
        "logging_config": OrNull(_LOGGING),
    },
    "http_options": {
        "host": Text(),
        "port": _PORT,
        "keep_alive_timeout_s": Number(minimum=1, is_whole=True),
    },
    "grpc_options": {
        "port": _PORT,
        "request_timeout_s": OrNull(_DURATION),
        "enable_reflection": Switch(),
    },
    "application": {
        "name": Text(),
        "route_prefix": OrNull(Text()),
        "import_path": Text(),
        "runtime_env": _RUNTIME_ENV,
        "args": MappingOf(),
        "logging_config": OrNull(_LOGGING),
    },
    "deployment": _DEPLOYMENT,
    "ray_actor_options": {
        "runtime_env": _RUNTIME_ENV,
        "num_cpus": OrNull(_RESOURCE),
        "num_gpus": OrNull(_RESOURCE),
        "memory": OrNull(_RESOURCE),
        "resources": MappingOf(
            key=Text(),
            item=_RESOURCE,
            refused={"CPU": "set `num_cpus` instead", "GPU": "set `num_gpus` instead"},
        ),
        "accelerator_type": OrNull(Text()),
        "label_selector": OrNull(_LABELS),
        "fallback_strategy": OrNull(
            ListOf(
                MappingOf(
                    fields={"label_selector": _LABELS},
                    is_closed=True,
                    needed=("label_selector",),
                )
            )
        ),
    },
}
"""What the values of accepted fields have to be, by part of the file."""
GRPC_PORT = 9000
"""Port of Serve's gRPC proxy, if it has any methods."""
AUTO_REPLICAS = 100
"""The most replicas that `num_replicas: auto` stands for."""


def wrong_values(part: str, fields: Mapping[str, Any], path: ConfigPath) -> Iterator[FieldError]:
    """Wrong values of Serve's fields in one part of the file."""
    for name, rule in RULES.get(part, {}).items():
        if name not in fields:
            continue
        for wrong in rule.mistakes(fields[name]):
            inner = (name, *wrong.path)
            expected, found, _ = wrong.message.partition(", found ")
            masked = f"{expected}{found}{MASK}" if found else MASK
            is_shown = shown(inner, wrong.value, "") != MASK
            yield FieldError((*path, *inner), wrong.message if is_shown else masked)


def most_replicas(deployment: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as the file has it
    """The most replicas that a deployment scales to, if it has an `autoscaling_config`."""
    default = AUTO_REPLICAS if deployment.get("num_replicas") == "auto" else 1
    return (deployment.get("autoscaling_config") or {}).get("max_replicas", default)


def wrong_scaling(deployment: Mapping[str, Any], path: ConfigPath) -> Iterator[FieldError]:
    """Numbers of replicas that contradict each other."""
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return
    scaling_path = (*path, "autoscaling_config")
    if isinstance(deployment.get("num_replicas"), int):
        message = "cannot be combined with `num_replicas`: remove one of them"
        yield FieldError(scaling_path, message)
    least, first, most = (
        scaling.get("min_replicas", 1),
        scaling.get("initial_replicas"),
        most_replicas(deployment),
    )
    for name, count in {"min_replicas": least, "initial_replicas": first}.items():
        if isinstance(count, int) and isinstance(most, int) and count > most:
            message = f"{count} is more than `max_replicas` {most}"
            yield FieldError((*scaling_path, name), message)
    if isinstance(first, int) and isinstance(least, int) and first < least:
        message = f"{first} is less than `min_replicas` {least}"
        yield FieldError((*scaling_path, "initial_replicas"), message)


def port_conflicts(document: Mapping[str, Any]) -> Iterator[FieldError]:
    """The HTTP and the gRPC server on the same port."""
    http, grpc = document.get("http_options"), document.get("grpc_options")
    if not isinstance(grpc, dict) or not grpc.get("grpc_servicer_functions"):
        return
    http_port = http.get("port", DEFAULT_PORT) if isinstance(http, dict) else DEFAULT_PORT
    if grpc.get("port", GRPC_PORT) == http_port:
        message = f"{http_port} is also the port of `http_options`"
        yield FieldError(("grpc_options", "port"), message)
