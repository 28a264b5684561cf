"""What Accounts tells routers: projects and keys, what is spent, and what the ledger has."""

import msgspec

from gateway.identity.project import Directory
from gateway.ledger.calendar import Interval
from gateway.ledger.price import Price


class Watermark(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How far the ledger has the records of one engine: all of `epoch` from `first` to `seq`."""

    engine: str
    """Id of the replica."""
    epoch: int
    seq: int
    first: int = 0
    """The engine may have dropped records before this one: whoever has them hands them over."""


class Spend(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a project, or one of its keys, has spent in the current period of UTC's calendar."""

    project: str
    key: str = ""
    """Id of the API key; empty: all of the project."""
    interval: Interval
    from_s: int
    """Beginning of the period, in Unix time."""
    nano: int


class MinuteUsage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one key of a project has had of a model in one minute, by when its requests ended."""

    minute_s: int
    """Beginning of the minute, in Unix time."""
    project: str
    key: str
    model: str
    """Model or adapter that answered."""
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What requests of the tier `flex` have taken of a model in this day, which is one of UTC."""

    project: str
    key: str
    model: str
    """Model or adapter that answered."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class AccountsView(msgspec.Struct, frozen=True, kw_only=True):
    """State of Accounts, as routers follow it."""

    version: str
    """Changes with everything below; opaque."""
    as_of_s: float
    """When it was read from the database, in Unix time."""
    directory: Directory | None = None
    """Projects and keys of the database; None: as in the view that is known already."""
    changes: int = 0
    """Number of changes of projects and keys that the directory includes."""
    watermarks: tuple[Watermark, ...] = ()
    spend: tuple[Spend, ...] = ()
    minutes: tuple[MinuteUsage, ...] = ()
    """The last two minutes and the current one: windows of a router that has just started."""
    prices: tuple[Price, ...] = ()
    """All versions, by model and date."""
    batch: tuple[BatchUsage, ...] = ()
    """Of all projects that had batch requests today."""
    database: int = 0
    """Id of the database; 0: it has none."""
