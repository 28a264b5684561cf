"""Puts what references stand for into a config, inside the process that needs it."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from gateway.config.config_errors import error_lines, format_path, one_line
from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.model_paths import source_roots
from gateway.config.references import RESOLVED, Resolver
from gateway.config.strict import format_value
from gateway.errors.startup import ConfigError

T = TypeVar("T")


def resolve_entry(entry: ModelEntry, resolver: Resolver) -> ModelEntry:
    """The entry with what its references stand for; `resolver` can hide it in messages.

    Raises:
        ConfigError: a variable is not set, a file cannot be read, or a value does not fit.
    """
    label = f"model {format_value(entry.name)}"
    adapter: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
    return _resolved(entry, adapter, label, resolver)


def resolve_gateway(config: GatewayConfig, environ: Mapping[str, str]) -> GatewayConfig:
    """The gateway config with what its references stand for.

    Raises:
        ConfigError: a variable is not set, a file cannot be read, or a value does not fit.
    """
    resolver = Resolver(environ, source_roots())
    return _resolved(config, TypeAdapter(GatewayConfig), "gateway", resolver)


def _resolved(config: BaseModel, adapter: TypeAdapter[T], label: str, resolver: Resolver) -> T:
    content = resolver.resolved(config.model_dump(exclude_unset=True))
    if resolver.errors:
        lines = (one_line((label, format_path(e.path), e.message)) for e in resolver.errors)
        raise ConfigError("\n".join(lines))
    try:
        return adapter.validate_python(content, context=RESOLVED)
    except ValidationError as error:
        raise ConfigError(resolver.masked(error_lines(label, error))) from None
