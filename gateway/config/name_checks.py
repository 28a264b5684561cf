"""Whether the names in a gateway config lead to models that there are."""

from collections.abc import Iterator, Mapping

from gateway.config.config_errors import nearest, shown
from gateway.config.gateway import GatewayConfig
from gateway.config.strict import Flaw


def stray_names(config: GatewayConfig, owners: Mapping[str, str]) -> Iterator[Flaw]:
    """What leads nowhere, and what has a name that is taken.

    `owners`: who has each name of a model or an adapter, such as `the model of applications[1]`.
    """
    for kind in ("aliases", "splits"):
        for name in getattr(config, kind):
            if name in owners:
                yield (kind, name), f"{shown(name)} is already {owners[name]}"
    known = {**owners, **config.targets}
    for at, name in _mentions(config):
        if name not in known:
            called = f"no model, adapter, alias or split is called {shown(name)}"
            yield at, called + nearest(name, known)


def _mentions(config: GatewayConfig) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every name that has to lead to a model, and where it stands."""
    for name, target in config.aliases.items():
        yield ("aliases", name), target
    for name, split in config.splits.items():
        for model in split.models:
            yield ("splits", name, "models", model), model
        if split.shadow:
            yield ("splits", name, "shadow", "model"), split.shadow.model
    for name, chain in config.fallbacks.items():
        yield ("fallbacks", name), name
        for i, each in enumerate(chain):
            yield ("fallbacks", name, i), each
