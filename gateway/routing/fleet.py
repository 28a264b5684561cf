"""Fleet: all models and their replicas, as this router sees them."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.config.serving_options import ServingOptions
from gateway.errors.request import ModelNotFound
from gateway.errors.upstream import ModelUnavailable
from gateway.telemetry.facts import ReplicaMetadata
from gateway.telemetry.update import AdapterState

SETTLING_RETRY_S = 2.0
"""Retry-After while not all models are known yet."""
DEFAULT_START_S = 30.0
"""How long an engine's start is assumed to take before one has been observed."""

logger = logging.getLogger(__name__)


class ModelState(StrEnum):
    """State of a model, as `/v1/models` shows it."""

    READY = "ready"
    NOT_RESPONDING = "not_responding"
    """All its engines hang, and are about to be replaced."""
    STARTING = "starting"
    SCALED_TO_ZERO = "scaled_to_zero"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True, eq=False)
class Replica:
    """One running engine."""

    id: str
    metadata: ReplicaMetadata
    node_id: str = ""
    _adapters: AdapterState = field(default_factory=AdapterState)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its HTTP server."""
        return self.metadata.host, self.metadata.port

    @property
    def adapters(self) -> AdapterState:
        """State of its adapters, as it reported last."""
        return self._adapters

    def record_adapters(self, adapters: AdapterState) -> None:
        """Record the state of its adapters, as its telemetry reports it."""
        self._adapters = adapters


@dataclass(slots=True, eq=False)
class ServedModel:
    """One model: its state, its options and the replicas that run it."""

    name: str
    created_s: int
    deployed_s: float = 0.0
    """When its entry was deployed last, by the controller's clock."""
    options: ServingOptions = field(default_factory=ServingOptions)
    """How requests reach its replicas."""
    state: ModelState = ModelState.STARTING
    reason: str = "its engine is starting"
    start_s: float = DEFAULT_START_S
    """How long an engine's start takes, as its running replicas reported."""
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def condition(self) -> str:
        """State of a model without replicas, in words."""
        return self.state.value.replace("_", " ")

    @property
    def max_model_len(self) -> int | None:
        """Limit of prompt and answer together, in tokens; None while no engine runs."""
        return max((r.metadata.facts.max_model_len for r in self.replicas.values()), default=None)

    def check_available(self) -> None:
        """Make sure that the model has replicas.

        Raises:
            ModelUnavailable: it has none.
        """
        if not self.replicas:
            raise ModelUnavailable(
                f"The model `{self.name}` is {self.condition}: {self.reason}", self.start_s
            )

    def adapter_error(self, adapter: str) -> str:
        """Return why no replica can load an adapter; empty if one may."""
        reasons = [r.adapters.broken.get(adapter, "") for r in self.replicas.values()]
        return reasons[0] if reasons and all(reasons) else ""

    def replace_replicas(self, replicas: Iterable[Replica]) -> None:
        """Set the replicas; those already known stay the same objects."""
        known = self.replicas
        self.replicas = {r.id: known.get(r.id, r) for r in replicas}
        if self.replicas:
            self.state, self.reason = ModelState.READY, ""
            self.start_s = (
                max(r.metadata.start_s for r in self.replicas.values()) or DEFAULT_START_S
            )
        elif self.state is ModelState.READY:
            self.state, self.reason = ModelState.STARTING, "its last engine is gone"


class Fleet:
    """All models, by the names that clients use: the models' own and those of their adapters.

    A name belongs to a model before any adapter, and to the adapter of the first model that has it.
    """

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._adapters: dict[str, ServedModel] = {}
        self._clashes: set[tuple[str, str]] = set()
        """Models and their adapters whose name belongs to something else."""
        self._listeners: list[Callable[[], None]] = []
        self.is_settled = True
        """Whether all models are known; until then, an unknown name may still become known."""

    @property
    def models(self) -> Collection[ServedModel]:
        """All models, in the order they were found."""
        return self._models.values()

    @property
    def replica_ids(self) -> Collection[str]:
        """Ids of all replicas."""
        return {id_ for model in self._models.values() for id_ in model.replicas}

    @property
    def adapters(self) -> Mapping[str, ServedModel]:
        """Adapter name -> model that has the adapter."""
        return self._adapters

    def has(self, name: str) -> bool:
        """Whether a model or an adapter has that name."""
        return name in self._models or name in self._adapters

    def has_model(self, name: str) -> bool:
        """Whether a model, and not only an adapter, has that name."""
        return name in self._models

    def model(self, name: str) -> ServedModel:
        """Return the model that has that name, or an adapter of that name.

        Raises:
            ModelNotFound: there is none.
            ModelUnavailable: there is none so far, but not all models are known.
        """
        model = self._models.get(name) or self._adapters.get(name)
        if model is not None:
            return model
        if self.is_settled:
            raise ModelNotFound(name)
        raise ModelUnavailable("Models are still being deployed.", SETTLING_RETRY_S)

    def add(self, model: ServedModel) -> None:
        """Add a model, or replace the one with its name."""
        self._models[model.name] = model
        self._publish()

    def remove(self, model: ServedModel) -> None:
        """Remove a model, unless another has its name; requests in flight keep their `Replica`."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
            self._publish()

    def replace_replicas(self, model: ServedModel, replicas: Iterable[Replica]) -> None:
        """Set a model's replicas; the ones already known stay the same objects."""
        model.replace_replicas(replicas)
        self._publish()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every change of models or replicas."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def _publish(self) -> None:
        self._find_adapters()
        for listener in self._listeners:
            listener()

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
                "adapter %s of model %s is ignored: its name is taken; give it another name in"
                " the model's entry",
                name,
                model_name,
            )
        self._clashes = clashes
