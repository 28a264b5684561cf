"""Decides what of the attempts to answer one request is charged: its client pays once.

Method: the answer that a client has was made by a chain of attempts. Its last link is the attempt
that ended the answer, or that sent the last of it. An attempt that continued a text builds on the
one that had sent the beginning, which is charged for the tokens that were kept of it; so the
prompt, and each token of the answer, is charged once. An attempt that began anew (also one that
repeated what had been sent) stands alone. All other attempts are wasted.

Its router says so of each attempt that the ledger would charge otherwise. Of one that was cut short
and of which it says nothing, it was killed: the client, who got no end of the answer, pays nothing.
"""

from collections.abc import Sequence

import msgspec

from gateway.ledger.settlement import Settlement
from gateway.telemetry.dispatch import EarlierAttempt


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt went, as its router knows."""

    id: int
    """Id in its `Dispatch`."""
    engine: str
    """Id of the replica."""
    kept_tokens: int | None = None
    """Tokens of the answer that it continued, from the answer's beginning; None: it began anew."""
    has_delivered: bool = False
    """The client has got something through it that it did not have before."""
    delivered_tokens: int = 0
    """Tokens of the whole answer that the client had when it ended."""
    is_cut: bool = False
    """It ended before the answer, or its engine has said so."""


def settle(attempts: Sequence[AttemptEnd], *, is_complete: bool) -> list[Settlement]:
    """Settle the attempts of one request to one model, in their order.

    `is_complete`: the last one ended the answer, or the client left during it; it is charged as its
    engine reports. Attempts that are charged in full need no settlement, but for those that were
    cut short: without one, the ledger takes them for wasted.
    """
    limits: dict[int, int | None] = {}
    index, limit = _last_link(attempts, is_complete=is_complete)
    while index is not None:
        attempt = attempts[index]
        kept = attempt.kept_tokens
        limits[index] = None if limit is None else max(0, limit - (kept or 0))
        if kept is None:
            break
        limit = kept if limit is None else min(limit, kept)
        index = _delivered_before(attempts, index)
    return [
        Settlement(
            id=attempt.id,
            engine=attempt.engine,
            is_wasted=i not in limits,
            completion_tokens=limits.get(i),
            is_charged=i in limits and limits[i] is None,
        )
        for i, attempt in enumerate(attempts)
        if i not in limits or limits[i] is not None or attempt.is_cut
    ]


def earlier_attempts(attempts: Sequence[AttemptEnd]) -> tuple[EarlierAttempt, ...]:
    """What becomes of all but the last attempt if the last one ends the answer.

    The engine of the last one reports that along with it: so the ledger knows what the client had
    of the others although their router is killed before it can say so.
    """
    return tuple(
        EarlierAttempt(each.id, each.completion_tokens or 0, each.is_wasted)
        for each in settle(attempts, is_complete=True)
        if not each.is_charged
    )


def _last_link(
    attempts: Sequence[AttemptEnd], *, is_complete: bool
) -> tuple[int | None, int | None]:
    """The attempt that made the end of what the client has, and the tokens until there."""
    if is_complete and attempts:
        return len(attempts) - 1, None
    index = _delivered_before(attempts, len(attempts))
    return index, None if index is None else attempts[index].delivered_tokens


def _delivered_before(attempts: Sequence[AttemptEnd], index: int) -> int | None:
    """The last attempt before `index` that the client has got something through."""
    return next((i for i in reversed(range(index)) if attempts[i].has_delivered), None)
