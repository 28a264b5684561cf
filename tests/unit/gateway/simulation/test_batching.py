"""Model of a replica: invariants under any load, and a reference scheduler, step by step."""

import dataclasses
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulation.batching import (
    BatchingReplica,
    EngineProfile,
    SimulatedSequence,
    StepResult,
)

PROFILE = EngineProfile(
    kv_blocks=20,
    block_size=4,
    max_running=3,
    step_tokens=8,
    step_s=1.0,
    step_s_per_prefill_token=0.25,
    step_s_per_sequence=0.5,
)
UNLIMITED = EngineProfile(kv_blocks=1000, block_size=4, step_tokens=1000, step_s=1.0)


def make_sequence(
    prompt_tokens: int,
    output_tokens: int = 1,
    *,
    prompt: int = 0,
    answer_hashes: tuple[int, ...] = (),
    priority: float = 0.0,
) -> SimulatedSequence:
    """Make a sequence whose blocks equal those of every other sequence of the same `prompt`."""
    hashes = [1000 * prompt + position for position in range(prompt_tokens // 4)]
    return SimulatedSequence(hashes, prompt_tokens, output_tokens, answer_hashes, priority)


def run_to_end(replica: BatchingReplica) -> float:
    """Step until there is nothing left to do; return the seconds that takes."""
    total_s = 0.0
    while (duration_s := replica.begin_step()) is not None:
        total_s += duration_s
        replica.end_step()
    return total_s


@dataclass(frozen=True)
class Arrival:
    """A sequence that arrives before a step and may be aborted before a later one."""

    step: int
    prompt_tokens: int
    output_tokens: int
    prompt: int
    priority: int
    abort_after_steps: int | None = None
    """Steps until it is aborted."""


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        step=st.integers(0, 12),
        prompt_tokens=st.integers(1, 40),
        output_tokens=st.integers(1, 12),
        prompt=st.integers(0, 3),
        priority=st.integers(-1, 1),
        abort_after_steps=st.none() | st.integers(0, 10),
    ),
    max_size=12,
    unique=True,
)


def check_counts(replica: BatchingReplica, sequences: list[SimulatedSequence]) -> None:
    """Compare the counts of the replica with a count of the sequences."""
    alive = [sequence for sequence in sequences if not sequence.is_finished]
    assert replica.waiting == sum(not sequence.is_running for sequence in alive)
    assert replica.running == sum(sequence.is_running for sequence in alive) <= PROFILE.max_running
    assert replica.decoding == sum(sequence.is_decoding for sequence in alive)
    assert replica.pending_tokens == sum(
        sequence.prompt_tokens - sequence.computed_tokens for sequence in alive
    )
    assert replica.is_idle == (not alive)
    assert replica.cache.used <= PROFILE.kv_blocks
    assert replica.cache.free >= 0


@given(arrivals=ARRIVALS)
def test_no_sequence_is_lost_and_no_limit_exceeded(arrivals: list[Arrival]) -> None:
    """Whatever arrives and leaves, all counts are right in every step and nothing is leaked."""
    replica = BatchingReplica(PROFILE)
    sequences: dict[Arrival, SimulatedSequence] = {}
    for step in itertools.count():
        for arrival in (arrival for arrival in arrivals if arrival.step == step):
            sequences[arrival] = sequence = make_sequence(
                arrival.prompt_tokens,
                arrival.output_tokens,
                prompt=arrival.prompt,
                answer_hashes=tuple(range(-5 * (arrival.prompt + 1), -5 * arrival.prompt)),
                priority=arrival.priority,
            )
            replica.submit(sequence)
        duration_s = replica.begin_step()
        check_counts(replica, list(sequences.values()))
        for arrival, sequence in sequences.items():
            if (
                arrival.abort_after_steps is not None
                and step - arrival.step == arrival.abort_after_steps
            ):
                replica.abort(sequence)
        if duration_s is not None:
            replica.end_step()
        check_counts(replica, list(sequences.values()))
        if replica.is_idle and step > 12:
            break
    assert replica.pending_tokens == replica.running == replica.waiting == 0
    assert replica.cache.free == PROFILE.kv_blocks
    for arrival, sequence in sequences.items():
        assert (
            sequence.generated_tokens == sequence.output_tokens
            or arrival.abort_after_steps is not None
        )


