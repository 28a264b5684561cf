"""What requests of projects are expected to take of an engine, and what they took."""

import msgspec

from gateway.telemetry.dispatch import Origin

USAGE_PATH = "/engine/usage"
"""Route on which Accounts gets a `UsagePage`, in msgpack, and confirms earlier records:
`?epoch=E&confirmed=N` confirms all up to number N. The answer waits until there is a record."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A project's request at an engine, and what its router has set aside for it."""

    id: int
    """Id in its `Dispatch`."""
    project: str
    key: str = ""
    model: str = ""
    """Model or adapter that answers."""
    tokens: int = 0
    """Tokens that it is expected to count against limits of tokens."""
    cost_s: float = 0.0
    """Seconds of the engine's time that it is expected to take."""
    is_batch: bool = False
    is_counted: bool = False
    """As in its `Origin`: a request counts once against limits of requests."""
    is_copy: bool = False
    """Shadow traffic, which counts against no limit."""
    cost_nano: int = 0
    """Billionths of the currency's unit that it is expected to cost."""
    weight: float = 1.0
    """Weight in its `Origin`."""

    @classmethod
    def of(cls, id_: int, origin: Origin, model: str, *, is_batch: bool) -> "Reservation":
        """What the router has set aside for a request by its `Origin`; `model` answers it."""
        return cls(
            id=id_,
            project=origin.project,
            key=origin.key,
            model=model,
            tokens=origin.reserved_tokens,
            cost_s=origin.reserved_s,
            is_batch=is_batch,
            is_counted=origin.is_counted,
            is_copy=origin.is_copy,
            cost_nano=origin.reserved_nano,
            weight=origin.weight,
        )


class RecentUse(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Requests of one project and key that came to an engine within one second, and have ended."""

    project: str
    key: str
    model: str
    """Model or adapter that answered."""
    age_s: float
    """Seconds since the first of them came."""
    requests: int
    """Further attempts are not counted."""
    uncached_tokens: int
    """Prompt tokens that were computed, and tokens of answers."""
    cached_tokens: int
    """Prompt tokens found in the KV cache."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What one request with an `Origin` took of an engine, all its prompts and answers together.

    Written once, when the request has left the engine, however it ended. Unique by the engine's
    replica id, `epoch` and `seq`.
    """

    epoch: int
    """Identifies the engine's process: when it started, in Unix nanoseconds."""
    seq: int
    """Number of the record in this process, from 1, without gaps."""
    id: int
    """Id in its `Dispatch`."""
    origin: Origin
    model: str
    """Name of the engine's model."""
    adapter: str = ""
    arrived_s: float
    """When it reached the engine, in Unix time."""
    ended_s: float
    """When it left the engine, in Unix time."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    device_s: float = 0.0
    """Its share of the time of the replica's devices, summed over them."""
    is_aborted: bool = False
    """It ended before its last token."""


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Sums of all records that an engine process has written."""

    records: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class UsagePage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Oldest records of an engine that nobody has confirmed."""

    epoch: int
    records: list[UsageRecord]
    kept: int
    """Records that are not confirmed, these included."""
    dropped: int
    """Records that were dropped before they were confirmed, because there were too many."""
    totals: UsageTotals
