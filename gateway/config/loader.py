"""Reads a deployment's YAML file and reports every mistake in it, one line each.

The file is Ray Serve's config: a list of applications. Those with the import path
`deployments.app:model` (its `args` are a model entry) and `deployments.app:gateway` (its Router's
`user_config` is the gateway config) are ours. Serve silently ignores unknown fields, so the names
of Serve's own fields are checked here as well, and the values that can be known to be wrong.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.config.accounts import AccountsConfig
from gateway.config.accounts_warnings import accounts_warnings
from gateway.config.config_errors import error_lines, format_path, one_line
from gateway.config.config_warnings import config_warnings
from gateway.config.deployment_file import DeploymentFile
from gateway.config.document_reader import AskEngine, DocumentReader
from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.projects_file import ProjectsFiles
from gateway.config.state import StateConfig
from gateway.config.strict import ConfigPath, FieldError, Strict, format_value
from gateway.config.yamlfile import YamlFile
from gateway.errors.startup import ConfigError

StrictT = TypeVar("StrictT", bound=Strict)


def load_config(
    path: str | Path, ask_engine: AskEngine | None = None, *, has_files: bool = True
) -> DeploymentFile:
    """Read and validate a deployment file.

    `ask_engine` says what vLLM itself finds wrong with entries, if nothing else is wrong.
    `has_files`: the weights that it names are on this machine, if they are anywhere.

    Raises:
        ConfigError: with one line for each mistake: file, line, path, and what is wrong.
    """
    file = YamlFile.read(Path(path))
    reader = DocumentReader(has_files=has_files)
    reader.errors.extend(file.mistakes)
    reader.read(file.content)
    if ask_engine and not reader.errors:
        reader.errors.extend(reader.engine_mistakes(ask_engine))
    if errors := list(_first_of_each(map(file.explained, reader.errors))):
        raise ConfigError("\n".join(_located_line(path, file, error) for error in errors))
    projects = ProjectsFiles(reader.gateways[0])
    found = (*config_warnings(file.content), *_accounts_warnings(reader, projects.ids))
    warnings = [_located_line(path, file, each) for each in found]
    return DeploymentFile(
        tuple(reader.models),
        reader.gateways[0],
        reader.routers,
        reader.accounts,
        reader.state,
        reader.port,
        (
            *warnings,
            *projects.warnings(reader.names, has_accounts=reader.accounts is not None),
        ),
    )


def _accounts_warnings(reader: DocumentReader, projects: Iterable[str]) -> Iterator[FieldError]:
    """Prices and weights of names that the file does not have."""
    if reader.accounts is None:
        return
    yield from accounts_warnings(
        reader.accounts,
        reader.accounts_path,
        reader.served,
        reader.declared,
        projects,
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
    return _validated(GatewayConfig, "gateway", user_config)


def parse_accounts(args: object) -> AccountsConfig:
    """Validate `accounts` in the `args` of the gateway's application.

    Raises:
        ConfigError: with one line for each mistake: path, and what is wrong.
    """
    return _validated(AccountsConfig, "accounts", args)


def parse_state(args: object) -> StateConfig:
    """Validate `state` in the `args` of the gateway's application.

    Raises:
        ConfigError: with one line for each mistake: path, and what is wrong.
    """
    return _validated(StateConfig, "state", args)


def _validated(kind: type[StrictT], label: str, value: object) -> StrictT:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError(error_lines(label, error)) from None


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


def _with_application(document: object, error: FieldError) -> str:
    """Path and message, with the name of the application that the path is in."""
    parts = [format_path(error.path), error.message]
    match error.path, document:
        case ("applications", int(i), *inner), {"applications": apps}:
            match apps[i]:
                case {"name": name}:
                    parts[:1] = [f"applications[{i}] {format_value(name)}", format_path(inner)]
    return one_line(parts)