def reference_times(sequences: list[SimulatedSequence]) -> list[tuple[float, float]]:
    """Return the times of each sequence's first and last token, without a cache."""
    queue = sorted(sequences, key=lambda sequence: sequence.priority)
    left = {sequence: sequence.prompt_tokens for sequence in sequences}
    made = dict.fromkeys(sequences, 0)
    times: dict[SimulatedSequence, list[float]] = {sequence: [] for sequence in sequences}
    running: list[SimulatedSequence] = []
    now_s = 0.0
    while queue or running:
        decoding = [sequence for sequence in running if not left[sequence]]
        budget = PROFILE.step_tokens - len(decoding)
        prefilled = 0
        for sequence in [*running, *queue]:
            if sequence not in running:
                if len(running) == PROFILE.max_running or prefilled == budget:
                    break
                running.append(sequence)
                queue.remove(sequence)
            while left[sequence] and prefilled < budget:
                left[sequence] -= 1
                prefilled += 1
        now_s += 1.0 + 0.25 * prefilled + 0.5 * len(decoding)
        for sequence in running:
            if not left[sequence]:
                made[sequence] += 1
                times[sequence].append(now_s)
        running = [sequence for sequence in running if made[sequence] < sequence.output_tokens]
    return [(times[sequence][0], times[sequence][-1]) for sequence in sequences]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(0, 2)), max_size=8),
    max_steps=st.sampled_from([1, 3, 1000]),
)
def test_steps_equal_those_of_a_reference_scheduler(
    sizes: list[tuple[int, int, int]], max_steps: int
) -> None:
    """First and last tokens have the same times, also where several steps are merged."""
    sequences = [
        SimulatedSequence(
            block_hashes=(), prompt_tokens=prompt, output_tokens=output, priority=priority
        )
        for prompt, output, priority in sizes
    ]
    replica = BatchingReplica(dataclasses.replace(PROFILE, kv_blocks=1000))
    for sequence in sequences:
        replica.submit(sequence)
    started: dict[SimulatedSequence, float] = {}
    ended: dict[SimulatedSequence, float] = {}
    now_s = 0.0
    while (duration_s := replica.begin_step(max_steps)) is not None:
        now_s += duration_s
        result = replica.end_step()
        started |= dict.fromkeys(result.started, now_s)
        ended |= dict.fromkeys(result.finished, now_s)
    assert [(started[sequence], ended[sequence]) for sequence in sequences] == reference_times(
        sequences
    )


@pytest.mark.parametrize(
    ("elapsed_s", "steps"), [(0.0, 1), (0.4, 1), (1.2, 1), (1.3, 2), (2.4, 2), (99.0, 5)]
)
def test_merged_steps_can_be_shortened(elapsed_s: float, steps: int) -> None:
    """They end with the running step, and the remaining steps follow later."""
    profile = EngineProfile(kv_blocks=9, block_size=4, step_s=1, step_s_per_sequence=0.2)
    replica = BatchingReplica(profile)
    sequence = make_sequence(1, 6)
    replica.submit(sequence)
    replica.begin_step()
    replica.end_step()
    assert replica.begin_step(max_steps=99) == pytest.approx(5 * 1.2)
    assert replica.shorten_steps(elapsed_s) == pytest.approx(steps * 1.2)
    replica.end_step()
    assert sequence.generated_tokens == 1 + steps
    assert run_to_end(replica) == pytest.approx((5 - steps) * 1.2)
    assert sequence.is_finished


def test_an_aborted_sequence_does_not_limit_merged_steps() -> None:
    """Only sequences that still decode limit how many steps are alike."""
    replica = BatchingReplica(EngineProfile(kv_blocks=9, block_size=4, step_s_per_sequence=0))
    short, long = make_sequence(1, 3), make_sequence(1, 9)
    replica.submit(short)
    replica.submit(long)
    replica.begin_step()
    replica.end_step()
    replica.abort(short)
    assert replica.begin_step(max_steps=99) == pytest.approx(8 * 0.012)
    replica.end_step()
    assert long.is_finished


def test_sequences_start_by_priority_then_by_arrival() -> None:
    """Lower priorities start first, equal ones in order of arrival."""
    replica = BatchingReplica(EngineProfile(kv_blocks=9, block_size=4, max_running=1))
    sequences = [make_sequence(1, prompt=number, priority=number % 2) for number in range(6)]
    for sequence in sequences:
        replica.submit(sequence)
    order: list[SimulatedSequence] = []
    while replica.begin_step() is not None:
        order += replica.admitted
        replica.end_step()
    assert [sequences.index(sequence) for sequence in order] == [0, 2, 4, 1, 3, 5]


def test_prompts_are_computed_in_chunks() -> None:
    """A step spends its tokens on the first prompt, then on the next."""
    replica = BatchingReplica(PROFILE)
    long, short = make_sequence(18, 2, prompt=1), make_sequence(3, 2, prompt=2)
    replica.submit(long)
    replica.submit(short)
    progress = []
    for _ in range(3):
        replica.begin_step()
        replica.end_step()
        progress.append((long.computed_tokens, short.computed_tokens, replica.pending_tokens))
    assert progress == [(8, 0, 13), (16, 0, 5), (18, 3, 0)]
    assert (long.generated_tokens, short.generated_tokens) == (1, 1)


def test_a_cached_prompt_costs_only_its_last_block() -> None:
    """Cached blocks are not computed again, except the one with the last token."""
    replica = BatchingReplica(UNLIMITED)
    for prompt_tokens, cached_tokens in [(40, 0), (40, 36), (41, 40), (43, 40), (80, 40)]:
        sequence = make_sequence(prompt_tokens)
        replica.submit(sequence)
        duration_s = run_to_end(replica)
        assert sequence.cached_tokens == cached_tokens
        assert duration_s == pytest.approx(1.0 + 0.0001 * (prompt_tokens - cached_tokens))


