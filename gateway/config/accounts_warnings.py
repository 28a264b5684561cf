"""Warnings about prices and weights of names that nothing has, and about models without a price."""

from collections.abc import Iterable, Iterator

from gateway.config.accounts import AccountsConfig
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion

ID_PREFIX = "proj_"
"""Beginning of the ids of projects, unless a projects file gives them another."""


def accounts_warnings(
    accounts: AccountsConfig,
    path: ConfigPath,
    models: Iterable[str],
    adapters: Iterable[str],
    project_ids: Iterable[str],
) -> Iterator[FieldError]:
    """What may be wrong with the prices and weights of a deployment file.

    `path`: of `accounts`. `project_ids`: those that projects files give.
    """
    served, ids = frozenset(models), frozenset(project_ids)
    known = served | frozenset(adapters)
    for name in accounts.prices:
        if name not in known:
            hint = suggestion(name, known, shows_all=False)
            message = f"no model or adapter is named {format_value(name)}{hint}"
            yield FieldError((*path, "prices", name), message)
    if accounts.prices:
        for name in sorted(served - accounts.prices.keys()):
            message = f"model {format_value(name)} has no price: its requests cost nothing"
            yield FieldError((*path, "prices"), message)
    for name in accounts.idle_weights:
        if name not in ids and not name.startswith(ID_PREFIX):
            message = f"is no id of a project, such as {ID_PREFIX}...; names do not count"
            yield FieldError((*path, "idle_weights", name), message)
