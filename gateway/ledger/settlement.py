"""What a router tells the ledger of an attempt that the engine's own record does not say."""

import msgspec

from gateway.telemetry.usage import UsageRecord


class Settlement(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One attempt that went wrong, or whose engine may never report it.

    The engine's own record, if there is one, says what the attempt took. The settlement says how
    much of that is charged: what the client has got of it.
    """

    id: int
    """Id in its `Dispatch`."""
    engine: str
    """Id of the replica."""
    is_wasted: bool = False
    """The client got nothing of it, and another attempt followed, or the gateway failed."""
    completion_tokens: int | None = None
    """Most tokens of the answer that are charged; None: all that the engine reports."""
    record: UsageRecord | None = None
    """The engine's record as this router has it from telemetry; or, with `is_estimated`, what the
    router knows itself."""
    is_estimated: bool = False
    """`record` is not the engine's: its `epoch` is 0, and its tokens are those relayed."""
    is_charged: bool = False
    """All of it is charged, although its engine was not let to end it: the client left, say."""