def test_the_next_turn_finds_the_blocks_of_the_answer() -> None:
    """The blocks that an answer fills are cached once it is finished, not before."""
    replica = BatchingReplica(UNLIMITED)
    first = SimulatedSequence([1, 2], 9, 5, output_block_hashes=[3, 4])
    replica.submit(first)
    replica.begin_step()
    early, late = (
        SimulatedSequence([1, 2, 3, 4, 5], 20, 1),
        SimulatedSequence([1, 2, 3, 4, 6], 20, 1),
    )
    replica.end_step()
    replica.submit(early)
    run_to_end(replica)
    replica.submit(late)
    run_to_end(replica)
    assert (early.cached_tokens, late.cached_tokens) == (8, 16)


def test_prompts_of_one_step_share_their_blocks() -> None:
    """If two equal prompts arrive together, one is computed, and its blocks count once."""
    replica = BatchingReplica(PROFILE)
    sequences = [make_sequence(8, 8, prompt=1), make_sequence(8, 8, prompt=1)]
    for sequence in sequences:
        replica.submit(sequence)
    replica.begin_step()
    replica.end_step()
    replica.begin_step()
    assert [sequence.cached_tokens for sequence in sequences] == [0, 4]
    # Two blocks of the prompt, and two for each of the answers.
    assert replica.cache.free == 20 - 2 - 2 * 2


def test_a_sequence_that_does_not_fit_waits() -> None:
    """A sequence starts once prompt and whole answer fit, and none overtakes it."""
    replica = BatchingReplica(PROFILE)
    large, larger, small = (
        make_sequence(32, 28),
        make_sequence(36, 12, prompt=1),
        make_sequence(4, prompt=2),
    )
    for sequence in (large, larger, small):
        replica.submit(sequence)
    replica.begin_step()
    assert (replica.running, replica.waiting, replica.cache.free) == (1, 2, 5)
    replica.abort(large)
    replica.end_step()
    replica.begin_step()
    assert larger.is_running
    run_to_end(replica)
    assert small.is_finished


def test_an_equal_prompt_needs_room_for_its_last_block() -> None:
    """The block that is computed again for its output cannot be shared before it exists."""
    replica = BatchingReplica(EngineProfile(kv_blocks=4, block_size=4, step_tokens=3))
    first, second = make_sequence(8, 4), make_sequence(8, 4)
    replica.submit(first)
    while not first.generated_tokens:
        replica.begin_step()
        replica.end_step()
    replica.submit(second)
    replica.begin_step()
    assert (replica.waiting, replica.cache.used) == (1, 3)


def test_a_sequence_larger_than_the_cache_can_never_run() -> None:
    """Prompt and answer together must fit into the whole cache."""
    replica = BatchingReplica(PROFILE)
    assert replica.fits(make_sequence(40, 40))
    assert not replica.fits(make_sequence(40, 41))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("is_in_step", [False, True])
def test_an_abort_frees_everything(steps: int, is_in_step: bool) -> None:
    """In any state, between steps or within one, no block stays pinned."""
    replica = BatchingReplica(PROFILE)
    sequence = make_sequence(20, 9)
    replica.submit(sequence)
    for _ in range(steps):
        replica.begin_step()
        replica.end_step()
    if is_in_step:
        replica.begin_step()
    replica.abort(sequence)
    replica.abort(sequence)
    if is_in_step:
        assert replica.end_step() == StepResult()
    assert (replica.pending_tokens, replica.waiting, replica.running) == (0, 0, 0)
    assert replica.cache.free == PROFILE.kv_blocks
    assert replica.is_idle
    assert replica.begin_step() is None


def test_blocks_computed_before_an_abort_stay_cached() -> None:
    """The next sequence with the same prompt does not compute them again."""
    replica = BatchingReplica(PROFILE)
    first, second = make_sequence(20), make_sequence(20)
    replica.submit(first)
    replica.begin_step()
    replica.end_step()
    replica.abort(first)
    replica.submit(second)
    run_to_end(replica)
    assert second.cached_tokens == 8


@pytest.mark.parametrize("slots", [8, 64])
def test_a_large_request_leaves_a_slot_to_the_next(slots: int) -> None:
    """Its sequences never take all slots, and all of them run in the end."""
    replica = BatchingReplica(dataclasses.replace(UNLIMITED, max_running=slots))
    large = [make_sequence(4, 50) for _ in range(128)]
    for further in large[1:]:
        further.is_further = True
    for sequence in large:
        replica.submit(sequence)
    replica.begin_step()
    replica.end_step()
    small = make_sequence(4)
    replica.submit(small)
    replica.begin_step()
    assert replica.admitted == [small]
    assert sum(sequence.is_running for sequence in large) == slots - max(2, slots // 8) + 1
    replica.end_step()
    run_to_end(replica)
    assert all(sequence.is_finished for sequence in large)
