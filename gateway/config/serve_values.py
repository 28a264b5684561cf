"""Values of Serve's own fields that can be known to be wrong before anything starts."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.config.secrets import shown
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion


class _Number(msgspec.Struct, frozen=True):
    """Range of a number."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    is_whole: bool = False
    words: tuple[str, ...] = ()
    """Words that may stand in its place."""

    def mistake(self, value: object) -> str:
        """Mistake in a value; empty if there is none."""
        if value in self.words:
            return ""
        kind = int if self.is_whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            noun = "a whole number" if self.is_whole else "a number"
            choice = "".join(f" or `{word}`" for word in self.words)
            return f"should be {noun}{choice}, found {format_value(value)}"
        if not self.minimum <= value <= self.maximum:
            return f"should be {self._range}, found {value}"
        return "" if value > self.above else f"should be greater than {self.above:g}, found {value}"

    @property
    def _range(self) -> str:
        if self.maximum == math.inf:
            return f"greater than or equal to {self.minimum:g}"
        return f"between {self.minimum:g} and {self.maximum:g}"


class _Text(msgspec.Struct, frozen=True):
    """Text that is not empty, or one of some words."""

    choices: tuple[str, ...] = ()

    def mistake(self, value: object) -> str:
        """Mistake in a value; empty if there is none."""
        if not isinstance(value, str):
            return f"should be text, found {format_value(value)}"
        if self.choices and value not in self.choices:
            return f"found {format_value(value)}{suggestion(value, self.choices)}"
        return "" if value.strip() else "must not be empty"


class _Mapping(msgspec.Struct, frozen=True):
    """A mapping, whatever is in it."""

    def mistake(self, value: object) -> str:
        """Mistake in a value; empty if there is none."""
        if isinstance(value, dict):
            return ""
        return f"should be a mapping, found {format_value(value)}"


_PORT = _Number(1, 65535, is_whole=True)
_AMOUNT = _Number(minimum=0)
_DURATION = _Number(above=0)
_COUNT = _Number(minimum=1, maximum=10_000, is_whole=True)
_RULES: Mapping[str, Mapping[str, _Number | _Text | _Mapping]] = {
    "file": {
        "proxy_location": _Text(("EveryNode", "HeadOnly", "Disabled")),
        "grpc_options": _Mapping(),
        "logging_config": _Mapping(),
        "target_capacity": _Number(0, 100),
    },
    "http_options": {
        "host": _Text(),
        "port": _PORT,
        "keep_alive_timeout_s": _DURATION,
        "request_timeout_s": _DURATION,
    },
    "grpc_options": {"port": _PORT},
    "application": {
        "name": _Text(),
        "import_path": _Text(),
        "runtime_env": _Mapping(),
        "args": _Mapping(),
        "logging_config": _Mapping(),
    },
    "deployment": {
        "num_replicas": _Number(1, 10_000, is_whole=True, words=("auto",)),
        "max_ongoing_requests": _Number(minimum=1, is_whole=True),
        "max_queued_requests": _Number(minimum=-1, is_whole=True),
        "graceful_shutdown_wait_loop_s": _AMOUNT,
        "graceful_shutdown_timeout_s": _AMOUNT,
        "health_check_period_s": _DURATION,
        "health_check_timeout_s": _DURATION,
        "max_replicas_per_node": _Number(1, 100, is_whole=True),
        "autoscaling_config": _Mapping(),
        "ray_actor_options": _Mapping(),
        "logging_config": _Mapping(),
    },
    "ray_actor_options": {
        "num_cpus": _AMOUNT,
        "num_gpus": _AMOUNT,
        "memory": _AMOUNT,
        "resources": _Mapping(),
        "accelerator_type": _Text(),
    },
    "autoscaling_config": {
        "min_replicas": _Number(0, 10_000, is_whole=True),
        "initial_replicas": _Number(0, 10_000, is_whole=True),
        "max_replicas": _COUNT,
        "target_ongoing_requests": _DURATION,
    },
}
NEEDED = {"application": ("name",)}
"""Fields that may not be null, by part of the file; null elsewhere is Serve's default."""
GRPC_PORT = 9000
"""Port of Serve's gRPC proxy, if it has any methods."""


def wrong_values(part: str, fields: Mapping[str, Any], path: ConfigPath) -> Iterator[FieldError]:
    """Wrong values of Serve's fields in one part of the file."""
    for name, rule in _RULES.get(part, {}).items():
        if name not in fields or (fields[name] is None and name not in NEEDED.get(part, ())):
            continue
        if message := rule.mistake(fields[name]):
            message = shown((name,), fields[name], message)
            yield FieldError((*path, name), message)


def wrong_scaling(deployment: Mapping[str, Any], path: ConfigPath) -> Iterator[FieldError]:
    """Mistakes in how many replicas a deployment has."""
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return
    scaling_path = (*path, "autoscaling_config")
    yield from wrong_values("autoscaling_config", scaling, scaling_path)
    if isinstance(deployment.get("num_replicas"), int):
        message = "cannot be combined with `num_replicas`: remove one of them"
        yield FieldError(scaling_path, message)
    least, most = scaling.get("min_replicas", 1), scaling.get("max_replicas", 1)
    if isinstance(least, int) and isinstance(most, int) and least > most:
        message = f"{least} is more than `max_replicas` {most}"
        yield FieldError((*scaling_path, "min_replicas"), message)


def port_conflicts(document: Mapping[str, Any]) -> Iterator[FieldError]:
    """The HTTP and the gRPC server on the same port."""
    http, grpc = document.get("http_options"), document.get("grpc_options")
    if not isinstance(grpc, dict) or not grpc.get("grpc_servicer_functions"):
        return
    http_port = http.get("port", 8000) if isinstance(http, dict) else 8000
    if grpc.get("port", GRPC_PORT) == http_port:
        message = f"{http_port} is also the port of `http_options`"
        yield FieldError(("grpc_options", "port"), message)
