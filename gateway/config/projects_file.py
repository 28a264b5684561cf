"""Reads projects files, and reports every mistake in them with its file and line."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from gateway.config.config_errors import format_path, one_line, plain_errors
from gateway.config.gateway import GatewayConfig
from gateway.config.model_paths import source_roots
from gateway.config.projects import Projects, duplicates
from gateway.config.references import Reference
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion
from gateway.config.yamlfile import YamlFile
from gateway.errors.startup import ConfigError


def projects_path(path: str, roots: Sequence[Path] | None = None) -> Path:
    """Where a projects file is; a relative path may start from any of `roots`."""
    wanted = Path(path).expanduser()
    if wanted.is_absolute():
        return wanted
    places = [root / wanted for root in (source_roots() if roots is None else roots)]
    return next(filter(Path.exists, places), places[0])


def read_projects(paths: Iterable[Path]) -> tuple[Projects, ...]:
    """The content of projects files.

    Raises:
        ConfigError: with one line for each mistake: file, line, path, and what is wrong.
    """
    return tuple(projects for _, _, projects in _read(paths))


class ProjectsFiles:
    """Projects files of a gateway config, as far as they are on this machine: read once.

    Raises:
        ConfigError: one of them has mistakes.
    """

    def __init__(self, config: GatewayConfig) -> None:
        names = [] if config.auth is None else config.auth.projects
        paths = [projects_path(name) for name in names if not Reference.of(name)]
        self._config = config
        self._missing = [path for path in paths if not path.exists()]
        self._files = _read(path for path in paths if path not in self._missing)

    @property
    def ids(self) -> set[str]:
        """Ids that they give to projects."""
        return {each.id for _, _, projects in self._files for each in projects.projects if each.id}

    def warnings(self, known: Iterable[str], *, has_accounts: bool) -> Iterator[str]:
        """Lines for what may be wrong with them.

        `known`: names of models, adapters, aliases and splits. `has_accounts`: whether there is a
        database of accounts.

        Raises:
            ConfigError: a file needs the database.
        """
        for path in self._missing:
            yield f"{path}: there is no such file here; it must be where the router runs"
        all_names = frozenset(known)
        for path, file, projects in self._files:
            if not has_accounts and (errors := list(_need_accounts(projects))):
                raise ConfigError("\n".join(_line(path, file, error) for error in errors))
            unknown = _unknown_models(projects, all_names)
            for error in (*unknown, *_limited_names(projects, self._config)):
                yield _line(path, file, error)


def _read(paths: Iterable[Path]) -> list[tuple[Path, YamlFile, Projects]]:
    contents = [(path, YamlFile.read(path)) for path in paths]
    read = [(path, file, _projects(path, file)) for path, file in contents]
    lines = []
    for (number, *inner), message in duplicates([projects for _, _, projects in read]):
        path, file = contents[int(number)]
        lines.append(_line(path, file, FieldError(tuple(inner), message)))
    if lines:
        raise ConfigError("\n".join(lines))
    return read


def _limited_names(projects: Projects, config: GatewayConfig) -> Iterator[FieldError]:
    """Limits that no request counts against: those of names that lead to other models."""
    for i, project in enumerate(projects.projects):
        for j, limit in enumerate(project.rate_limits):
            if limit.model is not None and limit.model in config.targets:
                message = "is an alias or a split: limits are for the models that it leads to"
                yield FieldError(("projects", i, "rate_limits", j, "model"), message)


def _need_accounts(projects: Projects) -> Iterator[FieldError]:
    """Limits of a day or month: without a database, nobody knows what was used before a restart."""
    message = "needs a database: set `accounts` in the `args` of the gateway's application"
    for i, project in enumerate(projects.projects):
        if project.spend_limits:
            yield FieldError(("projects", i, "spend_limits"), message)
        for j, limit in enumerate(project.rate_limits):
            if limit.batch_tokens_per_day is not None:
                path = ("projects", i, "rate_limits", j, "batch_tokens_per_day")
                yield FieldError(path, message)


def _unknown_models(projects: Projects, known: frozenset[str]) -> Iterator[FieldError]:
    """Names that no model, adapter, alias or split has."""
    for path, name in _named_models(projects):
        if name not in known:
            unknown = f"no model, adapter, alias or split is named {format_value(name)}"
            yield FieldError(path, unknown + suggestion(name, known, shows_all=False))


def _named_models(projects: Projects) -> Iterator[tuple[ConfigPath, str]]:
    """Every name of a model, and its path."""
    for i, project in enumerate(projects.projects):
        at = ("projects", i)
        for j, name in enumerate(project.models or ()):
            yield (*at, "models", j), name
        for j, key in enumerate(project.keys):
            for k, name in enumerate(key.models or ()):
                yield (*at, "keys", j, "models", k), name
        for j, limit in enumerate(project.rate_limits):
            if limit.model is not None:
                yield (*at, "rate_limits", j, "model"), limit.model


def _projects(path: Path, file: YamlFile) -> Projects:
    errors = list(file.mistakes)
    projects = Projects()
    try:
        content = {} if file.content is None else file.content
        projects = Projects.model_validate(content)
    except ValidationError as error:
        errors += plain_errors(error, Projects)
    if errors:
        lines = (_line(path, file, file.explained(error)) for error in errors)
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return projects


def _line(path: Path, file: YamlFile, error: FieldError) -> str:
    text = one_line((format_path(error.path), error.message))
    return f"{path}:{file.line(error.path)}: {text}"
