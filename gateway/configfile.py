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

import yaml
from pydantic import TypeAdapter, ValidationError

from gateway.errors import ConfigError
from gateway.problems import Place, Problem, nearest, path_of, problems, shown
from gateway.registry.gateway import GatewayConfig
from gateway.registry.model import ModelEntry

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
    root, document = _read_yaml(Path(path))
    reading = _Reading()
    reading.problems.extend(Problem(at, "appears twice") for at in _repeated_keys(root))
    reading.read(document)
    if reading.problems:
        lines = [
            f"{path}:{_line(root, problem.at)}: {_described(document, problem)}"
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


def parse_gateway(user_config: Mapping[str, object]) -> GatewayConfig:
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
        self.problems: list[Problem] = []
        self.models: list[ModelApplication] = []
        self.gateways: list[GatewayConfig] = []
        self._applications: dict[str, Place] = {}
        self._names: dict[str, Place] = {}
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
        elif not self.problems:
            self._wrong((), "`applications` is missing")

    def _read_application(self, document: object, at: Place) -> None:
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

    def _read_model(self, app: Mapping[str, Any], name: str, at: Place) -> None:
        if app.get("route_prefix", "/") is not None:
            self._wrong(
                (*at, "route_prefix"), "must be null: clients reach a model through the gateway"
            )
        for i, deployment in self._deployments(app, at, MODEL_DEPLOYMENTS):
            for field in sorted(deployment.keys() & set(DECIDED_BY_ENTRY.split())):
                self._wrong((*at, "deployments", i, field), "is decided by the entry in `args`")
        args = app.get("args", {})
        adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
        if entry := self._validated(adapter, args, (*at, "args")):
            self._unique(entry.name, self._names, "the model", (*at, "args", "name"))
            self.models.append(ModelApplication(name, entry))

    def _read_gateway(self, app: Mapping[str, Any], at: Place) -> None:
        if app.get("route_prefix", "/") != "/":
            self._wrong((*at, "route_prefix"), f'must be "/", found {shown(app["route_prefix"])}')
        if app.get("args"):
            self._wrong((*at, "args"), "must be empty: its settings are the Router's `user_config`")
        if self.gateways:
            self._wrong(at, "is a second gateway; there can be only one")
        config: Any = {}
        place = at
        for i, router in self._deployments(app, at, (ROUTER_DEPLOYMENT,)):
            config, place = router.get("user_config") or {}, (*at, "deployments", i, "user_config")
        if gateway := self._validated(TypeAdapter(GatewayConfig), config, place):
            self.gateways.append(gateway)

    def _deployments(
        self, app: Mapping[str, Any], at: Place, names: Sequence[str]
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

    def _validated(self, adapter: TypeAdapter[T], value: object, at: Place) -> T | None:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            self.problems.extend(Problem((*at, *p.at), p.text) for p in problems(error))
            return None

    def _unique(self, name: str, seen: dict[str, Place], noun: str, at: Place) -> None:
        first = seen.setdefault(name, at)
        if first != at:
            self._wrong(at, f"{shown(name)} is already {noun} of {path_of(first[:2])}")

    def _fields(self, value: object, kind: str, at: Place) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._wrong(at, f"should be a mapping, found {shown(value)}")
            return {}
        known = SERVE_FIELDS[kind].split()
        for key in value:
            if key not in known:
                self._wrong((*at, str(key)), f"unknown field{nearest(key, known)}")
        return value

    def _list(self, value: object, at: Place) -> list[object]:
        if isinstance(value, list):
            return value
        self._wrong(at, f"should be a list, found {shown(value)}")
        return []

    def _wrong(self, at: Place, text: str) -> None:
        self.problems.append(Problem(at, text))


def _intended(import_path: object) -> str:
    """Which of our builders an import path names or nearly names; empty for other people's."""
    ours = (MODEL_IMPORT, GATEWAY_IMPORT)
    return next(iter(difflib.get_close_matches(str(import_path), ours, n=1, cutoff=0.85)), "")


def _lines(label: str, error: ValidationError) -> str:
    return "\n".join(f"{label}: {path_of(p.at)}: {p.text}" for p in problems(error))


def _described(document: object, problem: Problem) -> str:
    """Place and text, with the name of the application that the place is in."""
    parts = [path_of(problem.at), problem.text]
    match problem.at, document:
        case ("applications", int(i), *inner), {"applications": apps}:
            match apps[i]:
                case {"name": name}:
                    parts[:1] = [f"applications[{i}] {shown(name)}", path_of(inner)]
    return ": ".join(filter(None, parts))


def _read_yaml(path: Path) -> tuple[yaml.Node | None, object]:
    """The file's nodes, which know their lines, and its content."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _repeated_keys(root: yaml.Node | None) -> Iterator[Place]:
    """Where a mapping has a key twice: YAML would drop the first without a word."""
    seen: set[int] = set()
    todo: list[tuple[Place, yaml.Node | None]] = [((), root)]
    while todo:
        place, node = todo.pop()
        if id(node) in seen:
            continue  # an alias
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend(((*place, i), child) for i, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value if key.value != "<<"]
            yield from ((*place, key) for key in sorted({k for k in keys if keys.count(k) > 1}))
            todo.extend(((*place, str(key.value)), child) for key, child in node.value)


def _line(root: yaml.Node | None, place: Place) -> int:
    """The line of a place, or of the nearest place above it that the file has."""
    node, line = root, 1
    for step in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == step]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line + 1
    return line
