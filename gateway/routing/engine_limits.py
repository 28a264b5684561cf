"""Limits up to which requests are sent to an engine, so that each starts without waiting long."""

import math
from typing import NamedTuple

from gateway.telemetry.facts import EngineFacts

ENGINE_QUEUE_SHARE = 1 / 16
"""Requests that may wait in an engine, as a share of its slots, so that no slot idles."""
BATCH_RESERVE = 1 / 4
"""Share of an engine's slots and KV cache that batch requests leave free."""
FAIRNESS_RESERVE = 1 / 32
"""Share of the same that tenants above their fair share leave free."""
LARGE_SHARE = 1 / 8
"""Slots that must be free for a request of many sequences, as a share of all. The engine has the
rest of them wait, and smaller requests pass them."""

LEAST_KEPT_FREE = 2
"""Slots that the further sequences of large requests leave free at least: one to their own first
sequence, and one to another request."""


class EngineLimits(NamedTuple):
    """Limits for one kind of request."""

    slots: int
    """Sequences in the engine, running and waiting."""
    waiting: int
    """Sequences waiting in the engine: with this many, no more are sent."""
    reserved_tokens: float
    """Tokens of the KV cache that stay free."""


def engine_limits(facts: EngineFacts, *, is_batch: bool, is_over_share: bool) -> EngineLimits:
    """Return the limits for batch requests, for tenants above their fair share, or for others.

    `is_over_share`: the tenant is above its fair share, and leaves something free for the others.
    """
    slots = facts.max_sequences
    if is_batch or is_over_share:
        reserve = BATCH_RESERVE if is_batch else FAIRNESS_RESERVE
        return EngineLimits(
            max(1, slots - math.ceil(reserve * slots)), 1, reserve * facts.kv_tokens
        )
    waiting = max(1, int(ENGINE_QUEUE_SHARE * slots))
    return EngineLimits(slots + waiting, waiting, 0.0)


def needed_slots(
    sequences: int, facts: EngineFacts, limits: EngineLimits, *, is_batch: bool
) -> int:
    """Return the slots that must be free for a request of so many sequences."""
    most = limits.slots if is_batch else math.ceil(LARGE_SHARE * facts.max_sequences)
    return min(sequences, facts.max_sequences, most)


def further_sequences(slots: int) -> int:
    """Return how many of an engine's slots sequences may take that are not their request's first.

    Together they would take all, and end at once: the next request would wait for a whole answer.
    """
    return max(1, slots - max(LEAST_KEPT_FREE, int(LARGE_SHARE * slots)))
