"""The model of a replica: invariants under any load, and a scheduler written out step by step."""

import dataclasses
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulation.batching import BatchingReplica, EngineSpeeds, Run, StepResult

FIGURES = EngineSpeeds(
    kv_blocks=20,
    block_size=4,
    max_running=3,
    step_tokens=8,
    step_s=1.0,
    step_s_per_prefill_token=0.25,
    step_s_per_sequence=0.5,
)
UNLIMITED = EngineSpeeds(kv_blocks=1000, block_size=4, step_tokens=1000, step_s=1.0)


def run_of(
    prompt_tokens: int,
    output_tokens: int = 1,
    *,
    prompt: int = 0,
    answer_hashes: tuple[int, ...] = (),
    priority: float = 0.0,
) -> Run:
    """A run whose blocks are those of every other run of the same `prompt`."""
    hashes = [1000 * prompt + position for position in range(prompt_tokens // 4)]
    return Run(hashes, prompt_tokens, output_tokens, answer_hashes, priority)


def finish(replica: BatchingReplica) -> float:
    """Step until there is nothing left to do; the seconds it took."""
    passed_s = 0.0
    while (duration_s := replica.begin()) is not None:
        passed_s += duration_s
        replica.end()
    return passed_s


@dataclass(frozen=True)
class Arrival:
    """A run that comes before a step, and may be aborted before a later one."""

    step: int
    prompt_tokens: int
    output_tokens: int
    prompt: int
    priority: int
    patience: int | None = None
    """Steps until it is aborted."""


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        step=st.integers(0, 12),
        prompt_tokens=st.integers(1, 40),
        output_tokens=st.integers(1, 12),
        prompt=st.integers(0, 3),
        priority=st.integers(-1, 1),
        patience=st.none() | st.integers(0, 10),
    ),
    max_size=12,
    unique=True,
)


def check_counts(replica: BatchingReplica, runs: list[Run]) -> None:
    """Compare what the replica counts along the way with a count of the runs."""
    alive = [run for run in runs if not run.is_over]
    assert replica.waiting == sum(not run.is_running for run in alive)
    assert replica.running == sum(run.is_running for run in alive) <= FIGURES.max_running
    assert replica.decoding == sum(run.is_decoding for run in alive)
    assert replica.pending_tokens == sum(run.prompt_tokens - run.computed_tokens for run in alive)
    assert replica.is_idle == (not alive)
    assert replica.cache.used <= FIGURES.kv_blocks
    assert replica.cache.free >= 0


@given(arrivals=ARRIVALS)
def test_nothing_is_lost_and_no_limit_exceeded(arrivals: list[Arrival]) -> None:
    """Whatever comes and goes, the counts are right in every step and nothing stays behind."""
    replica = BatchingReplica(FIGURES)
    runs: dict[Arrival, Run] = {}
    for step in itertools.count():
        for arrival in (arrival for arrival in arrivals if arrival.step == step):
            runs[arrival] = run = run_of(
                arrival.prompt_tokens,
                arrival.output_tokens,
                prompt=arrival.prompt,
                answer_hashes=tuple(range(-5 * (arrival.prompt + 1), -5 * arrival.prompt)),
                priority=arrival.priority,
            )
            replica.submit(run)
        duration_s = replica.begin()
        check_counts(replica, list(runs.values()))
        for arrival, run in runs.items():
            if arrival.patience is not None and step - arrival.step == arrival.patience:
                replica.abort(run)
        if duration_s is not None:
            replica.end()
        check_counts(replica, list(runs.values()))
        if replica.is_idle and step > 12:
            break
    assert replica.pending_tokens == replica.running == replica.waiting == 0
    assert replica.cache.free == FIGURES.kv_blocks
    for arrival, run in runs.items():
        assert run.made_tokens == run.output_tokens or arrival.patience is not None


