"""Warnings about a deployment file: literal secrets, and references without a value here."""

import os
from collections.abc import Iterator, Mapping

from gateway.config.model_paths import source_roots
from gateway.config.references import Unresolved, references
from gateway.config.secrets import literal_secrets
from gateway.config.strict import ConfigPath, FieldError

_LITERAL = "is a secret in plain text, which Serve stores, shows and logs"


def config_warnings(
    document: object, environ: Mapping[str, str] = os.environ
) -> Iterator[FieldError]:
    """Warnings about the content of a file, each with its path."""
    for path in literal_secrets(document):
        advice = ": write `env:NAME` or `file:PATH` instead" if _is_ours(path) else ""
        yield FieldError(path, f"{_LITERAL}{advice}")
    for path, reference in references(document):
        if not _is_ours(path):
            continue
        try:
            reference.value(environ, source_roots())
        except Unresolved as error:
            yield FieldError(path, f"{error} here; it must be where the {_process(path)} runs")


def _is_ours(path: ConfigPath) -> bool:
    """Whether references are resolved at a path: in a model entry, or in the gateway config."""
    match path:
        case ("applications", int(), "args", *_):
            return True
        case ("applications", int(), "deployments", int(), "user_config", *_):
            return True
    return False


def _process(path: ConfigPath) -> str:
    return "engine" if "args" in path[:3] else "router"
