"""Reads a deployment's YAML file and reports every mistake in it, one line each.

The file is Ray Serve's config: a list of applications. Those with the import path
`deployments.app:model` (its `args` are a model entry) and `deployments.app:gateway` (its Router's
`user_config` is the gateway config) are ours. Serve silently ignores unknown fields, so the names
of Serve's own fields are checked here as well, and the values that can be known to be wrong.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.config.config_errors import error_lines, format_path, one_line, plain_errors
from gateway.config.config_warnings import config_warnings
from gateway.config.cross_checks import lacks_fallback, wrong_names
from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.model_paths import source_roots, wrong_paths
from gateway.config.serve_fields import refused_fields
from gateway.config.serve_values import (
    most_replicas,
    port_conflicts,
    wrong_scaling,
    wrong_values,
)
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion
from gateway.config.vllm import VllmEntry
from gateway.config.yamlfile import YamlFile
from gateway.errors import ConfigError

MODEL_IMPORT = "deployments.app:model"
GATEWAY_IMPORT = "deployments.app:gateway"
ROUTER_DEPLOYMENT = "Router"
MODEL_DEPLOYMENTS = ("Engine", "Model")
ROUTER_CPUS = 0.2
"""Logical CPUs of a router, unless the file says otherwise."""
SERVE_CPUS = 1.0
"""What Serve makes of null."""

SERVE_FIELDS = {
    "file": "proxy_location http_options grpc_options controller_options logging_config"
    " tracing_config applications target_capacity",
    "http_options": "host port root_path request_timeout_s keep_alive_timeout_s ssl_keyfile"
    " ssl_certfile ssl_keyfile_password ssl_ca_certs",
    "grpc_options": "port grpc_servicer_functions request_timeout_s enable_reflection",
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
"""Fields that Serve knows, by part of the file; a test compares them with the installed Ray."""

SET_BY_ENTRY = (
    "num_replicas autoscaling_config user_config ray_actor_options placement_group_bundles"
    " placement_group_strategy placement_group_bundle_label_selector max_replicas_per_node"
    " graceful_shutdown_timeout_s request_router_config gang_scheduling_config"
)
"""Fields that a model's deployments must not set, because its entry sets them."""

T = TypeVar("T")
AskEngine = Callable[[Sequence[VllmEntry]], Sequence[FieldError | None]]
"""What vLLM itself finds wrong with each entry: the path in it, and the mistake."""
_Owners = dict[str, tuple[ConfigPath, str]]
"""Path of each name, and what it names."""


@dataclass(frozen=True, slots=True)
class ModelApplication:
    """Serve application of a model."""

    name: str
    entry: ModelEntry


@dataclass(frozen=True, slots=True)
class RouterScale:
    """How many routers there are, and the logical CPUs of each."""

    min_replicas: int = 1
    max_replicas: int = 1
    cpus: float = ROUTER_CPUS

    @classmethod
    def of(cls, router: Mapping[str, Any]) -> "RouterScale":
        """Scale of the Router deployment as a valid file has it."""
        options = router.get("ray_actor_options") or {}
        cpus = options.get("num_cpus", ROUTER_CPUS)
        cpus = SERVE_CPUS if cpus is None else cpus
        scaling = router.get("autoscaling_config") or {}
        if scaling or router.get("num_replicas") == "auto":
            return cls(scaling.get("min_replicas", 1), most_replicas(router), cpus)
        count = router.get("num_replicas") or 1
        return cls(count, count, cpus)


@dataclass(frozen=True, slots=True)
class DeploymentFile:
    """Validated content of a deployment file."""

    models: tuple[ModelApplication, ...]
    gateway: GatewayConfig
    routers: RouterScale = RouterScale()
    warnings: tuple[str, ...] = ()
    """What is not wrong in itself, but may fail or do harm: file, line, path, and what it is."""


def load_config(path: str | Path, ask_engine: AskEngine | None = None) -> DeploymentFile:
    """Read and validate a deployment file.

    `ask_engine` says what vLLM itself finds wrong with entries, if nothing else is wrong.

    Raises:
        ConfigError: with one line for each mistake: file, line, path, and what is wrong.
    """
    file = YamlFile.read(Path(path))
    reader = _DocumentReader()
    reader.errors.extend(file.mistakes)
    reader.read(file.content)
    if ask_engine and not reader.errors:
        reader.errors.extend(reader.engine_mistakes(ask_engine))
    if errors := list(_first_of_each(map(file.explained, reader.errors))):
        raise ConfigError("\n".join(_located_line(path, file, error) for error in errors))
    return DeploymentFile(
        tuple(reader.models),
        reader.gateways[0],
        reader.routers,
        tuple(_located_line(path, file, each) for each in config_warnings(file.content)),
    )


def parse_entry(args: Mapping[str, object]) -> ModelEntry:
    """Validate the model entry in an application's `args`.

    Raises:
        ConfigError: with one line for each mistake: model, path, and what is wrong.
    """
    adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
    try:
        return adapter.validate_python(args)
    except ValidationError as error:
        label = f"model {format_value(args['name'])}" if "name" in args else "model"
        raise ConfigError(error_lines(label, error)) from None