def written_out(runs: list[Run]) -> list[tuple[float, float]]:
    """When each run's first and last token is there, without a cache, token by token."""
    queue = sorted(runs, key=lambda run: run.priority)
    left = {run: run.prompt_tokens for run in runs}
    made = dict.fromkeys(runs, 0)
    times: dict[Run, list[float]] = {run: [] for run in runs}
    running: list[Run] = []
    now_s = 0.0
    while queue or running:
        decoding = [run for run in running if not left[run]]
        budget = FIGURES.step_tokens - len(decoding)
        read = 0
        for run in [*running, *queue]:
            if run not in running:
                if len(running) == FIGURES.max_running or read == budget:
                    break
                running.append(run)
                queue.remove(run)
            while left[run] and read < budget:
                left[run] -= 1
                read += 1
        now_s += 1.0 + 0.25 * read + 0.5 * len(decoding)
        for run in running:
            if not left[run]:
                made[run] += 1
                times[run].append(now_s)
        running = [run for run in running if made[run] < run.output_tokens]
    return [(times[run][0], times[run][-1]) for run in runs]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(0, 2)), max_size=8),
    most_steps=st.sampled_from([1, 3, 1000]),
)
def test_steps_are_those_of_a_scheduler_written_out(
    sizes: list[tuple[int, int, int]], most_steps: int
) -> None:
    """First and last tokens come when they should, also where several steps are taken as one."""
    runs = [
        Run(hashes=(), prompt_tokens=prompt, output_tokens=output, priority=priority)
        for prompt, output, priority in sizes
    ]
    replica = BatchingReplica(dataclasses.replace(FIGURES, kv_blocks=1000))
    for run in runs:
        replica.submit(run)
    started: dict[Run, float] = {}
    ended: dict[Run, float] = {}
    now_s = 0.0
    while (duration_s := replica.begin(most_steps)) is not None:
        now_s += duration_s
        result = replica.end()
        started |= dict.fromkeys(result.started, now_s)
        ended |= dict.fromkeys(result.ended, now_s)
    assert [(started[run], ended[run]) for run in runs] == written_out(runs)


@pytest.mark.parametrize(
    ("elapsed_s", "steps"), [(0.0, 1), (0.4, 1), (1.2, 1), (1.3, 2), (2.4, 2), (99.0, 5)]
)
def test_steps_taken_as_one_can_be_cut(elapsed_s: float, steps: int) -> None:
    """An arrival ends them with the step under way, and the rest are made afterwards."""
    estimates = EngineSpeeds(kv_blocks=9, block_size=4, step_s=1, step_s_per_sequence=0.2)
    replica = BatchingReplica(estimates)
    run = run_of(1, 6)
    replica.submit(run)
    replica.begin()
    replica.end()
    assert replica.begin(most_steps=99) == pytest.approx(5 * 1.2)
    assert replica.cut(elapsed_s) == pytest.approx(steps * 1.2)
    replica.end()
    assert run.made_tokens == 1 + steps
    assert finish(replica) == pytest.approx((5 - steps) * 1.2)
    assert run.is_over


def test_an_aborted_run_ends_no_steps_taken_as_one() -> None:
    """Only those that still decode say how many steps are alike."""
    replica = BatchingReplica(EngineSpeeds(kv_blocks=9, block_size=4, step_s_per_sequence=0))
    short, long = run_of(1, 3), run_of(1, 9)
    replica.submit(short)
    replica.submit(long)
    replica.begin()
    replica.end()
    replica.abort(short)
    assert replica.begin(most_steps=99) == pytest.approx(8 * 0.012)
    replica.end()
    assert long.is_over


def test_priorities_before_arrival() -> None:
    """Lower priorities start first, equal ones in the order in which they came."""
    replica = BatchingReplica(EngineSpeeds(kv_blocks=9, block_size=4, max_running=1))
    runs = [run_of(1, prompt=number, priority=number % 2) for number in range(6)]
    for run in runs:
        replica.submit(run)
    order: list[Run] = []
    while replica.begin() is not None:
        order += replica.admitted
        replica.end()
    assert [runs.index(run) for run in order] == [0, 2, 4, 1, 3, 5]


def test_prompts_are_read_in_chunks() -> None:
    """A step reads what its tokens allow: of the first prompt first, then of the next."""
    replica = BatchingReplica(FIGURES)
    long, short = run_of(18, 2, prompt=1), run_of(3, 2, prompt=2)
    replica.submit(long)
    replica.submit(short)
    read = []
    for _ in range(3):
        replica.begin()
        replica.end()
        read.append((long.computed_tokens, short.computed_tokens, replica.pending_tokens))
    assert read == [(8, 0, 13), (16, 0, 5), (18, 3, 0)]
    assert (long.made_tokens, short.made_tokens) == (1, 1)


