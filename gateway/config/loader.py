"""Reads a deployment's YAML file and says, in one line for each, everything that is wrong with it.

The file is Ray Serve's config: a list of applications, of which `deployments.app:model` (its `args`
are a model entry) and `deployments.app:gateway` (its Router's `user_config` is the gateway config)
are ours. Serve ignores a field it does not know, so that a misspelled one would do nothing: the
names of Serve's own fields are checked here too, their values are left to Serve.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.config.config_errors import (
    ConfigPath,
    ConfigProblem,
    nearest,
    one_line,
    path_of,
    problems,
    shown,
)
from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.name_checks import stray_names
from gateway.config.yamlfile import YamlFile
from gateway.errors import ConfigError

MODEL_IMPORT = "deployments.app:model"
GATEWAY_IMPORT = "deployments.app:gateway"
ROUTER_DEPLOYMENT = "Router"
MODEL_DEPLOYMENTS = ("Engine", "Model")

SERVE_FIELDS = {
    "file": "proxy_location http_options grpc_options controller_options logging_config"
    " tracing_config applications target_capacity",
    "http_options": "host port root_path request_timeout_s keep_alive_timeout_s ssl_keyfile"
    " ssl_certfile ssl_keyfile_password ssl_ca_certs",
    "application": "name route_prefix import_path runtime_env host port deployments"
    " autoscaling_policy args logging_config external_scaler_enabled",
    "deployment": "name num_replicas max_ongoing_requests max_queued_requests backpressure_config"
    " user_config autoscaling_config graceful_shutdown_wait_loop_s graceful_shutdown_timeout_s"
    " health_check_period_s health_check_timeout_s ray_actor_options placement_group_bundles"
    " placement_group_strategy placement_group_bundle_label_selector max_replicas_per_node"
    " logging_config request_router_config gang_scheduling_config deployment_actors"
    " rolling_update_percentage max_surge_percent",
    "ray_actor_options": "runtime_env num_cpus num_gpus memory resources accelerator_type"
    " label_selector fallback_strategy",
}
"""The fields Serve knows, by where they stand; a test compares them with the installed Ray's."""

DECIDED_BY_ENTRY = (
    "num_replicas autoscaling_config user_config ray_actor_options placement_group_bundles"
    " placement_group_strategy placement_group_bundle_label_selector max_replicas_per_node"
    " graceful_shutdown_timeout_s request_router_config gang_scheduling_config"
)
"""Fields of a model's deployments that would contradict its entry."""

T = TypeVar("T")
_Owners = dict[str, tuple[ConfigPath, str]]
"""Where each name is given, and what it is a name of."""


@dataclass(frozen=True, slots=True)
class ModelApplication:
    """A model's Serve application."""

    name: str
    entry: ModelEntry


@dataclass(frozen=True, slots=True)
class DeploymentFile:
    """What a file deploys, checked."""

    models: tuple[ModelApplication, ...]
    gateway: GatewayConfig


def load_config(path: str | Path) -> DeploymentFile:
    """Read and check a deployment's file.

    Raises:
        ConfigError: with one line for each problem: file, line, place, what is wrong.
    """
    file = YamlFile.read(Path(path))
    reading = _Reading()
    reading.problems.extend(ConfigProblem(at, "appears twice") for at in file.repeated_keys())
    reading.read(file.content)
    if reading.problems:
        lines = [
            f"{path}:{file.line(problem.at)}: {_described(file.content, problem)}"
            for problem in reading.problems
        ]
        raise ConfigError("\n".join(lines))
    return DeploymentFile(tuple(reading.models), reading.gateways[0])


def parse_entry(args: Mapping[str, object]) -> ModelEntry:
    """The model entry in an application's `args`.

    Raises:
        ConfigError: with one line for each problem: model, place, what is wrong.
    """
    adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
    try:
        return adapter.validate_python(args)
    except ValidationError as error:
        label = f"model {shown(args['name'])}" if "name" in args else "model"
        raise ConfigError(_lines(label, error)) from None


def parse_gateway(user_config: object) -> GatewayConfig:
    """The gateway config in the Router's `user_config`.

    Raises:
        ConfigError: with one line for each problem: place, what is wrong.
    """
    try:
        return GatewayConfig.model_validate(user_config)
    except ValidationError as error:
        raise ConfigError(_lines("gateway", error)) from None


