"""Opens the database that a part of the config names, and the storage that belongs to it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from gateway.config.accounts import AccountsConfig, check_database, sqlite_path
from gateway.config.model_paths import source_roots
from gateway.config.references import Resolver
from gateway.config.state import StateConfig, check_files, files_path
from gateway.config.strict import ConfigPath
from gateway.errors.startup import ConfigError
from gateway.store.database import Database, DatabaseUnavailable, parse_url
from gateway.store.file_storage import FileStorage
from gateway.store.project_state import ProjectState

MIN_DELAY_S = 0.2
MAX_DELAY_S = 5.0
OWNER_ONLY = 0o700
STATE = "state"

logger = logging.getLogger(__name__)


def resolved(text: str, path: ConfigPath, environ: Mapping[str, str]) -> str:
    """A text of the config, or what a reference there stands for; `path`: for messages.

    Raises:
        ConfigError: the reference stands for nothing.
    """
    resolver = Resolver(environ, source_roots())
    found = str(resolver.resolved(text, path))
    if resolver.errors:
        place = ".".join(map(str, path))
        raise ConfigError("\n".join(f"{place}: {e.message}" for e in resolver.errors))
    return found


def usable_url(url: str, part: str) -> str:
    """The URL of a database as it is opened; `part`: of the config, for messages.

    Raises:
        ConfigError: it is no URL of a database that we support; the message holds no secret.
    """
    try:
        check_database(url)
    except ValueError as error:
        raise ConfigError(f"{part}.database: {error}") from None
    path = sqlite_path(url)
    url = url if path is None else f"sqlite:///{path}"
    try:
        parse_url(url)
    except ConfigError as error:
        raise ConfigError(f"{part}.{error.message}") from None
    return url


async def open_when_reachable(
    url: str, part: str, on_waiting: Callable[[float], None] = lambda _: None
) -> Database:
    """Open a database, however long it cannot be reached; `on_waiting`: gets the time so far.

    Raises:
        ConfigError: a newer version of the gateway has made its tables.
    """
    delay_s, began_s = MIN_DELAY_S, time.monotonic()
    while True:
        try:
            return await Database.open(url)
        except ConfigError as error:
            raise ConfigError(f"{part}.{error.message}") from None
        except DatabaseUnavailable as error:
            logger.warning("%s: the database cannot be reached, trying again: %s", part, error)
        on_waiting(time.monotonic() - began_s)
        await asyncio.sleep(delay_s)
        delay_s = min(MAX_DELAY_S, 2 * delay_s)


def usable_state(
    config: StateConfig, accounts: AccountsConfig | None, environ: Mapping[str, str]
) -> StateConfig:
    """The config with the places that it leaves open, and what its references stand for.

    Raises:
        ConfigError: one of them cannot be used; the message holds no secret.
    """
    given = {
        name: resolved(text, (STATE, name), environ)
        for name, text in (("database", config.database), ("files", config.files))
        if text is not None
    }
    shared = (
        None if accounts is None else resolved(accounts.database, ("accounts", "database"), environ)
    )
    placed = config.model_copy(update=given).placed(shared, environ)
    try:
        check_files(str(placed.files))
    except ValueError as error:
        raise ConfigError(f"state.files: {error}") from None
    return placed.model_copy(update={"database": usable_url(str(placed.database), STATE)})


async def open_state(
    config: StateConfig, on_waiting: Callable[[float], None] = lambda _: None
) -> ProjectState:
    """Open what `usable_state` has placed, however long the database cannot be reached.

    Raises:
        ConfigError: a newer version of the gateway has made its tables, or a package is missing.
    """
    files = FileStorage(str(files_path(str(config.files)) or config.files))
    path = sqlite_path(str(config.database))
    if path is not None:
        path.parent.mkdir(OWNER_ONLY, parents=True, exist_ok=True)
    return ProjectState(
        await open_when_reachable(str(config.database), STATE, on_waiting), files, config
    )
