"""Checks of the gateway config against the models of the same file."""

from collections.abc import Iterator, Mapping

from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion


def wrong_names(config: GatewayConfig, owners: Mapping[str, str]) -> Iterator[FieldError]:
    """Names in the gateway config that are taken by a model, or that lead to no model.

    `owners`: what has each name of a model or an adapter, such as `the model of applications[1]`.
    """
    for kind in ("aliases", "splits"):
        for name in getattr(config, kind):
            if name in owners:
                yield FieldError((kind, name), f"{format_value(name)} is already {owners[name]}")
    known = {**owners, **config.targets}
    for path, name in _references(config):
        if name not in known:
            unknown = f"no model, adapter, alias or split is named {format_value(name)}"
            yield FieldError(path, unknown + suggestion(name, known))


def lacks_fallback(config: GatewayConfig, entry: ModelEntry) -> bool:
    """Whether an entry with `when_cold: fallback` has no fallback under any of its names."""
    names = (entry.name, *(adapter.name for adapter in entry.adapters))
    return entry.when_cold == "fallback" and not any(map(config.has_fallback, names))


def _references(config: GatewayConfig) -> Iterator[tuple[ConfigPath, str]]:
    """Every name that must lead to a model, and its path."""
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
