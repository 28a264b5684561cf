"""A model of one vLLM replica: continuous batching, chunked prefill, an LRU block cache.

One step computes a token for every sequence that decodes and, within a budget of tokens, chunks of
prompts; it takes `base + per prefill token + per decoding sequence` seconds. Waiting sequences
start in the order of their priority while there are slots and KV blocks; their cached blocks are
not computed again. Time is the caller's: this module neither sleeps nor reads a clock.

Left out of vLLM's behaviour: preemption (room for the answer is reserved at the start), and copies
of a block that sequences compute at the same time (they share one). Cost: O(decoding sequences) a
step, O(blocks) a sequence.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.simulation.cache import BlockCache


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpeeds:
    """How fast and how large a replica is."""

    kv_blocks: int
    block_size: int
    max_running: int = 64
    step_tokens: int = 4096
    """Tokens of prompts and answers that one step computes at most."""
    step_s: float = 0.012
    step_s_per_prefill_token: float = 0.0001
    step_s_per_sequence: float = 0.0002


@dataclass(slots=True, eq=False)
class Run:
    """One sequence on its way through a replica."""

    hashes: Sequence[int]
    """Content hashes of the prompt's whole blocks, each standing for all before it too."""
    prompt_tokens: int
    output_tokens: int
    answer_hashes: Sequence[int] = ()
    """Of the blocks that the answer completes; they stay in the cache once it is over."""
    priority: float = 0.0
    """Lower starts sooner; equal ones in the order of their arrival."""
    cached_tokens: int = 0
    computed_tokens: int = 0
    """Of the prompt, cached ones included."""
    made_tokens: int = 0
    """Of the answer."""
    is_running: bool = False
    is_over: bool = False
    pinned: int = 0
    """Blocks with a hash that it uses."""
    reserved: int = 0
    """Blocks without one."""

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt has been read."""
        return self.is_running and self.computed_tokens >= self.prompt_tokens


@dataclass(slots=True)
class StepResult:
    """What one step, or several alike, brought."""

    started: list[Run] = field(default_factory=list)
    """Whose first token is ready."""
    ended: list[Run] = field(default_factory=list)
    """Whose last token is ready."""


class BatchingReplica:
    """The replica; `begin` and `end` take turns, `submit` and `abort` may come at any time."""

    def __init__(self, estimates: EngineSpeeds) -> None:
        self.estimates = estimates
        self.cache = BlockCache(estimates.kv_blocks)
        self._waiting: list[tuple[float, int, Run]] = []
        self._order = itertools.count()
        self._prefilling: list[Run] = []
        self._decoding: dict[Run, None] = {}
        self._ends: list[tuple[int, int, Run]] = []
        """Heap of the step in which each decoding run makes its last token."""
        self._step = 0
        self._planned: list[tuple[Run, int]] = []
        self._admitted: list[Run] = []
        self._planned_steps = 0
        self._step_duration_s = 0.0
        self.pending_tokens = 0
        """Prompt tokens taken and not computed yet; cached ones count until their run starts."""
        self.waiting = 0
        """Sequences that have not started."""

    @property
    def running(self) -> int:
        """Sequences that have started."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def admitted(self) -> Sequence[Run]:
        """Sequences that the last `begin` has started."""
        return self._admitted

    @property
    def decoding(self) -> int:
        """Sequences that make a token in every step."""
        return len(self._decoding)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._prefilling or self._decoding or self.waiting)

    def can_ever_run(self, run: Run) -> bool:
        """Whether it fits into an empty replica."""
        return self._blocks(run) <= self.estimates.kv_blocks

    def submit(self, run: Run) -> None:
        """Take a sequence, which `can_ever_run`."""
        self.pending_tokens += run.prompt_tokens
        self.waiting += 1
        heapq.heappush(self._waiting, (run.priority, next(self._order), run))

    def abort(self, run: Run) -> None:
        """Drop a sequence, wherever it stands."""
        if run.is_over:
            return
        run.is_over = True
        self.pending_tokens -= run.prompt_tokens - min(run.computed_tokens, run.prompt_tokens)
        if run.is_running:
            self._leave(run)
        else:
            self.waiting -= 1

    def begin(self, most_steps: int = 1) -> float | None:
        """Plan the next step; how many seconds it takes, None if there is nothing to do.

        Up to `most_steps` steps that only decode the same sequences are taken as one.
        """
        self._admit_and_plan()
        tokens = sum(chunk for _, chunk in self._planned)
        if not self._planned and not self._decoding:
            return None
        estimates = self.estimates
        self._step_duration_s = (
            estimates.step_s
            + estimates.step_s_per_prefill_token * tokens
            + estimates.step_s_per_sequence * len(self._decoding)
        )
        self._planned_steps = 1
        if not self._planned and most_steps > 1:
            self._planned_steps = max(1, min(most_steps, self._steps_to_next_end()))
        return self._planned_steps * self._step_duration_s

    def cut(self, elapsed_s: float) -> float:
        """End several steps taken as one with the step that is under way `elapsed_s` after `begin`.

        Returns how many seconds after `begin` that is; call `begin` no more before `end`.
        """
        under_way = max(1, math.ceil(elapsed_s / self._step_duration_s))
        self._planned_steps = min(self._planned_steps, under_way)
        return self._planned_steps * self._step_duration_s

    def end(self) -> StepResult:
        """Complete what `begin` planned."""
        result = StepResult()
        self._step += self._planned_steps
        for run in self._decoding:
            run.made_tokens += self._planned_steps
        while self._ends and self._ends[0][0] <= self._step:
            _, _, run = heapq.heappop(self._ends)
            if not run.is_over:
                del self._decoding[run]
                self._complete(run, result)
        for run, chunk in self._planned:
            if not run.is_over:
                self._compute(run, chunk, result)
        self._planned = []
        return result

    def _compute(self, run: Run, chunk: int, result: StepResult) -> None:
        run.computed_tokens += chunk
        self.pending_tokens -= chunk
        if run.computed_tokens < run.prompt_tokens:
            return
        self._prefilling.remove(run)
        run.made_tokens = 1
        result.started.append(run)
        if run.output_tokens <= 1:
            self._complete(run, result)
            return
        self._decoding[run] = None
        last_step = self._step + run.output_tokens - 1
        heapq.heappush(self._ends, (last_step, next(self._order), run))

    def _admit_and_plan(self) -> None:
        self._admitted = []
        budget = self.estimates.step_tokens - len(self._decoding)
        for run in self._prefilling:
            budget -= self._plan(run, budget)
        while budget > 0 and self._waiting and self.running < self.estimates.max_running:
            run = self._waiting[0][2]
            if not run.is_over:
                if not self._has_room(run):
                    break
                self._start(run)
                budget -= self._plan(run, budget)
            heapq.heappop(self._waiting)
        while self._waiting and self._waiting[0][2].is_over:
            heapq.heappop(self._waiting)

    def _plan(self, run: Run, budget: int) -> int:
        chunk = min(budget, run.prompt_tokens - run.computed_tokens)
        if chunk <= 0:
            return 0
        self._planned.append((run, chunk))
        # The blocks count as cached from here on, as in vLLM: the next step finds them.
        whole = (run.computed_tokens + chunk) // self.estimates.block_size
        whole = min(whole, len(run.hashes))
        if whole > run.pinned:
            self.cache.reserve(run.pinned - whole)
            run.reserved -= whole - run.pinned
            self.cache.pin(run.hashes[run.pinned : whole])
            run.pinned = whole
        return chunk

    def _start(self, run: Run) -> None:
        run.pinned = self.cache.match(self._reusable(run))
        run.cached_tokens = run.computed_tokens = run.pinned * self.estimates.block_size
        self.pending_tokens -= run.cached_tokens
        self.cache.pin(run.hashes[: run.pinned])
        run.reserved = self._blocks(run) - run.pinned
        self.cache.reserve(run.reserved)
        run.is_running = True
        self.waiting -= 1
        self._admitted.append(run)
        self._prefilling.append(run)

    def _has_room(self, run: Run) -> bool:
        # Blocks that others use already do not have to be taken again.
        return self._blocks(run) - self.cache.pinned(self._reusable(run)) <= self.cache.free

    def _reusable(self, run: Run) -> Sequence[int]:
        # The last token of a prompt is always computed: its output is the first of the answer.
        return run.hashes[: (run.prompt_tokens - 1) // self.estimates.block_size]

    def _blocks(self, run: Run) -> int:
        return math.ceil((run.prompt_tokens + run.output_tokens) / self.estimates.block_size)

    def _complete(self, run: Run, result: StepResult) -> None:
        run.is_over = True
        result.ended.append(run)
        self._give_back(run, run.answer_hashes)

    def _leave(self, run: Run) -> None:
        if run in self._decoding:
            del self._decoding[run]
        elif run in self._prefilling:
            self._prefilling.remove(run)
        self._give_back(run)

    def _give_back(self, run: Run, completed: Sequence[int] = ()) -> None:
        run.is_running = False
        self.cache.reserve(-run.reserved)
        self.cache.keep(completed)
        self.cache.unpin(run.hashes[: run.pinned])
        run.reserved = run.pinned = 0

    def _steps_to_next_end(self) -> int:
        while self._ends and self._ends[0][2].is_over:
            heapq.heappop(self._ends)
        return self._ends[0][0] - self._step if self._ends else 1
