"""Generated workloads, each with one kind of sharing: what a policy is good or bad at.

Lengths are log-normal, as in production; requests, or the conversations they belong to, begin at
random with exponential gaps. All is drawn from a seed of the workload's own: a name always gives
the same requests. Loads are such that eight replicas with the lab's default figures are busy, but
can keep up if prefixes are found again.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, Workload, trace_request

REQUESTS = 5000
TENANTS = 150
PREFIX_BLOCKS = 12
"""Of a tenant, or of everybody: 6k tokens."""
LONGEST_TOKENS = 120_000


@dataclass(slots=True)
class _Source:
    """Where times, lengths and fresh blocks come from."""

    rng: random.Random
    ids: Iterator[int] = field(default_factory=itertools.count)

    def times_s(self, per_s: float) -> Iterator[float]:
        """Times at which something begins, so many a second on average."""
        return itertools.accumulate(self.rng.expovariate(per_s) for _ in itertools.count())

    def tokens(self, median: float, sigma: float, most: int) -> int:
        """Log-normal: two in three within a factor `e ** sigma` of the median."""
        return max(1, min(round(median * self.rng.lognormvariate(0, sigma)), most))

    def blocks(self, count: int) -> list[int]:
        """Blocks that nobody has had before."""
        return list(itertools.islice(self.ids, count))

    def grown(self, ids: list[int], tokens: int) -> list[int]:
        """The blocks of a prompt of `tokens` that begins with the whole blocks `ids`."""
        return ids + self.blocks(-(-tokens // BLOCK_TOKENS) - len(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habit:
    """How a conversation goes on; lengths are (median, sigma, most)."""

    answer: tuple[float, float, int]
    addition: tuple[float, float, int]
    """What comes to the prompt with each turn, beside the last answer."""
    least_pause_s: float
    mean_pause_s: float

    def turns(
        self, source: _Source, start_s: float, ids: list[int], tokens: int
    ) -> Iterator[TraceRequest]:
        """Endless turns, each prompt beginning with the one before and its answer."""
        while True:
            ids = source.grown(ids, tokens)
            answer = source.tokens(*self.answer)
            yield trace_request(start_s, tokens, answer, ids)
            ids = ids[: tokens // BLOCK_TOKENS]
            tokens = min(tokens + answer + source.tokens(*self.addition), LONGEST_TOKENS)
            pause_s = self.mean_pause_s - self.least_pause_s
            start_s += self.least_pause_s + source.rng.expovariate(1 / pause_s)


TALK = _Habit(
    answer=(300, 0.8, 2000), addition=(1000, 1.3, 60_000), least_pause_s=10.0, mean_pause_s=70.0
)
TOOL_USE = _Habit(
    answer=(110, 0.6, 600), addition=(500, 0.8, 4000), least_pause_s=2.0, mean_pause_s=6.0
)

Session = Iterable[TraceRequest]


def _tenants(source: _Source) -> Iterator[Session]:
    """Each tenant has a prefix of its own; a few tenants send much, most send little."""
    prefixes = [source.blocks(PREFIX_BLOCKS) for _ in range(TENANTS)]
    weights = [1 / (10 + rank) for rank in range(TENANTS)]
    for time_s in source.times_s(16.0):
        prefix = source.rng.choices(prefixes, weights)[0]
        yield [_question(source, time_s, prefix, 260)]


def _hot(source: _Source) -> Iterator[Session]:
    """One prefix begins every prompt."""
    prefix = source.blocks(PREFIX_BLOCKS)
    for time_s in source.times_s(36.0):
        yield [_question(source, time_s, prefix, 150)]


def _question(
    source: _Source, time_s: float, prefix: list[int], answer_tokens: float
) -> TraceRequest:
    tokens = len(prefix) * BLOCK_TOKENS + source.tokens(400, 0.8, 4000)
    answer = source.tokens(answer_tokens, 0.7, 2000)
    return trace_request(time_s, tokens, answer, source.grown(prefix, tokens))


def _none(source: _Source) -> Iterator[Session]:
    """Nothing is shared."""
    for time_s in source.times_s(10.0):
        tokens = source.tokens(2500, 0.9, 30_000)
        answer = source.tokens(250, 0.7, 2000)
        yield [trace_request(time_s, tokens, answer, source.grown([], tokens))]


def _agents(source: _Source) -> Iterator[Session]:
    """Agents of four kinds call a tool, read its result and go on: short answers, 5 to 25 turns."""
    kinds = [source.blocks(2) for _ in range(4)]
    for start_s in source.times_s(0.65):
        kind = source.rng.choice(kinds)
        task = source.tokens(1500, 0.6, 8000)
        turns = TOOL_USE.turns(source, start_s, kind, len(kind) * BLOCK_TOKENS + task)
        yield itertools.islice(turns, source.rng.randint(5, 25))


def _conversation(source: _Source) -> Iterator[Session]:
    """People talk: long first prompts, two and a half turns on average, a minute between them."""
    system = source.blocks(1)
    for start_s in source.times_s(1.8):
        tokens = BLOCK_TOKENS + source.tokens(5500, 1.1, LONGEST_TOKENS - BLOCK_TOKENS)
        count = 1
        while source.rng.random() < 0.6:
            count += 1
        yield itertools.islice(TALK.turns(source, start_s, system, tokens), count)


GENERATORS: Mapping[str, Callable[[_Source], Iterator[Session]]] = {
    "tenants": _tenants,
    "hot": _hot,
    "none": _none,
    "agents": _agents,
    "conversation": _conversation,
}


def generated(name: str, count: int = REQUESTS) -> Workload:
    """The first `count` requests of one of `GENERATORS`."""
    source = _Source(random.Random(f"workload {name}"))  # noqa: S311 - keeps no secret
    return Workload(name, list(itertools.islice(_in_order(GENERATORS[name](source)), count)))


def _in_order(sessions: Iterator[Session]) -> Iterator[TraceRequest]:
    """The requests of endless sessions by arrival; sessions come by the times they begin."""
    coming: list[tuple[float, int, TraceRequest]] = []
    order = itertools.count()
    for session in sessions:
        turns = list(session)
        while coming and coming[0][0] <= turns[0].arrived_s:
            yield heapq.heappop(coming)[2]
        for turn in turns:
            heapq.heappush(coming, (turn.arrived_s, next(order), turn))
