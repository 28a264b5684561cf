"""How many lines of batches may be under way at a model: what is spare, and more near a deadline.

Method: of each replica, batches may use what interactive requests leave, less a reserve, counted in
three ways of which the least holds: slots, KV cache, and prompts that are not computed yet. The last
one is what interactive requests feel most: a prompt waits for all that is computed before it. Lines
are so started only while less than `PREFILL_STEPS` steps of prompts are pending.

A batch needs `left * line_s / time_left_s` lines under way to be done in time (Little's law). If that
is more than what is spare, it is guaranteed so many, up to a share of all slots: these lines do not
wait for interactive requests. Batches get what is spare in the order of their deadlines.

Cost: O(replicas + batches).
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

RESERVE = 1 / 4
"""Share of slots and KV cache that batches leave free."""
PREFILL_STEPS = 1.0
"""Steps of an engine that the prompts before an interactive one may take on account of batches."""
DEFAULT_STEP_TOKENS = 2048
"""Prompt tokens of a step, if the engine does not say."""
DEADLINE_MARGIN = 0.8
"""Share of the time left that is counted on: the last lines take longer, and results are written."""

UNKNOWN_LINE_S = 30.0
"""Seconds that a line is thought to take before one has ended."""


class ReplicaRoom(msgspec.Struct, frozen=True, kw_only=True):
    """Room of one replica, by its telemetry."""

    slots: int
    """Sequences that it runs at the same time."""
    sequences: int
    """Sequences that it has, running and waiting, whoever's."""
    ours: int
    """Those that are lines of batches."""
    kv_tokens: int
    """Capacity of its KV cache; 0 if it has none."""
    free_tokens: int
    """Tokens of it that no running request uses."""
    pending_tokens: float
    """Prompt tokens that it has not computed yet."""
    step_tokens: int = 0
    """Prompt tokens that it computes in a step; 0 if unknown."""
    is_sought: bool = False
    """Whether interactive requests wait in routers for it."""


class LineCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a line of a batch takes, on average so far; 0 if unknown."""

    new_tokens: float = 0.0
    """Tokens of its prompt that are computed."""
    tokens: float = 0.0
    """Tokens of its prompt and its answer."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch has to do, and in which time."""

    left: int
    """Lines that are not done, those under way included."""
    time_left_s: float
    line_s: float = 0.0
    """Seconds that a line takes; 0 if unknown."""


class DispatchWindow(msgspec.Struct, frozen=True):
    """How many lines of a batch may be under way."""

    lines: int
    guaranteed: int = 0
    """How many of them need not wait for interactive requests."""


NO_COST = LineCost()


def spare_lines(replica: ReplicaRoom, cost: LineCost = NO_COST) -> int:
    """Lines of batches that a replica may have under way, those that it has included."""
    if replica.is_sought:
        return 0
    others = max(0, replica.sequences - replica.ours)
    by_slots = math.floor((1 - RESERVE) * replica.slots) - others
    return max(0, min(by_slots, _by_memory(replica, cost), _by_prefill(replica, cost)))


def _by_memory(replica: ReplicaRoom, cost: LineCost) -> int:
    if not replica.kv_tokens:
        return replica.slots
    free = replica.free_tokens - RESERVE * replica.kv_tokens
    return replica.ours + math.floor(free / max(1.0, cost.tokens))


def _by_prefill(replica: ReplicaRoom, cost: LineCost) -> int:
    step_tokens = replica.step_tokens or DEFAULT_STEP_TOKENS
    room = PREFILL_STEPS * step_tokens - replica.pending_tokens
    if room <= 0:
        return replica.ours
    return replica.ours + max(1, math.floor(room / max(1.0, cost.new_tokens)))


def needed_lines(pace: Pace) -> int:
    """Lines that a batch needs under way to be done in time; 0 if it may as well wait for now."""
    line_s = pace.line_s or UNKNOWN_LINE_S
    needed = pace.left * line_s / max(line_s, DEADLINE_MARGIN * pace.time_left_s)
    return 0 if needed < 1 else min(pace.left, math.ceil(needed))


def dispatch_windows(
    replicas: Iterable[ReplicaRoom],
    paces: Sequence[Pace],
    *,
    guaranteed_share: float,
    cost: LineCost = NO_COST,
) -> list[DispatchWindow]:
    """Windows of the batches of one model, which come in the order of their deadlines."""
    rooms = list(replicas)
    spare = sum(spare_lines(each, cost) for each in rooms)
    most = math.floor(guaranteed_share * sum(each.slots for each in rooms))
    if rooms and guaranteed_share:
        most = max(1, most)
    windows: list[DispatchWindow] = []
    for pace in paces:
        given = min(spare, pace.left)
        spare -= given
        needed = needed_lines(pace)
        guaranteed = min(most, needed) if needed > given else 0
        most -= guaranteed
        windows.append(DispatchWindow(max(given, guaranteed), guaranteed))
    return windows