def test_a_cached_prompt_costs_its_last_block_only() -> None:
    """The blocks of an earlier prompt are not read again, but for the one of the last token."""
    replica = BatchingReplica(UNLIMITED)
    for prompt_tokens, cached_tokens in [(40, 0), (40, 36), (41, 40), (43, 40), (80, 40)]:
        run = run_of(prompt_tokens)
        replica.submit(run)
        duration_s = finish(replica)
        assert run.cached_tokens == cached_tokens
        assert duration_s == pytest.approx(1.0 + 0.0001 * (prompt_tokens - cached_tokens))


def test_a_next_turn_finds_the_answer() -> None:
    """The blocks that an answer completes are cached when it is over, and not before."""
    replica = BatchingReplica(UNLIMITED)
    first = Run([1, 2], 9, 5, answer_hashes=[3, 4])
    replica.submit(first)
    replica.begin()
    early, late = Run([1, 2, 3, 4, 5], 20, 1), Run([1, 2, 3, 4, 6], 20, 1)
    replica.end()
    replica.submit(early)
    finish(replica)
    replica.submit(late)
    finish(replica)
    assert (early.cached_tokens, late.cached_tokens) == (8, 16)


def test_prompts_of_one_step_share_their_blocks() -> None:
    """Of two equal prompts that come together, one is read, and both take its room once."""
    replica = BatchingReplica(FIGURES)
    runs = [run_of(8, 8, prompt=1), run_of(8, 8, prompt=1)]
    for run in runs:
        replica.submit(run)
    replica.begin()
    replica.end()
    replica.begin()
    assert [run.cached_tokens for run in runs] == [0, 4]
    # Two blocks of the prompt, and two for each of the answers.
    assert replica.cache.free == 20 - 2 - 2 * 2


def test_who_does_not_fit_waits_for_room() -> None:
    """A run starts once its prompt and its whole answer fit, and nobody overtakes it."""
    replica = BatchingReplica(FIGURES)
    large, larger, small = run_of(32, 28), run_of(36, 12, prompt=1), run_of(4, prompt=2)
    for run in (large, larger, small):
        replica.submit(run)
    replica.begin()
    assert (replica.running, replica.waiting, replica.cache.free) == (1, 2, 5)
    replica.abort(large)
    replica.end()
    replica.begin()
    assert larger.is_running
    finish(replica)
    assert small.is_over


def test_an_equal_prompt_needs_room_for_its_last_block() -> None:
    """What is computed again, because its output is wanted, cannot be shared before it is there."""
    replica = BatchingReplica(EngineSpeeds(kv_blocks=4, block_size=4, step_tokens=3))
    first, second = run_of(8, 4), run_of(8, 4)
    replica.submit(first)
    while not first.made_tokens:
        replica.begin()
        replica.end()
    replica.submit(second)
    replica.begin()
    assert (replica.waiting, replica.cache.used) == (1, 3)


def test_what_can_never_fit() -> None:
    """Prompt and answer together are measured against the whole cache."""
    replica = BatchingReplica(FIGURES)
    assert replica.can_ever_run(run_of(40, 40))
    assert not replica.can_ever_run(run_of(40, 41))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("is_in_step", [False, True])
def test_an_abort_frees_everything(steps: int, is_in_step: bool) -> None:
    """Waiting, in its prompt or in its answer, between steps or in one: nothing stays taken."""
    replica = BatchingReplica(FIGURES)
    run = run_of(20, 9)
    replica.submit(run)
    for _ in range(steps):
        replica.begin()
        replica.end()
    if is_in_step:
        replica.begin()
    replica.abort(run)
    replica.abort(run)
    if is_in_step:
        assert replica.end() == StepResult()
    assert (replica.pending_tokens, replica.waiting, replica.running) == (0, 0, 0)
    assert replica.cache.free == FIGURES.kv_blocks
    assert replica.is_idle
    assert replica.begin() is None


def test_what_was_read_before_an_abort_stays_cached() -> None:
    """The next one with the same prompt does not read those blocks again."""
    replica = BatchingReplica(FIGURES)
    first, second = run_of(20), run_of(20)
    replica.submit(first)
    replica.begin()
    replica.end()
    replica.abort(first)
    replica.submit(second)
    finish(replica)
    assert second.cached_tokens == 8
