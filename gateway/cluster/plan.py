"""Plan of a deployment file: the models it runs, their resources, and the names clients may use."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.cluster.placement import plan_placement
from gateway.cluster.rollover import max_surge
from gateway.config.deployment_file import DeploymentFile, ModelApplication, RouterScale
from gateway.config.gateway import GatewayConfig
from gateway.config.hardware import Gpu
from gateway.config.model import ModelEntry
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model: its replica counts, and the resources of one replica."""

    model: str
    application: str
    engine: str
    source: str | None
    min_replicas: int
    max_replicas: int
    workers: int
    gpus: float
    cpus: float
    accelerator: str | None
    executor: str | None
    placement: str | None
    surge_replicas: int
    """Changed replicas that start beside the old ones after a change, if there is room."""

    @classmethod
    def of(cls, application: ModelApplication) -> "ModelPlan":
        """Plan a model's application."""
        entry = application.entry
        placement = plan_placement(entry)
        return cls(
            model=entry.name,
            application=application.name,
            engine=entry.engine,
            source=entry.source if isinstance(entry, VllmEntry) else None,
            min_replicas=entry.min_replicas,
            max_replicas=entry.max_replicas,
            workers=placement.workers,
            gpus=placement.gpus,
            cpus=placement.cpus,
            accelerator=_accelerator(entry),
            executor=placement.executor,
            placement=placement.strategy,
            surge_replicas=max_surge(entry.max_replicas),
        )


def _accelerator(entry: ModelEntry) -> str | None:
    """GPU type, `gpu` for any type, or `cpu`; None for an engine that uses neither."""
    if isinstance(entry.accelerator, Gpu):
        return entry.accelerator.type or "gpu"
    return None if isinstance(entry, SimEntry) else "cpu"


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """The routers: their replica counts, and the logical CPUs of one.

    Nothing else of the gateway reserves any: Serve's controller and proxies, HAProxy and the
    replicas that hold the entries of models ask Ray for none.
    """

    min_replicas: int
    max_replicas: int
    cpus: float
    surge_replicas: int
    """Changed routers that start beside the old ones."""

    @classmethod
    def of(cls, scale: RouterScale) -> "RouterPlan":
        """Plan the routers of a deployment file."""
        most = scale.max_replicas
        return cls(scale.min_replicas, most, scale.cpus, max_surge(most))


@dataclass(frozen=True, slots=True)
class NamePlan:
    """A name that leads to other models: an adapter, alias or split, or a model with fallbacks."""

    name: str
    kind: str
    """`model`, `adapter`, `alias` or `split`."""
    shares: dict[str, float]
    """Share of its requests by first destination: an adapter's base model, an alias's target, a
    split's models."""
    fallbacks: list[str]
    shadow: dict[str, float]
    """Share of its requests that is copied, by the model that gets the copies."""

    @classmethod
    def of_deployment(cls, deployment: DeploymentFile) -> "Iterator[NamePlan]":
        """Plan the names of a deployment file."""
        config = deployment.gateway
        for entry in (application.entry for application in deployment.models):
            if entry.name in config.fallbacks:
                yield cls._of(entry.name, "model", {}, config)
            for adapter in entry.adapters:
                yield cls._of(adapter.name, "adapter", {entry.name: 1.0}, config)
        for name, target in config.aliases.items():
            yield cls._of(name, "alias", {target: 1.0}, config)
        for name, split in config.splits.items():
            yield cls._of(name, "split", split.shares, config)

    @classmethod
    def _of(
        cls, name: str, kind: str, shares: dict[str, float], config: GatewayConfig
    ) -> "NamePlan":
        split = config.splits.get(name)
        shadow = split.shadow if split else None
        return cls(
            name=name,
            kind=kind,
            shares=shares,
            fallbacks=[*config.fallbacks.get(name, ())],
            shadow={shadow.model: shadow.fraction} if shadow else {},
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All models and names of a deployment file, and the resources of engines and routers."""

    models: list[ModelPlan]
    routers: RouterPlan
    names: list[NamePlan]
    min_gpus: float
    max_gpus: float
    min_cpus: float
    max_cpus: float
    surge_gpus: float
    surge_cpus: float

    @classmethod
    def of(cls, deployment: DeploymentFile) -> "Plan":
        """Plan a deployment file."""
        models = [ModelPlan.of(application) for application in deployment.models]
        routers = RouterPlan.of(deployment.routers)
        all_: list[ModelPlan | RouterPlan] = [*models, routers]
        return cls(
            models=models,
            routers=routers,
            names=list(NamePlan.of_deployment(deployment)),
            min_gpus=round(sum(m.min_replicas * m.gpus for m in models), 4),
            max_gpus=round(sum(m.max_replicas * m.gpus for m in models), 4),
            min_cpus=round(sum(m.min_replicas * m.cpus for m in all_), 4),
            max_cpus=round(sum(m.max_replicas * m.cpus for m in all_), 4),
            surge_gpus=round(sum(m.surge_replicas * m.gpus for m in models), 4),
            surge_cpus=round(sum(m.surge_replicas * m.cpus for m in all_), 4),
        )
