"""Model of one vLLM replica: continuous batching, chunked prefill, an LRU block cache.

One step computes a token for every decoding sequence and, within a budget of tokens, chunks of
prompts; it takes `base + per prefill token + per decoding sequence` seconds. Waiting sequences
start in the order of their priority while there are slots and KV blocks, and those of large
requests leave some slots free; their cached blocks are not computed again. The caller owns time:
this module neither sleeps nor reads a clock.

Not modelled: preemption (blocks for the answer are reserved at the start), and copies of a block
that several sequences compute at the same time (they share one). Cost: O(decoding sequences) per
step, O(blocks) per sequence.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.routing.engine_limits import further_sequences
from gateway.simulation.block_cache import BlockCache


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """Speed and size of a replica."""

    kv_blocks: int
    block_size: int
    max_running: int = 64
    step_tokens: int = 4096
    """Most tokens of prompts and answers that one step computes."""
    step_s: float = 0.012
    step_s_per_prefill_token: float = 0.0001
    step_s_per_sequence: float = 0.0002


@dataclass(slots=True, eq=False)
class SimulatedSequence:
    """One sequence in a replica: a prompt and its answer."""

    block_hashes: Sequence[int]
    """Content hashes of the prompt's full blocks; each includes all blocks before it."""
    prompt_tokens: int
    output_tokens: int
    output_block_hashes: Sequence[int] = ()
    """Hashes of the blocks that the answer fills; they are cached once it is finished."""
    priority: float = 0.0
    """Lower values start first; equal ones in order of arrival."""
    is_further: bool = False
    """Whether it is not the first of its request."""
    cached_tokens: int = 0
    computed_tokens: int = 0
    """Prompt tokens, cached ones included."""
    generated_tokens: int = 0
    """Answer tokens so far."""
    is_running: bool = False
    is_finished: bool = False
    pinned_blocks: int = 0
    """Number of blocks with a hash that it uses."""
    reserved_blocks: int = 0
    """Number of blocks without a hash that it uses."""

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt has been computed."""
        return self.is_running and self.computed_tokens >= self.prompt_tokens


@dataclass(slots=True)
class StepResult:
    """Result of a step, or of several merged steps."""

    started: list[SimulatedSequence] = field(default_factory=list)
    """Sequences whose first token is ready."""
    finished: list[SimulatedSequence] = field(default_factory=list)
    """Sequences whose last token is ready."""


class BatchingReplica:
    """One replica. Call `begin_step` and `end_step` in turn, `submit` and `abort` at any time."""

    def __init__(self, profile: EngineProfile) -> None:
        self.profile = profile
        self.cache = BlockCache(profile.kv_blocks)
        self._first: list[tuple[float, int, SimulatedSequence]] = []
        self._further: list[tuple[float, int, SimulatedSequence]] = []
        """Heaps of waiting sequences: the first of their requests, and others."""
        self._most_further = further_sequences(profile.max_running)
        self._running_further = 0
        self._serial = itertools.count()
        self._prefilling: list[SimulatedSequence] = []
        self._decoding: dict[SimulatedSequence, None] = {}
        self._last_steps: list[tuple[int, int, SimulatedSequence]] = []
        """Heap of the step in which each decoding sequence generates its last token."""
        self._step = 0
        self._planned: list[tuple[SimulatedSequence, int]] = []
        self._admitted: list[SimulatedSequence] = []
        self._planned_steps = 0
        self._step_duration_s = 0.0
        self.pending_tokens = 0
        """Prompt tokens not computed yet; cached ones count until their sequence starts."""
        self.waiting = 0
        """Number of sequences that have not started."""

    @property
    def running(self) -> int:
        """Number of sequences that have started."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def admitted(self) -> Sequence[SimulatedSequence]:
        """Sequences that the last `begin_step` started."""
        return self._admitted

    @property
    def decoding(self) -> int:
        """Number of sequences that generate a token in every step."""
        return len(self._decoding)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._prefilling or self._decoding or self.waiting)

    def fits(self, sequence: SimulatedSequence) -> bool:
        """Return whether a sequence fits into an empty replica."""
        return self._total_blocks(sequence) <= self.profile.kv_blocks

    def submit(self, sequence: SimulatedSequence) -> None:
        """Add a sequence for which `fits` is true."""
        self.pending_tokens += sequence.prompt_tokens
        self.waiting += 1
        queue = self._further if sequence.is_further else self._first
        heapq.heappush(queue, (sequence.priority, next(self._serial), sequence))

    def abort(self, sequence: SimulatedSequence) -> None:
        """Remove a sequence, whatever its state."""
        if sequence.is_finished:
            return
        sequence.is_finished = True
        self.pending_tokens -= sequence.prompt_tokens - min(
            sequence.computed_tokens, sequence.prompt_tokens
        )
        if sequence.is_running:
            self._remove(sequence)
        else:
            self.waiting -= 1

    def begin_step(self, max_steps: int = 1) -> float | None:
        """Plan the next step; return its duration in seconds, or None if there is nothing to do.

        Up to `max_steps` steps that only decode the same sequences are merged into one.
        """
        self._schedule()
        tokens = sum(chunk for _, chunk in self._planned)
        if not self._planned and not self._decoding:
            return None
        profile = self.profile
        self._step_duration_s = (
            profile.step_s
            + profile.step_s_per_prefill_token * tokens
            + profile.step_s_per_sequence * len(self._decoding)
        )
        self._planned_steps = 1
        if not self._planned and max_steps > 1:
            self._planned_steps = max(1, min(max_steps, self._steps_to_next_finish()))
        return self._planned_steps * self._step_duration_s

    def shorten_steps(self, elapsed_s: float) -> float:
        """Shorten merged steps: stop after the step that runs at `elapsed_s`.

        Returns when that step ends. Times are seconds since `begin_step`; `end_step` must follow.
        """
        current = max(1, math.ceil(elapsed_s / self._step_duration_s))
        self._planned_steps = min(self._planned_steps, current)
        return self._planned_steps * self._step_duration_s

    def end_step(self) -> StepResult:
        """Complete the planned step."""
        result = StepResult()
        self._step += self._planned_steps
        for sequence in self._decoding:
            sequence.generated_tokens += self._planned_steps
        while self._last_steps and self._last_steps[0][0] <= self._step:
            _, _, sequence = heapq.heappop(self._last_steps)
            if not sequence.is_finished:
                del self._decoding[sequence]
                self._finish(sequence, result)
        for sequence, chunk in self._planned:
            if not sequence.is_finished:
                self._compute(sequence, chunk, result)
        self._planned = []
        return result

    def _compute(self, sequence: SimulatedSequence, chunk: int, result: StepResult) -> None:
        sequence.computed_tokens += chunk
        self.pending_tokens -= chunk
        if sequence.computed_tokens < sequence.prompt_tokens:
            return
        self._prefilling.remove(sequence)
        sequence.generated_tokens = 1
        result.started.append(sequence)
        if sequence.output_tokens <= 1:
            self._finish(sequence, result)
            return
        self._decoding[sequence] = None
        last_step = self._step + sequence.output_tokens - 1
        heapq.heappush(self._last_steps, (last_step, next(self._serial), sequence))

    def _schedule(self) -> None:
        self._admitted = []
        budget = self.profile.step_tokens - len(self._decoding)
        for sequence in self._prefilling:
            budget -= self._plan_chunk(sequence, budget)
        while budget > 0 and self.running < self.profile.max_running and (queue := self._next()):
            sequence = queue[0][2]
            if not self._has_free_blocks(sequence):
                break
            self._start(sequence)
            budget -= self._plan_chunk(sequence, budget)
            heapq.heappop(queue)

    def _next(self) -> list[tuple[float, int, SimulatedSequence]]:
        """The queue whose first sequence starts next; empty if none may start."""
        queues = [self._first, self._further]
        for queue in queues:
            while queue and queue[0][2].is_finished:
                heapq.heappop(queue)
        if self._running_further >= self._most_further:
            queues.pop()
        return min(filter(None, queues), default=[])

    def _plan_chunk(self, sequence: SimulatedSequence, budget: int) -> int:
        chunk = min(budget, sequence.prompt_tokens - sequence.computed_tokens)
        if chunk <= 0:
            return 0
        self._planned.append((sequence, chunk))
        # As in vLLM, the blocks count as cached from now on: the next step finds them.
        whole = (sequence.computed_tokens + chunk) // self.profile.block_size
        whole = min(whole, len(sequence.block_hashes))
        if whole > sequence.pinned_blocks:
            self.cache.reserve(sequence.pinned_blocks - whole)
            sequence.reserved_blocks -= whole - sequence.pinned_blocks
            self.cache.pin(sequence.block_hashes[sequence.pinned_blocks : whole])
            sequence.pinned_blocks = whole
        return chunk

    def _start(self, sequence: SimulatedSequence) -> None:
        sequence.pinned_blocks = self.cache.match(self._reusable_hashes(sequence))
        sequence.cached_tokens = sequence.computed_tokens = (
            sequence.pinned_blocks * self.profile.block_size
        )
        self.pending_tokens -= sequence.cached_tokens
        self.cache.pin(sequence.block_hashes[: sequence.pinned_blocks])
        sequence.reserved_blocks = self._total_blocks(sequence) - sequence.pinned_blocks
        self.cache.reserve(sequence.reserved_blocks)
        sequence.is_running = True
        self._running_further += sequence.is_further
        self.waiting -= 1
        self._admitted.append(sequence)
        self._prefilling.append(sequence)

    def _has_free_blocks(self, sequence: SimulatedSequence) -> bool:
        # Blocks that other sequences use need no room of their own.
        return (
            self._total_blocks(sequence) - self.cache.match_pinned(self._reusable_hashes(sequence))
            <= self.cache.free
        )

    def _reusable_hashes(self, sequence: SimulatedSequence) -> Sequence[int]:
        # The last token of a prompt is always computed: its output is the first answer token.
        return sequence.block_hashes[: (sequence.prompt_tokens - 1) // self.profile.block_size]

    def _total_blocks(self, sequence: SimulatedSequence) -> int:
        return math.ceil(
            (sequence.prompt_tokens + sequence.output_tokens) / self.profile.block_size
        )

    def _finish(self, sequence: SimulatedSequence, result: StepResult) -> None:
        sequence.is_finished = True
        result.finished.append(sequence)
        self._free_blocks(sequence, sequence.output_block_hashes)

    def _remove(self, sequence: SimulatedSequence) -> None:
        if sequence in self._decoding:
            del self._decoding[sequence]
        elif sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._free_blocks(sequence)

    def _free_blocks(self, sequence: SimulatedSequence, filled_hashes: Sequence[int] = ()) -> None:
        sequence.is_running = False
        self._running_further -= sequence.is_further
        self.cache.reserve(-sequence.reserved_blocks)
        self.cache.insert(filled_hashes)
        self.cache.unpin(sequence.block_hashes[: sequence.pinned_blocks])
        sequence.reserved_blocks = sequence.pinned_blocks = 0

    def _steps_to_next_finish(self) -> int:
        while self._last_steps and self._last_steps[0][2].is_finished:
            heapq.heappop(self._last_steps)
        return self._last_steps[0][0] - self._step if self._last_steps else 1
