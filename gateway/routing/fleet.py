"""The fleet: this router's picture of all models and their replicas."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.config.serving_options import ServingOptions
from gateway.errors import ModelNotFound, ModelUnavailable
from gateway.telemetry import AdapterState, ReplicaMetadata

SETTLING_RETRY_S = 2.0
START_S = 30.0
"""What an engine's start is taken to last before one has been seen."""

logger = logging.getLogger(__name__)


class ModelState(StrEnum):
    """How a model stands, as `/v1/models` shows it."""

    READY = "ready"
    STARTING = "starting"
    SCALED_TO_ZERO = "scaled_to_zero"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True, eq=False)
class Replica:
    """One running engine."""

    id: str
    metadata: ReplicaMetadata
    node_id: str = ""
    shunned_until_s: float = 0.0
    """Time of day until which others are preferred, because it could not be reached."""
    adapters: AdapterState = field(default_factory=AdapterState)
    """How its adapters stand, as its telemetry told last."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its HTTP server."""
        return self.metadata.host, self.metadata.port


@dataclass(slots=True, eq=False, weakref_slot=True)
class ServedModel:
    """One model: how it stands and who runs it."""

    name: str
    created_s: int
    deployed_s: float = 0.0
    """When its entry was deployed last, by the controller's clock."""
    options: ServingOptions = field(default_factory=ServingOptions)
    """How requests reach its replicas."""
    state: ModelState = ModelState.STARTING
    reason: str = "its engine is starting"
    start_s: float = START_S
    """What an engine's start takes, as the last ones told."""
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def condition(self) -> str:
        """How a model without replicas stands, in words."""
        return self.state.value.replace("_", " ")

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer together; unknown while no engine runs."""
        return max((r.metadata.facts.max_model_len for r in self.replicas.values()), default=None)

    def check_available(self) -> None:
        """Make sure that it has replicas.

        Raises:
            ModelUnavailable: it has none now.
        """
        if not self.replicas:
            raise ModelUnavailable(
                f"The model `{self.name}` is {self.condition}: {self.reason}", self.start_s
            )

    def broken(self, adapter: str) -> str:
        """Why no replica can load an adapter; empty where one may."""
        reasons = [r.adapters.broken.get(adapter, "") for r in self.replicas.values()]
        return reasons[0] if reasons and all(reasons) else ""

    def replace_replicas(self, replicas: Iterable[Replica]) -> None:
        """Set the replicas; the ones already known stay the same objects."""
        known = self.replicas
        self.replicas = {r.id: known.get(r.id, r) for r in replicas}
        if self.replicas:
            self.state, self.reason = ModelState.READY, ""
            self.start_s = max(r.metadata.start_s for r in self.replicas.values()) or START_S
        elif self.state is ModelState.READY:
            self.state, self.reason = ModelState.STARTING, "its last engine is gone"


class Fleet:
    """All models, by the names clients use: their own, and their adapters'.

    Of several adapters of one name, the first model's counts; none where a model has that name.
    """

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._adapters: dict[str, ServedModel] = {}
        self._clashes: set[tuple[str, str]] = set()
        """Models and those of their adapters whose name is somebody else's."""
        self._watchers: list[Callable[[], None]] = []
        self.is_settled = True
        """Whether all models are known: while that is not so, an unknown name may yet be one."""

    @property
    def models(self) -> Collection[ServedModel]:
        """All models, in the order they were found."""
        return self._models.values()

    @property
    def adapters(self) -> Mapping[str, ServedModel]:
        """The models of all adapters, by the adapters' names."""
        return self._adapters

    @property
    def is_ready(self) -> bool:
        """Whether at least one model can answer."""
        return any(model.replicas for model in self._models.values())

    def has(self, name: str) -> bool:
        """Whether there is a model or an adapter of that name."""
        return name in self._models or name in self._adapters

    def has_model(self, name: str) -> bool:
        """Whether there is a model of that name."""
        return name in self._models

    def model(self, name: str) -> ServedModel:
        """The model of that name, or with an adapter of that name.

        Raises:
            ModelNotFound: there is none.
            ModelUnavailable: there is none yet, but not all models are known.
        """
        model = self._models.get(name) or self._adapters.get(name)
        if model is not None:
            return model
        if self.is_settled:
            raise ModelNotFound(name)
        raise ModelUnavailable("Models are still being deployed.", SETTLING_RETRY_S)

    def add(self, model: ServedModel) -> None:
        """Make a model known, or replace the one of its name."""
        self._models[model.name] = model
        self._tell()

    def remove(self, model: ServedModel) -> None:
        """Forget a model, unless its name is another's; requests in flight keep their `Replica`."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
            self._tell()

    def replace_replicas(self, model: ServedModel, replicas: Iterable[Replica]) -> None:
        """Set a model's replicas; the ones already known stay the same objects."""
        model.replace_replicas(replicas)
        self._tell()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called after every change of models or replicas."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.remove(watcher)

    def _tell(self) -> None:
        self._find_adapters()
        for watcher in self._watchers:
            watcher()

    def _find_adapters(self) -> None:
        self._adapters = {}
        clashes: set[tuple[str, str]] = set()
        for model in self._models.values():
            for adapter in model.options.adapters:
                name = adapter.name
                if name in self._models or self._adapters.setdefault(name, model) is not model:
                    clashes.add((model.name, name))
        for model_name, name in clashes - self._clashes:
            logger.warning(
                "the adapter %s of %s is left out: that name is taken already", name, model_name
            )
        self._clashes = clashes
