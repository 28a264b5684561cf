"""Goes over the document of a deployment file: what it says, and all mistakes in it."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.config.accounts import AccountsConfig
from gateway.config.auth import AUTH_IS_MISSING, HAS_NO_SOURCE
from gateway.config.config_errors import format_path, plain_errors
from gateway.config.cross_checks import lacks_fallback, wrong_names
from gateway.config.deployment_file import ModelApplication, RouterScale
from gateway.config.gateway import GatewayConfig
from gateway.config.loopback import ANY_HOST, is_loopback
from gateway.config.model import ModelEntry
from gateway.config.model_paths import source_roots, wrong_paths
from gateway.config.serve_fields import known_fields, refused_fields
from gateway.config.serve_values import DEFAULT_PORT, port_conflicts, wrong_scaling, wrong_values
from gateway.config.state import StateConfig
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion
from gateway.config.vllm import VllmEntry

MODEL_IMPORT = "deployments.app:model"
GATEWAY_IMPORT = "deployments.app:gateway"
ROUTER_DEPLOYMENT = "Router"
ACCOUNTS_ARGUMENT = "accounts"
STATE_ARGUMENT = "state"
KEEPERS = {
    "Accounts": ACCOUNTS_ARGUMENT,
    "State": STATE_ARGUMENT,
    "Batches": STATE_ARGUMENT,
}
"""Deployments with one replica that keep something, and the argument that each needs."""
KEEPER_FIELDS = frozenset({"name", "ray_actor_options", "logging_config"})
"""What may be set of them: above all, the node that has their database."""
MODEL_DEPLOYMENTS = ("Engine", "Model")
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


class DocumentReader:
    """Goes over a document once and collects its models, its gateways and its mistakes.

    `has_files`: the files that it names are on this machine, if they are anywhere.
    """

    def __init__(self, *, has_files: bool = True) -> None:
        self._roots = source_roots() if has_files else None
        self.errors: list[FieldError] = []
        self.models: list[ModelApplication] = []
        self.gateways: list[GatewayConfig] = []
        self.routers = RouterScale()
        self.accounts: AccountsConfig | None = None
        self.accounts_path: ConfigPath = ()
        self.state: StateConfig | None = None
        self._entries: list[tuple[ConfigPath, ModelEntry]] = []
        self._config_path: ConfigPath = ()
        self._host = ANY_HOST
        self.port = DEFAULT_PORT
        self._application_owners: _Owners = {}
        self._name_owners: _Owners = {}
        self._when_cold: list[tuple[ModelEntry, ConfigPath]] = []
        """Entries, with the path of their `when_cold`."""
        self._missing_imports = {MODEL_IMPORT, GATEWAY_IMPORT}

    def read(self, document: object) -> None:
        """Read the whole document."""
        top = self._fields(document, "file", ())
        if "http_options" in top:
            options = self._fields(top["http_options"], "http_options", ("http_options",))
            self._host = str(options.get("host", ANY_HOST))
            self.port = options.get("port", DEFAULT_PORT)
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

    @property
    def served(self) -> frozenset[str]:
        """Names of models."""
        return frozenset(entry.name for _, entry in self._entries)

    @property
    def declared(self) -> frozenset[str]:
        """Names of models and adapters."""
        return frozenset(self._name_owners)

    @property
    def names(self) -> frozenset[str]:
        """Names that clients may ask for: of models, adapters, aliases and splits."""
        targets = self.gateways[0].targets if self.gateways else {}
        return frozenset({*self._name_owners, *targets})

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
            if self._roots is not None:
                for inner, message in wrong_paths(entry, self._roots):
                    self._report((*path, "args", *inner), message)
            self._entries.append(((*path, "args"), entry))
            self.models.append(ModelApplication(name, entry))
            self._when_cold.append((entry, (*path, "args", "when_cold")))

    def _read_gateway(self, app: Mapping[str, Any], path: ConfigPath) -> None:
        if app.get("route_prefix", "/") != "/":
            message = f'must be "/", found {format_value(app["route_prefix"])}'
            self._report((*path, "route_prefix"), message)
        if args := app.get("args"):
            self._read_arguments(args, (*path, "args"))
        if self.gateways:
            self._report(path, "is a second gateway; there can be only one")
        config: Any = None
        config_path = path
        names = (ROUTER_DEPLOYMENT, *KEEPERS)
        for i, router in self._deployments(app, path, names):
            if router["name"] in KEEPERS:
                self._read_keeper(router, (*path, "deployments", i))
                continue
            config = router.get("user_config")
            if not self.errors:
                self.routers = RouterScale.of(router)
            config_path = (*path, "deployments", i, "user_config")
        config = {} if config is None else config
        if gateway := self._validate(TypeAdapter(GatewayConfig), config, config_path):
            self.gateways.append(gateway)
            self._config_path = self._config_path or config_path

    def _read_arguments(self, args: object, path: ConfigPath) -> None:
        """Read the `args` of the gateway's application: what is kept, and where."""
        if not isinstance(args, dict):
            self._report(path, f"should be a mapping, found {format_value(args)}")
            return
        for name in args.keys() - set(KEEPERS.values()):
            message = (
                "unknown field: only `accounts` and `state` are set here, and all else in"
                " `user_config`"
            )
            self._report((*path, str(name)), message)
        if ACCOUNTS_ARGUMENT in args:
            self._read_accounts(args[ACCOUNTS_ARGUMENT], (*path, ACCOUNTS_ARGUMENT))
        if STATE_ARGUMENT in args:
            self._read_state(args[STATE_ARGUMENT], (*path, STATE_ARGUMENT))

    def _read_accounts(self, argument: object, path: ConfigPath) -> None:
        if accounts := self._validate(TypeAdapter(AccountsConfig), argument, path):
            self.accounts, self.accounts_path = accounts, path
            if mistake := accounts.database_mistake:
                self._report((*path, "database"), mistake)

    def _read_state(self, argument: object, path: ConfigPath) -> None:
        if state := self._validate(TypeAdapter(StateConfig), argument, path):
            self.state = state
            if mistake := state.database_mistake:
                self._report((*path, "database"), mistake)
            if mistake := state.files_mistake:
                self._report((*path, "files"), mistake)

    def _read_keeper(self, deployment: Mapping[str, Any], path: ConfigPath) -> None:
        """Read what is set of a deployment that keeps something."""
        name = deployment["name"]
        argument = KEEPERS[name]
        is_there = {ACCOUNTS_ARGUMENT: self.accounts, STATE_ARGUMENT: self.state}[argument]
        if is_there is None and not self.errors:
            self._report((*path, "name"), f"needs `{argument}` in the application's `args`")
        for field in sorted(deployment.keys() - KEEPER_FIELDS):
            self._report((*path, field), f"cannot be set for {name}: remove it")

    def _cross_check(self, gateway: GatewayConfig) -> None:
        """Check the gateway config and the models against each other."""
        owners = {name: owner for name, (_, owner) in self._name_owners.items()}
        for inner, message in wrong_names(gateway, owners):
            self._report((*self._config_path, *inner), message)
        if message := self._auth_mistake(gateway):
            self._report((*self._config_path, "auth"), message)
        for entry, path in self._when_cold:
            if lacks_fallback(gateway, entry):
                name = format_value(entry.name)
                self._report(path, f"needs a chain for {name} in the gateway's `fallbacks`")

    def _auth_mistake(self, gateway: GatewayConfig) -> str:
        """What is wrong with how clients are authenticated, given the rest of the file."""
        if gateway.auth is None:
            is_unknown = any(path[:1] != ("applications",) for path, _ in self.errors)
            return "" if is_unknown or is_loopback(self._host) else AUTH_IS_MISSING
        has_source = self.accounts is not None or gateway.auth.has_projects
        return "" if has_source or not gateway.auth.is_required else HAS_NO_SOURCE

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
        known = known_fields(kind)
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