class _Reading:
    """One pass over a document, gathering what it deploys and what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[ConfigProblem] = []
        self.models: list[ModelApplication] = []
        self.gateways: list[GatewayConfig] = []
        self._config_at: ConfigPath = ()
        self._applications: _Owners = {}
        self._names: _Owners = {}
        self._cold: list[tuple[ModelEntry, ConfigPath]] = []
        self._missing = {MODEL_IMPORT, GATEWAY_IMPORT}

    def read(self, document: object) -> None:
        """Go over the whole document."""
        top = self._fields(document, "file", ())
        if "http_options" in top:
            self._fields(top["http_options"], "http_options", ("http_options",))
        if "applications" in top:
            applications = self._list(top["applications"], ("applications",))
            for i, app in enumerate(applications):
                self._read_application(app, ("applications", i))
            for import_path in sorted(self._missing):
                self._wrong(("applications",), f"none has `import_path: {import_path}`")
            for gateway in self.gateways[:1]:
                self._cross_check(gateway)
        elif not self.problems:
            self._wrong((), "`applications` is missing")

    def _read_application(self, document: object, at: ConfigPath) -> None:
        app = self._fields(document, "application", at)
        if not app:
            return
        name = str(app.get("name", "default"))
        self._unique(name, self._applications, "the name", (*at, "name"))
        import_path = app.get("import_path")
        intended = _intended(import_path)
        self._missing.discard(intended)
        if not import_path:
            self._missing.clear()  # it may have been meant as either
            self._wrong((*at, "import_path"), "is missing")
        elif import_path != intended != "":
            self._wrong((*at, "import_path"), f"no such builder, did you mean `{intended}`?")
        elif intended == MODEL_IMPORT:
            self._read_model(app, name, at)
        elif intended == GATEWAY_IMPORT:
            self._read_gateway(app, at)

    def _read_model(self, app: Mapping[str, Any], name: str, at: ConfigPath) -> None:
        if app.get("route_prefix", "/") is not None:
            self._wrong(
                (*at, "route_prefix"), "must be null: clients reach a model through the gateway"
            )
        for i, deployment in self._deployments(app, at, MODEL_DEPLOYMENTS):
            for field in sorted(deployment.keys() & set(DECIDED_BY_ENTRY.split())):
                self._wrong((*at, "deployments", i, field), "is decided by the entry in `args`")
        args = app.get("args", {})
        for taken, noun, inner in _named(args):
            self._unique(taken, self._names, noun, (*at, "args", *inner))
        adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
        if entry := self._validated(adapter, args, (*at, "args")):
            self.models.append(ModelApplication(name, entry))
            if entry.when_cold == "fallback":
                self._cold.append((entry, (*at, "args", "when_cold")))

    def _read_gateway(self, app: Mapping[str, Any], at: ConfigPath) -> None:
        if app.get("route_prefix", "/") != "/":
            self._wrong((*at, "route_prefix"), f'must be "/", found {shown(app["route_prefix"])}')
        if app.get("args"):
            self._wrong((*at, "args"), "must be empty: its settings are the Router's `user_config`")
        if self.gateways:
            self._wrong(at, "is a second gateway; there can be only one")
        config: Any = None
        place = at
        for i, router in self._deployments(app, at, (ROUTER_DEPLOYMENT,)):
            config, place = router.get("user_config"), (*at, "deployments", i, "user_config")
        config = {} if config is None else config
        if gateway := self._validated(TypeAdapter(GatewayConfig), config, place):
            self.gateways.append(gateway)
            self._config_at = self._config_at or place

    def _cross_check(self, gateway: GatewayConfig) -> None:
        """What is wrong with the gateway config and the models together."""
        owners = {name: owner for name, (_, owner) in self._names.items()}
        for inner, text in stray_names(gateway, owners):
            self._wrong((*self._config_at, *inner), text)
        for entry, at in self._cold:
            names = (entry.name, *(adapter.name for adapter in entry.adapters))
            if not any(gateway.has_fallback(name) for name in names):
                text = f"needs a chain for {shown(entry.name)} in the gateway's `fallbacks`"
                self._wrong(at, text)

    def _deployments(
        self, app: Mapping[str, Any], at: ConfigPath, names: Sequence[str]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for i, document in enumerate(self._list(app.get("deployments", []), (*at, "deployments"))):
            place = (*at, "deployments", i)
            deployment = self._fields(document, "deployment", place)
            if "ray_actor_options" in deployment:
                options = deployment["ray_actor_options"]
                self._fields(options, "ray_actor_options", (*place, "ray_actor_options"))
            name = deployment.get("name")
            if name in names:
                yield i, deployment
            else:
                self._wrong((*place, "name"), f"found {shown(name)}{nearest(name, names)}")

    def _validated(self, adapter: TypeAdapter[T], value: object, at: ConfigPath) -> T | None:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            self.problems.extend(ConfigProblem((*at, *p.at), p.text) for p in problems(error))
            return None

    def _unique(self, name: str, seen: _Owners, noun: str, at: ConfigPath) -> None:
        first, owner = seen.setdefault(name, (at, f"{noun} of {path_of(at[:2])}"))
        if first[:2] != at[:2]:  # an entry checks its own names itself
            self._wrong(at, f"{shown(name)} is already {owner}")

    def _fields(self, value: object, kind: str, at: ConfigPath) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._wrong(at, f"should be a mapping, found {shown(value)}")
            return {}
        known = SERVE_FIELDS[kind].split()
        for key in value:
            if key not in known:
                self._wrong((*at, str(key)), f"unknown field{nearest(key, known)}")
        return value

    def _list(self, value: object, at: ConfigPath) -> list[object]:
        if isinstance(value, list):
            return value
        self._wrong(at, f"should be a list, found {shown(value)}")
        return []

    def _wrong(self, at: ConfigPath, text: str) -> None:
        self.problems.append(ConfigProblem(at, text))


def _intended(import_path: object) -> str:
    """Which of our builders an import path names or nearly names; empty for other people's."""
    ours = (MODEL_IMPORT, GATEWAY_IMPORT)
    return next(iter(difflib.get_close_matches(str(import_path), ours, n=1, cutoff=0.85)), "")


def _named(args: object) -> Iterator[tuple[str, str, ConfigPath]]:
    """The names that an entry gives, also one that is refused, what they name, and where."""
    match args:
        case {"name": str(name)}:
            yield name, "the model", ("name",)
    match args:
        case {"adapters": [*adapters]}:
            for i, adapter in enumerate(adapters):
                match adapter:
                    case {"name": str(name)}:
                        yield name, "an adapter", ("adapters", i, "name")


def _lines(label: str, error: ValidationError) -> str:
    return "\n".join(one_line((label, path_of(p.at), p.text)) for p in problems(error))


def _described(document: object, problem: ConfigProblem) -> str:
    """Place and text, with the name of the application that the place is in."""
    parts = [path_of(problem.at), problem.text]
    match problem.at, document:
        case ("applications", int(i), *inner), {"applications": apps}:
            match apps[i]:
                case {"name": name}:
                    parts[:1] = [f"applications[{i}] {shown(name)}", path_of(inner)]
    return one_line(parts)
