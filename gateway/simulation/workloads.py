"""Generates workloads, each with one kind of prefix sharing, to show what a policy is good at.

Lengths are log-normal, as in production. Requests, or the conversations they belong to, begin at
random with exponential gaps. Each workload has its own seed: a name always gives the same requests.
The load keeps eight replicas with the simulation's default settings busy; they keep up only if
prefixes are found in their caches.
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
"""Blocks of a shared prefix: 6k tokens."""
LONGEST_TOKENS = 120_000


@dataclass(slots=True)
class _Sampler:
    """Draws times, lengths and new blocks."""

    rng: random.Random
    block_ids: Iterator[int] = field(default_factory=itertools.count)

    def times_s(self, per_s: float) -> Iterator[float]:
        """Yield random times, `per_s` of them per second on average."""
        return itertools.accumulate(self.rng.expovariate(per_s) for _ in itertools.count())

    def tokens(self, median: float, sigma: float, max_tokens: int) -> int:
        """Draw a log-normal length: two in three are within a factor `e ** sigma` of the median."""
        return max(1, min(round(median * self.rng.lognormvariate(0, sigma)), max_tokens))

    def new_blocks(self, count: int) -> list[int]:
        """Return ids of blocks that no prompt has had before."""
        return list(itertools.islice(self.block_ids, count))

    def extended(self, ids: list[int], tokens: int) -> list[int]:
        """Return the blocks of a prompt of `tokens` that begins with the full blocks `ids`."""
        return ids + self.new_blocks(-(-tokens // BLOCK_TOKENS) - len(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationProfile:
    """Turns of a conversation; lengths are (median, sigma, maximum) in tokens."""

    answer: tuple[float, float, int]
    addition: tuple[float, float, int]
    """Tokens that each turn adds to the prompt, besides the last answer."""
    least_pause_s: float
    mean_pause_s: float

    def turns(
        self, sampler: _Sampler, start_s: float, ids: list[int], tokens: int
    ) -> Iterator[TraceRequest]:
        """Yield endless turns; each prompt begins with the one before and its answer."""
        while True:
            ids = sampler.extended(ids, tokens)
            answer = sampler.tokens(*self.answer)
            yield trace_request(start_s, tokens, answer, ids)
            ids = ids[: tokens // BLOCK_TOKENS]
            tokens = min(tokens + answer + sampler.tokens(*self.addition), LONGEST_TOKENS)
            pause_s = self.mean_pause_s - self.least_pause_s
            start_s += self.least_pause_s + sampler.rng.expovariate(1 / pause_s)


TALK = ConversationProfile(
    answer=(300, 0.8, 2000), addition=(1000, 1.3, 60_000), least_pause_s=10.0, mean_pause_s=70.0
)
TOOL_USE = ConversationProfile(
    answer=(110, 0.6, 600), addition=(500, 0.8, 4000), least_pause_s=2.0, mean_pause_s=6.0
)

Session = Iterable[TraceRequest]


def _tenants(sampler: _Sampler) -> Iterator[Session]:
    """Yield requests of tenants with a prefix each; a few tenants send most of them."""
    prefixes = [sampler.new_blocks(PREFIX_BLOCKS) for _ in range(TENANTS)]
    weights = [1 / (10 + rank) for rank in range(TENANTS)]
    for time_s in sampler.times_s(16.0):
        prefix = sampler.rng.choices(prefixes, weights)[0]
        yield [_single_turn(sampler, time_s, prefix, 260)]


def _hot(sampler: _Sampler) -> Iterator[Session]:
    """Yield requests that all begin with one prefix."""
    prefix = sampler.new_blocks(PREFIX_BLOCKS)
    for time_s in sampler.times_s(36.0):
        yield [_single_turn(sampler, time_s, prefix, 150)]


def _single_turn(
    sampler: _Sampler, time_s: float, prefix: list[int], answer_tokens: float
) -> TraceRequest:
    tokens = len(prefix) * BLOCK_TOKENS + sampler.tokens(400, 0.8, 4000)
    answer = sampler.tokens(answer_tokens, 0.7, 2000)
    return trace_request(time_s, tokens, answer, sampler.extended(prefix, tokens))


def _none(sampler: _Sampler) -> Iterator[Session]:
    """Yield requests that share nothing."""
    for time_s in sampler.times_s(10.0):
        tokens = sampler.tokens(2500, 0.9, 30_000)
        answer = sampler.tokens(250, 0.7, 2000)
        yield [trace_request(time_s, tokens, answer, sampler.extended([], tokens))]


def _agents(sampler: _Sampler) -> Iterator[Session]:
    """Yield agents of four kinds that call tools: short answers, 5 to 25 turns."""
    kinds = [sampler.new_blocks(2) for _ in range(4)]
    for start_s in sampler.times_s(0.65):
        kind = sampler.rng.choice(kinds)
        task = sampler.tokens(1500, 0.6, 8000)
        turns = TOOL_USE.turns(sampler, start_s, kind, len(kind) * BLOCK_TOKENS + task)
        yield itertools.islice(turns, sampler.rng.randint(5, 25))


def _conversation(sampler: _Sampler) -> Iterator[Session]:
    """Yield chats: long first prompts, 2.5 turns on average, a minute between them."""
    system = sampler.new_blocks(1)
    for start_s in sampler.times_s(1.8):
        tokens = BLOCK_TOKENS + sampler.tokens(5500, 1.1, LONGEST_TOKENS - BLOCK_TOKENS)
        count = 1
        while sampler.rng.random() < 0.6:
            count += 1
        yield itertools.islice(TALK.turns(sampler, start_s, system, tokens), count)


GENERATORS: Mapping[str, Callable[[_Sampler], Iterator[Session]]] = {
    "tenants": _tenants,
    "hot": _hot,
    "none": _none,
    "agents": _agents,
    "conversation": _conversation,
}


def generated(name: str, count: int = REQUESTS) -> Workload:
    """Return the first `count` requests of one of `GENERATORS`."""
    sampler = _Sampler(random.Random(f"workload {name}"))  # noqa: S311 - keeps no secret
    return Workload(name, list(itertools.islice(_by_arrival(GENERATORS[name](sampler)), count)))


def _by_arrival(sessions: Iterator[Session]) -> Iterator[TraceRequest]:
    """Merge endless sessions, in order of their start, into requests in order of arrival."""
    pending: list[tuple[float, int, TraceRequest]] = []
    serial = itertools.count()
    for session in sessions:
        turns = list(session)
        while pending and pending[0][0] <= turns[0].arrived_s:
            yield heapq.heappop(pending)[2]
        for turn in turns:
            heapq.heappush(pending, (turn.arrived_s, next(serial), turn))
