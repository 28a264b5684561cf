"""How many lines of batches may be under way at a model: what is spare, and more near a deadline.

Method: of each replica, batches may use the slots and the KV cache that interactive requests leave,
less a reserve. What these feel most is prompts: theirs wait for all that is computed before. So
lines are started only while few prompt tokens are pending: a step's worth at a model that nobody
uses, and beside others only as many as take `BUSY_PREFILL_S`. A line whose prompt takes longer
comes so rarely that its time is `LARGE_SHARE` of all: it delays fewer requests than p99 counts.

A batch needs `left * line_s / time_left_s` lines under way to be done in time (Little's law). If
that is more than what is spare, it is guaranteed so many, up to a share of all slots: these lines
do not wait for interactive requests. Batches get what is spare in the order of their deadlines.

Cost: O(replicas + batches).
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

RESERVE = 1 / 4
"""Share of slots and KV cache that batches leave free."""
BUSY_SLOTS = 1 / 8
"""Share of slots that batches take beside others at most: each sequence makes steps longer."""
BUSY_PREFILL_S = 0.012
"""Seconds of prefill of batches that a replica may have before it beside others."""
LARGE_SHARE = 0.001
"""Share of the time that lines with longer prompts may take there: far less than one request in a
hundred meets one."""
DEFAULT_STEP_TOKENS = 2048
"""Prompt tokens of a step, if the engine does not say."""
DEFAULT_PREFILL_S = 0.0001
"""Seconds to compute a prompt token, before that is known."""
IN_USE_S = 10.0
"""How long a model counts as used after its last interactive request."""
DEADLINE_MARGIN = 0.8
"""Share of the time left that is counted on: last lines take longer, and results are written."""
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
    prefill_s: float = 0.0
    """Seconds to compute a prompt token; 0 if unknown."""
    is_sought: bool = False
    """Whether interactive requests wait in routers for it."""

    @property
    def others(self) -> int:
        """Sequences that are no lines of batches."""
        return max(0, self.sequences - self.ours)

    @property
    def is_used(self) -> bool:
        """Whether it has interactive requests, or some wait for it."""
        return self.is_sought or self.others > 0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch has to do, and in which time."""

    left: int
    """Lines that are not done, those under way included."""
    time_left_s: float
    line_s: float = 0.0
    """Seconds that a line takes; 0 if unknown."""


class DispatchWindow(msgspec.Struct, frozen=True):
    """How many lines of a batch may be under way, and which may start until the next window."""

    lines: int
    guaranteed: int = 0
    """How many of them need not wait for interactive requests."""
    tokens: float = math.inf
    """Prompt tokens to compute of the lines that start."""
    largest: float = math.inf
    """The same of one line; a larger one may start only after a rest."""
    rest_s: float = 0.0
    """Seconds of rest for each prompt token of a larger line."""


def spare_lines(replica: ReplicaRoom, line_tokens: float = 0.0, *, is_used: bool = False) -> int:
    """Lines of batches that a replica may have under way, those that it has included.

    `line_tokens`: of prompt and answer of a line, 0 if unknown. `is_used`: others use the model.
    """
    if replica.is_sought:
        return 0
    by_slots = math.floor((1 - RESERVE) * replica.slots) - replica.others
    if is_used:
        by_slots = min(by_slots, max(1, math.floor(BUSY_SLOTS * replica.slots)))
    return max(0, min(by_slots, _by_memory(replica, line_tokens)))


def spare_tokens(replica: ReplicaRoom, *, is_used: bool) -> float:
    """Prompt tokens of batches that a replica may get now."""
    return max(0.0, _most_tokens(replica, is_used=is_used) - replica.pending_tokens)


def _by_memory(replica: ReplicaRoom, line_tokens: float) -> int:
    if not replica.kv_tokens:
        return replica.slots
    free = replica.free_tokens - RESERVE * replica.kv_tokens
    return replica.ours + math.floor(free / max(1.0, line_tokens))


def _most_tokens(replica: ReplicaRoom, *, is_used: bool) -> float:
    step_tokens = replica.step_tokens or DEFAULT_STEP_TOKENS
    if not is_used:
        return step_tokens
    return min(step_tokens, BUSY_PREFILL_S / _prefill_s(replica))


def _prefill_s(replica: ReplicaRoom) -> float:
    return replica.prefill_s or DEFAULT_PREFILL_S


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
    line_tokens: float = 0.0,
    is_used: bool = False,
    turn: int = 0,
) -> list[DispatchWindow]:
    """Windows of the batches of one model, which come in the order of their deadlines.

    `turn`: grows with each call, so that each batch gets prompt tokens in its turn.
    """
    rooms = list(replicas)
    spare = sum(spare_lines(each, line_tokens, is_used=is_used) for each in rooms)
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
    return _with_prompts(windows, rooms, turn, is_used=is_used)


def _with_prompts(
    windows: list[DispatchWindow], rooms: Sequence[ReplicaRoom], turn: int, *, is_used: bool
) -> list[DispatchWindow]:
    """The same windows with what of prompts may start, where not all lines are guaranteed.

    Beside others, the tokens of this moment go to one batch whole: with a share of them, no batch
    could start a line.
    """
    sharing = [position for position, each in enumerate(windows) if each.lines > each.guaranteed]
    tokens = sum(spare_tokens(each, is_used=is_used) for each in rooms)
    largest, rest_s = math.inf, 0.0
    if is_used and rooms:
        largest = min(_most_tokens(each, is_used=True) for each in rooms)
        rest_s = max(map(_prefill_s, rooms)) / LARGE_SHARE / len(rooms) * len(sharing)
    found = list(windows)
    for number, position in enumerate(sharing):
        share = 1 / len(sharing) if not is_used else turn % len(sharing) == number
        found[position] = msgspec.structs.replace(
            windows[position], tokens=tokens * share, largest=largest, rest_s=rest_s
        )
    return found
