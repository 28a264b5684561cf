"""Accounts: the database of projects, keys and usage, and the prices. `args` of the gateway."""

import os
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.config.references import Reference, check_references
from gateway.config.strict import Strict, field_error

NANO = 1_000_000_000
EPOCH = "1970-01-01"
MOST = Decimal(1_000_000)
"""Highest price: a slip of the unit would be higher."""
SCHEMES = ("sqlite", "postgresql")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _amount(value: object) -> object:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return Decimal(str(value))
        except InvalidOperation:
            raise ValueError('must be a number such as "0.10"') from None
    return value


def _in_nano(amount: Decimal) -> Decimal:
    if not amount.is_finite() or not 0 <= amount <= MOST:
        raise ValueError(f"must be from 0 to {MOST}")
    if amount * NANO % 1:
        raise ValueError("must have at most 9 decimal places")
    return amount


Amount = Annotated[Decimal, BeforeValidator(_amount), AfterValidator(_in_nano)]
"""Amount of money, in units of the currency."""


def _quoted(value: object) -> object:
    if isinstance(value, date):  # Serve passes its config on as JSON, which has no dates
        raise ValueError(f'must be in quotes: "{value.isoformat()}"')  # noqa: TRY004 - pydantic's
    return value


def _is_day(text: str) -> str:
    if not _DAY.fullmatch(text):
        raise ValueError('must be a day such as "2027-01-31"')
    date.fromisoformat(text)
    return text


class ModelPrice(Strict):
    """Prices of one model or adapter from a date on."""

    from_: Annotated[str, BeforeValidator(_quoted), AfterValidator(_is_day)] = Field(
        default=EPOCH, alias="from"
    )
    """First day, in UTC, in quotes. Requests are charged by the price in force when they end."""
    input: Amount | None = None
    """Price of a million prompt tokens that were not cached."""
    cached_input: Amount | None = None
    """Price of a million cached prompt tokens. Default: that of `input`."""
    output: Amount | None = None
    """Price of a million tokens of answers."""
    gpu_hour: Amount | None = None
    """Price of one device for an hour: the base of costs by reservation. Without prices of tokens,
    requests are charged by it, too."""

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.input is None and self.output is None and self.gpu_hour is None:
            raise ValueError("needs at least one of `input`, `output` and `gpu_hour`")
        if self.cached_input is not None and self.input is None:
            raise field_error("has no meaning without `input`", "cached_input")
        return self

    @property
    def from_s(self) -> int:
        """From when on, in Unix time."""
        return int(datetime.fromisoformat(self.from_).replace(tzinfo=UTC).timestamp())


class Retention(Strict):
    """How long the ledger keeps what it has, in days. The audit log and spend alerts stay."""

    requests_days: int = Field(default=90, ge=1)
    """Rows of single requests."""
    minutes_days: int = Field(default=14, ge=1)
    """Sums by the minute."""
    hours_days: int = Field(default=400, ge=32)
    """Sums by the hour."""
    days_days: int = Field(default=3650, ge=62)
    """Sums by the day."""


class AccountsConfig(Strict):
    """Database of projects, API keys and usage, which one process, `Accounts`, writes."""

    database: str = Field(repr=False)
    """URL of the database: `sqlite:////var/lib/gateway/accounts.db` (four slashes before an
    absolute path, three before one that begins with `~/`; the folder must exist on every node that
    may run `Accounts`) or
    `postgresql://user:password@host/name`. A URL with a password must be written as `env:NAME` or
    `file:PATH`, which only `Accounts` reads."""
    currency: str = Field(default="usd", pattern=r"^[a-z]{3}$")
    """Currency of all prices, as a code of ISO 4217 in lower case."""
    prices: dict[str, list[ModelPrice]] = Field(default_factory=dict)
    """Prices by the name of a model or an adapter; several for one name, each from its own date. An
    adapter without prices costs what its model does."""
    idle_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Shares of projects, by their ids, in the cost of idle devices. Default: the projects that use
    a model in that hour share it by what they use."""
    retention: Retention = Retention()
    """How long rows and sums are kept."""

    @model_validator(mode="after")
    def _has_valid_references(self, info: ValidationInfo) -> Self:
        check_references({"database": self.database}, info)
        if not info.context:
            check_database_password(self.database)
        return self

    @field_validator("database")
    @classmethod
    def _is_url(cls, database: str) -> str:
        if not Reference.of(database):
            check_database(database)
        return database

    @property
    def database_mistake(self) -> str:
        """What keeps this machine from using the database; empty if nothing does."""
        return database_mistake(self.database)

    @field_validator("prices")
    @classmethod
    def _have_distinct_dates(
        cls, prices: dict[str, list[ModelPrice]]
    ) -> dict[str, list[ModelPrice]]:
        for model, versions in prices.items():
            if len({each.from_ for each in versions}) < len(versions):
                raise field_error("has two prices from the same date", model)
        return prices


def check_database(database: str) -> None:
    """Check the URL of a database, also one that a reference stands for.

    Raises:
        ValueError: it is none that we support; the message holds nothing of it.
    """
    scheme = database.partition(":")[0]
    if scheme not in SCHEMES or "://" not in database:
        raise ValueError("must begin with `sqlite:///` or `postgresql://`")
    if scheme == "sqlite":
        _check_sqlite(database)
    elif not urlsplit(database).path.strip("/"):
        raise ValueError("must name a database: postgresql://host/name")


def check_database_password(database: str) -> None:
    """Check that the URL of a database, in a field of that name, holds no password itself.

    Raises:
        PydanticCustomError: it does.
    """
    if not Reference.of(database):
        parts = urlsplit(database)
        if parts.password or "password=" in parts.query.lower():
            raise field_error("holds a password: write it as `env:NAME` or `file:PATH`", "database")


def database_mistake(database: str) -> str:
    """What keeps this machine from using a database; empty if nothing does, as far as known.

    The folder of an SQLite file may exist on other nodes only: it is a mistake only where there is
    something else in its place.
    """
    if database.startswith("postgresql:") and find_spec("psycopg") is None:
        return "PostgreSQL needs psycopg: pip install 'ray-llm-gateway[postgres]'"
    path = sqlite_path(database)
    if path is None:
        return ""
    if path.is_dir():
        return f"{path} is a folder: name a file in it"
    if path.parent.exists() and not path.parent.is_dir():
        return f"{path.parent} is not a folder"
    written = path if path.exists() else path.parent
    if written.exists() and not os.access(written, os.W_OK):
        return f"{written} cannot be written by this user"
    return ""


def sqlite_path(database: str) -> Path | None:
    """File of an SQLite database; None for another kind of database, or a reference."""
    prefix = "sqlite:///"
    if not database.startswith(prefix):
        return None
    path = Path(database.removeprefix(prefix))
    if path.parts[:1] == ("~",):
        with suppress(RuntimeError):  # this user has no home directory
            path = path.expanduser()
    return path


def _check_sqlite(database: str) -> None:
    path = sqlite_path(database)
    if path is None or not path.name or "?" in database:
        raise ValueError("must name a file: sqlite:////var/lib/gateway/accounts.db")
    if not path.is_absolute():
        raise ValueError(
            "must name an absolute path, with four slashes (sqlite:////var/lib/...), or one in the"
            " home directory, with three (sqlite:///~/...)"
        )