def parse_gateway(user_config: object) -> GatewayConfig:
    """Validate the gateway config in the Router's `user_config`.

    Raises:
        ConfigError: with one line for each mistake: path, and what is wrong.
    """
    try:
        return GatewayConfig.model_validate(user_config)
    except ValidationError as error:
        raise ConfigError(error_lines("gateway", error)) from None


class _DocumentReader:
    """Goes over a document once and collects its models, its gateways and its mistakes."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.models: list[ModelApplication] = []
        self.gateways: list[GatewayConfig] = []
        self.routers = RouterScale()
        self._entries: list[tuple[ConfigPath, ModelEntry]] = []
        self._config_path: ConfigPath = ()
        self._application_owners: _Owners = {}
        self._name_owners: _Owners = {}
        self._when_cold: list[tuple[ModelEntry, ConfigPath]] = []
        """Entries, with the path of their `when_cold`."""
        self._missing_imports = {MODEL_IMPORT, GATEWAY_IMPORT}

    def read(self, document: object) -> None:
        """Read the whole document."""
        top = self._fields(document, "file", ())
        if "http_options" in top:
            self._fields(top["http_options"], "http_options", ("http_options",))
        if "grpc_options" in top:
            self._fields(top["grpc_options"], "grpc_options", ("grpc_options",))
        self.errors.extend(port_conflicts(top))
        if "applications" in top:
            applications = self._list(top["applications"], ("applications",))
            for i, app in enumerate(applications):
                self._read_application(app, ("applications", i))
            for import_path in sorted(self._missing_imports):
                self._report(("applications",), f"no application has `import_path: {import_path}`")
            for gateway in self.gateways[:1]:
                self._cross_check(gateway)
        elif not self.errors:
            self._report((), "`applications` is missing")

    def engine_mistakes(self, ask_engine: AskEngine) -> Iterator[FieldError]:
        """What vLLM itself finds wrong with the entries."""
        entries = [(i, e) for i, e in self._entries if isinstance(e, VllmEntry)]
        answers = ask_engine([entry for _, entry in entries])
        for (path, entry), error in zip(entries, answers, strict=False):
            if error:
                known = error.path if error.path[-1:] and _has(entry, error.path) else ()
                yield FieldError((*path, *known), error.message)

    def _read_application(self, document: object, path: ConfigPath) -> None:
        app = self._fields(document, "application", path)
        if not app:
            return
        name = str(app.get("name", "default"))
        self._check_unique(name, self._application_owners, "the name", (*path, "name"))
        import_path = app.get("import_path")
        builder = _nearest_builder(import_path)
        self._missing_imports.discard(builder)
        if not import_path:
            self._missing_imports.clear()  # it may have been meant to be either
            self._report((*path, "import_path"), "is missing")
        elif import_path != builder != "":
            self._report((*path, "import_path"), f"unknown builder, did you mean `{builder}`?")
        elif builder == MODEL_IMPORT:
            self._read_model(app, name, path)
        elif builder == GATEWAY_IMPORT:
            self._read_gateway(app, path)

    def _read_model(self, app: Mapping[str, Any], name: str, path: ConfigPath) -> None:
        if app.get("route_prefix", "/") is not None:
            message = "must be null: clients reach a model through the gateway"
            self._report((*path, "route_prefix"), message)
        for i, deployment in self._deployments(app, path, MODEL_DEPLOYMENTS):
            for field in sorted(deployment.keys() & set(SET_BY_ENTRY.split())):
                message = "is set by the entry in `args`: remove it"
                self._report((*path, "deployments", i, field), message)
        args = app.get("args", {})
        for model_name, noun, inner in _declared_names(args):
            self._check_unique(model_name, self._name_owners, noun, (*path, "args", *inner))
        adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
        if entry := self._validate(adapter, args, (*path, "args")):
            for inner, message in wrong_paths(entry, source_roots()):
                self._report((*path, "args", *inner), message)
            self._entries.append(((*path, "args"), entry))
            self.models.append(ModelApplication(name, entry))
            self._when_cold.append((entry, (*path, "args", "when_cold")))

    def _read_gateway(self, app: Mapping[str, Any], path: ConfigPath) -> None:
        if app.get("route_prefix", "/") != "/":
            message = f'must be "/", found {format_value(app["route_prefix"])}'
            self._report((*path, "route_prefix"), message)
        if app.get("args"):
            message = "must be empty: move its settings to the Router's `user_config`"
            self._report((*path, "args"), message)
        if self.gateways:
            self._report(path, "is a second gateway; there can be only one")
        config: Any = None
        config_path = path
        for i, router in self._deployments(app, path, (ROUTER_DEPLOYMENT,)):
            config = router.get("user_config")
            if not self.errors:
                self.routers = RouterScale.of(router)
            config_path = (*path, "deployments", i, "user_config")
        config = {} if config is None else config
        if gateway := self._validate(TypeAdapter(GatewayConfig), config, config_path):
            self.gateways.append(gateway)
            self._config_path = self._config_path or config_path

    def _cross_check(self, gateway: GatewayConfig) -> None:
        """Check the gateway config and the models against each other."""
        owners = {name: owner for name, (_, owner) in self._name_owners.items()}
        for inner, message in wrong_names(gateway, owners):
            self._report((*self._config_path, *inner), message)
        for entry, path in self._when_cold:
            if lacks_fallback(gateway, entry):
                name = format_value(entry.name)
                self._report(path, f"needs a chain for {name} in the gateway's `fallbacks`")

    def _deployments(
        self, app: Mapping[str, Any], path: ConfigPath, names: Sequence[str]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        seen: list[object] = []
        documents = self._list(app.get("deployments", []), (*path, "deployments"))
        for i, document in enumerate(documents):
            deployment_path = (*path, "deployments", i)
            deployment = self._fields(document, "deployment", deployment_path)
            part = "router" if ROUTER_DEPLOYMENT in names else "model"
            self.errors.extend(refused_fields(part, deployment, deployment_path))
            if "ray_actor_options" in deployment:
                options = deployment["ray_actor_options"]
                self._fields(options, "ray_actor_options", (*deployment_path, "ray_actor_options"))
            self.errors.extend(wrong_scaling(deployment, deployment_path))
            name = deployment.get("name")
            if name in seen:
                self._report((*deployment_path, "name"), f"{format_value(name)} appears twice")
            elif name in names:
                seen.append(name)
                yield i, deployment
            else:
                message = f"found {format_value(name)}{suggestion(name, names)}"
                self._report((*deployment_path, "name"), message)

    def _validate(self, adapter: TypeAdapter[T], value: object, path: ConfigPath) -> T | None:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            self.errors.extend(FieldError((*path, *e.path), e.message) for e in plain_errors(error))
            return None

    def _check_unique(self, name: str, owners: _Owners, noun: str, path: ConfigPath) -> None:
        first, owner = owners.setdefault(name, (path, f"{noun} of {format_path(path[:2])}"))
        if first[:2] != path[:2]:  # an entry checks its own names itself
            self._report(path, f"{format_value(name)} is already {owner}")

    def _fields(self, value: object, kind: str, path: ConfigPath) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._report(path, f"should be a mapping, found {format_value(value)}")
            return {}
        known = SERVE_FIELDS[kind].split()
        for key in value:
            if key not in known:
                self._report((*path, str(key)), f"unknown field{suggestion(key, known)}")
        self.errors.extend(refused_fields(kind, value, path))
        self.errors.extend(wrong_values(kind, value, path))
        return value

    def _list(self, value: object, path: ConfigPath) -> list[object]:
        if isinstance(value, list):
            return value
        self._report(path, f"should be a list, found {format_value(value)}")
        return []

    def _report(self, path: ConfigPath, message: str) -> None:
        self.errors.append(FieldError(path, message))


def _has(entry: VllmEntry, path: ConfigPath) -> bool:
    """Whether the entry itself sets an argument, which vLLM might also have by default."""
    return path[0] != "engine_args" or path[1:2] == () or path[1] in entry.engine_args


def _first_of_each(errors: Iterable[FieldError]) -> Iterator[FieldError]:
    """The first error at each path: a value that is wrong in two ways is mended once."""
    seen: set[tuple[ConfigPath, str]] = set()
    written: set[ConfigPath] = set()
    for error in errors:
        if error in seen or (error.path in written and error.message.startswith("should be")):
            continue
        seen.add(error)
        written.add(error.path)
        yield error


def _located_line(path: str | Path, file: YamlFile, error: FieldError) -> str:
    return f"{path}:{file.line(error.path)}: {_with_application(file.content, error)}"


def _nearest_builder(import_path: object) -> str:
    """Our builder that an import path names, or nearly names; empty for any other application."""
    ours = (MODEL_IMPORT, GATEWAY_IMPORT)
    return next(iter(difflib.get_close_matches(str(import_path), ours, n=1, cutoff=0.85)), "")


def _declared_names(args: object) -> Iterator[tuple[str, str, ConfigPath]]:
    """Names that an entry declares, even an invalid one: the name, what it names, and its path."""
    match args:
        case {"name": str(name)}:
            yield name, "the model", ("name",)
    match args:
        case {"adapters": [*adapters]}:
            for i, adapter in enumerate(adapters):
                match adapter:
                    case {"name": str(name)}:
                        yield name, "an adapter", ("adapters", i, "name")


def _with_application(document: object, error: FieldError) -> str:
    """Path and message, with the name of the application that the path is in."""
    parts = [format_path(error.path), error.message]
    match error.path, document:
        case ("applications", int(i), *inner), {"applications": apps}:
            match apps[i]:
                case {"name": name}:
                    parts[:1] = [f"applications[{i}] {format_value(name)}", format_path(inner)]
    return one_line(parts)
