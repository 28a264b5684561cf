"""An engine's tracker: load, cache contents and finished requests."""

import msgspec
import pytest

from gateway.engine_telemetry.tracker import EngineTracker
from gateway.kvcache.prefix import extend
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.update import Finished, Load, Update, unpack_keys, unpack_tokens
from tests.unit.conftest import Clock
from tests.unit.tracked import KEY_BYTES, dispatch, engine_facts, finished, sent

FACTS = engine_facts(1000)
NO_CHANGE = None


@pytest.fixture
def tracker(clock: Clock) -> EngineTracker:
    """Tracker of an idle engine, with nothing left to send."""
    tracker = EngineTracker(FACTS, clock)
    tracker.pop_update()
    return tracker


def test_an_update_holds_only_changes_and_each_once(tracker: EngineTracker) -> None:
    """Without a change there is no update."""
    assert tracker.pop_update() is NO_CHANGE
    tracker.record_arrival(None, 10)
    assert sent(tracker) == Update(
        load=Load(running=1, waiting=0, pending_tokens=10, free_tokens=990)
    )
    assert tracker.pop_update() is NO_CHANGE


def test_free_tokens_come_from_the_engine_while_it_has_requests(clock: Clock) -> None:
    """An idle engine has all its tokens free, whatever its own count says."""
    tracker = EngineTracker(FACTS, clock, lambda: 0, lambda: 640)
    assert tracker.load.free_tokens == 1000
    tracked = tracker.record_arrival(None, 10)
    assert tracker.load.free_tokens == 640
    tracker.record_finished(tracked, 1)
    assert tracker.load.free_tokens == 1000


def test_the_further_sequences_of_a_request_let_others_pass(clock: Clock) -> None:
    """Of what waits, only requests that have not started are before a new one."""
    waiting = 0
    facts = msgspec.structs.replace(FACTS, supports_priority=True)
    tracker = EngineTracker(facts, clock, lambda: waiting)
    large = tracker.record_arrival(dispatch(1), 10, sequences=100)
    waiting = 92
    assert (tracker.load.running, tracker.load.yielding) == (8, 91)
    tracker.record_first_token(large, 0)
    assert tracker.load.yielding == 92
    small = tracker.record_arrival(dispatch(2), 10)
    waiting = 93
    assert (tracker.load.waiting, tracker.load.yielding) == (93, 92)
    tracker.record_finished(small, 1)
    tracker.record_arrival(None, 10)
    assert tracker.load.yielding == 93
    tracker.record_finished(large, 100)
    waiting = 1
    assert (tracker.load.running, tracker.load.yielding) == (0, 1)


def test_nothing_passes_in_an_engine_that_goes_by_arrival(clock: Clock) -> None:
    """Its load is what a new request waits for."""
    tracker = EngineTracker(FACTS, clock, lambda: 92)
    tracker.record_arrival(dispatch(1), 10, sequences=100)
    assert not FACTS.supports_priority
    assert (tracker.load.waiting, tracker.load.yielding) == (92, 0)


def test_a_stall_lasts_from_the_last_progress_while_there_is_work(
    tracker: EngineTracker, clock: Clock
) -> None:
    """Time without progress counts from the first request and ends with the last."""
    clock.now_s += 50
    assert tracker.stalled_s == 0
    tracked = tracker.record_arrival(None, 10)
    clock.now_s += 2
    tracker.record_arrival(None, 10)
    assert tracker.stalled_s == 2
    tracker.record_progress()
    assert tracker.stalled_s == 0
    clock.now_s += 3
    tracker.record_first_token(tracked, 0)
    assert tracker.stalled_s == 0
    clock.now_s += 4
    tracker.record_finished(tracked, 1, is_aborted=True)
    assert tracker.stalled_s == 4
    clock.now_s += 1
    pooled = tracker.record_arrival(None, 10)
    tracker.record_pooled(pooled, 0)
    assert tracker.stalled_s == 0


def test_a_ping_is_work_until_it_is_answered(tracker: EngineTracker, clock: Clock) -> None:
    """So an idle engine that hangs stalls, and requests that come and go do not hide it."""
    clock.now_s += 50
    tracker.record_ping()
    clock.now_s += 2
    tracker.record_ping()
    tracked = tracker.record_arrival(None, 10)
    tracker.record_finished(tracked, 0, is_aborted=True)
    assert tracker.stalled_s == 2
    tracker.record_progress()
    clock.now_s += 3
    assert tracker.stalled_s == 0


def test_a_stall_alone_causes_no_update(tracker: EngineTracker, clock: Clock) -> None:
    """Every update says how long the engine has stalled, but a longer stall is no change."""
    tracked = tracker.record_arrival(None, 10)
    assert sent(tracker).stalled_s == 0
    clock.now_s += 7
    assert tracker.pop_update() is NO_CHANGE
    assert tracker.heartbeat() == Update(stalled_s=7)
    assert tracker.snapshot().stalled_s == 7
    clock.now_s += 1
    tracker.record_arrival(None, 10)
    assert sent(tracker).stalled_s == 8
    tracker.record_first_token(tracked, 0)
    tracker.record_draining()
    sent(tracker)
    assert tracker.heartbeat() == Update(is_draining=True)


def test_a_heartbeat_contains_pending_changes(tracker: EngineTracker) -> None:
    """It sends changes at once, and they are not sent again."""
    tracker.record_arrival(dispatch(5), 10)
    assert tracker.heartbeat().accepted == [5]
    assert tracker.pop_update() is NO_CHANGE


def test_an_arrival_adds_load_and_prefix_keys(tracker: EngineTracker) -> None:
    """A request counts from its arrival: its tokens as pending, its keys as cached."""
    tracker.record_arrival(dispatch(5, 1, 2), 100)
    update = sent(tracker)
    assert update.accepted == [5]
    assert update.load == Load(running=1, waiting=0, pending_tokens=100, free_tokens=900)
    assert list(unpack_keys(update.added)) == [2, 1]
    assert list(unpack_tokens(update.added_tokens)) == [100, 50]


def test_cached_tokens_are_not_pending(tracker: EngineTracker) -> None:
    """Only the uncached rest of a prompt is pending, until the first token."""
    first = tracker.record_arrival(dispatch(1, 1, 2), 100)
    tracker.record_first_token(first, 0)
    second = tracker.record_arrival(dispatch(2, 1, 2, 3), 150)
    assert tracker.load.pending_tokens == 50
    tracker.record_first_token(second, 96)
    assert tracker.load.pending_tokens == 0
    tracker.record_finished(first, 1)
    tracker.record_finished(second, 1)
    assert tracker.load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=1000)


def test_waiting_requests_do_not_count_as_running(clock: Clock) -> None:
    """The engine's count of its queue divides requests into waiting and running."""
    waiting = 0
    tracker = EngineTracker(FACTS, clock, lambda: waiting)
    for _ in range(3):
        tracker.record_arrival(None, 10)
    waiting = 2
    assert (tracker.load.running, tracker.load.waiting) == (1, 2)
    waiting = 9  # the engine's count is older than the latest departures
    assert (tracker.load.running, tracker.load.waiting) == (0, 3)


def test_queue_prefill_and_decode_times_are_recorded(tracker: EngineTracker, clock: Clock) -> None:
    """The three follow each other without a gap."""
    tracked = tracker.record_arrival(dispatch(9, 1, 2), 100)
    clock.now_s = 103.0
    tracker.record_first_token(tracked, 48, scheduled_s=101.0)
    clock.now_s = 107.0
    tracker.record_finished(tracked, 20)
    assert finished(tracker) == Finished(
        id=9,
        prompt_tokens=100,
        cached_tokens=48,
        completion_tokens=20,
        prompt_bytes=80,
        queue_s=1.0,
        prefill_s=2.0,
        decode_s=4.0,
        running=1.0,
    )


def test_a_first_token_may_be_recorded_late(tracker: EngineTracker, clock: Clock) -> None:
    """An engine without output before the end reports the first token's time at the end."""
    tracked = tracker.record_arrival(None, 100)
    clock.now_s = 110.0
    tracker.record_first_token(tracked, 0, scheduled_s=101.0, first_token_s=104.0)
    tracker.record_finished(tracked, 20)
    request = finished(tracker)
    assert (request.queue_s, request.prefill_s, request.decode_s) == (1.0, 3.0, 6.0)
    assert request.running == pytest.approx(1.0)


def test_times_from_another_clock_are_kept_in_order(tracker: EngineTracker, clock: Clock) -> None:
    """A skewed clock causes no negative durations."""
    tracked = tracker.record_arrival(None, 100)
    clock.now_s = 101.0
    tracker.record_first_token(tracked, 0, scheduled_s=99.0, first_token_s=200.0)
    tracker.record_finished(tracked, 1)
    request = finished(tracker)
    assert (request.queue_s, request.prefill_s, request.decode_s) == (0.0, 1.0, 0.0)


def test_running_is_the_mean_number_of_requests_during_decode(clock: Clock) -> None:
    """Each other request counts for as long as it ran; waiting requests do not count."""
    waiting = 0
    tracker = EngineTracker(FACTS, clock, lambda: waiting)
    tracked = tracker.record_arrival(dispatch(1), 10)
    tracker.record_first_token(tracked, 0)
    clock.now_s = 102.0  # two seconds alone
    other = tracker.record_arrival(None, 10)
    tracker.record_first_token(other, 0)
    clock.now_s = 106.0  # four seconds of two
    waiting = 1
    late = tracker.record_arrival(None, 10)
    clock.now_s = 108.0  # and two more, in which a third waits
    tracker.record_finished(tracked, 5)
    tracker.record_finished(other, 5)
    tracker.record_finished(late, 0, is_aborted=True)
    assert sent(tracker).finished[0].running == pytest.approx((2 * 1 + 4 * 2 + 2 * 2) / 8)


def test_an_answer_extends_the_cached_prompt(tracker: EngineTracker) -> None:
    """A finished answer adds the keys of the conversation's next turn."""
    tracked = tracker.record_arrival(dispatch(1, 1, 2, reply_start=b"tail" + b"|"), 100)
    tracker.record_first_token(tracked, 0)
    sent(tracker)
    reply = b"x" * 95
    tracker.record_finished(tracked, 19, [reply])
    update = sent(tracker)
    expected = extend(2, b"tail|" + reply, KEY_BYTES)
    assert len(expected) == 2
    assert set(unpack_keys(update.added)) == set(expected)
    # five bytes of the first block are the prompt's; an answer's token has five
    assert sorted(unpack_tokens(update.added_tokens)) == [107, 115]


def test_an_answer_to_a_prompt_without_keys_starts_at_its_seed(tracker: EngineTracker) -> None:
    """If the prompt fills no block, the chain of keys starts at the seed."""
    tracked = tracker.record_arrival(dispatch(1, reply_start=b"hi|"), 10)
    tracker.record_finished(tracked, 10, [b"y" * 50])
    assert list(unpack_keys(sent(tracker).added)) == list(extend(7, b"hi|" + b"y" * 37, KEY_BYTES))


def test_several_answers_each_extend_the_prompt(tracker: EngineTracker) -> None:
    """The answers of one request do not follow each other."""
    tracked = tracker.record_arrival(dispatch(1, 1, reply_start=b""), 50)
    tracker.record_first_token(tracked, 0)
    sent(tracker)
    replies = [b"a" * 80, b"b" * 40]
    tracker.record_finished(tracked, 24, replies)
    update = sent(tracker)
    tokens = dict(zip(unpack_keys(update.added), unpack_tokens(update.added_tokens), strict=True))
    first, second = (extend(1, reply, KEY_BYTES) for reply in replies)
    assert tokens == {first[0]: 58, first[1]: 66, second[0]: 58}


def test_an_answer_without_a_place_in_the_prompt_adds_no_keys(tracker: EngineTracker) -> None:
    """Without `reply_start` nothing is known of the next turn's prompt."""
    tracked = tracker.record_arrival(dispatch(1, 1), 50)
    tracker.record_first_token(tracked, 0)
    sent(tracker)
    tracker.record_finished(tracked, 24, [b"a" * 80])
    assert sent(tracker).added == b""


def test_an_abort_before_the_first_token_removes_its_keys(tracker: EngineTracker) -> None:
    """Its prompt was never computed, and its durations are unknown."""
    tracked = tracker.record_arrival(dispatch(3, 1, 2), 100)
    sent(tracker)
    tracker.record_finished(tracked, 0, is_aborted=True)
    update = sent(tracker)
    assert set(unpack_keys(update.dropped)) == {1, 2}
    (request,) = update.finished
    assert request.is_aborted
    assert (request.queue_s, request.prefill_s, request.decode_s) == (0, 0, 0)


def test_an_abort_after_the_first_token_keeps_its_keys(tracker: EngineTracker) -> None:
    """The computed prompt stays in the cache."""
    tracked = tracker.record_arrival(dispatch(3, 1, 2), 100)
    tracker.record_first_token(tracked, 0)
    sent(tracker)
    tracker.record_finished(tracked, 3, is_aborted=True)
    update = sent(tracker)
    assert update.dropped == b""
    assert update.finished[0].is_aborted


def test_a_pooled_request_leaves_its_prompt_in_the_cache(tracker: EngineTracker) -> None:
    """An embedding has neither tokens nor durations."""
    tracked = tracker.record_arrival(dispatch(3, 1, 2), 100)
    sent(tracker)
    tracker.record_pooled(tracked, 16)
    update = sent(tracker)
    assert update.dropped == b""
    assert update.load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=1000)
    (request,) = update.finished
    assert (request.cached_tokens, request.completion_tokens, request.prefill_s) == (16, 0, 0)
    assert not request.is_aborted


def test_only_the_first_end_of_a_request_counts(tracker: EngineTracker) -> None:
    """Nothing recorded after a request's end has an effect."""
    tracked = tracker.record_arrival(None, 10)
    tracker.record_first_token(tracked, 0)
    tracker.record_first_token(tracked, 5)
    tracker.record_finished(tracked, 1)
    sent(tracker)
    tracker.record_finished(tracked, 1)
    tracker.record_first_token(tracked, 0)
    tracker.record_pooled(tracked, 0)
    assert tracker.pop_update() is NO_CHANGE


def test_a_snapshot_holds_the_whole_state_and_leaves_changes_pending(
    tracker: EngineTracker,
) -> None:
    """It has keys, requests and load; the next update still holds the changes."""
    tracker.record_arrival(dispatch(5, 1, 2), 100)
    tracker.record_arrival(None, 10)
    snapshot = tracker.snapshot()
    assert snapshot.is_snapshot
    assert set(unpack_keys(snapshot.added)) == {1, 2}
    assert snapshot.accepted == [5]
    assert snapshot.load == tracker.load
    assert sent(tracker).accepted == [5]


def test_an_emptied_cache_drops_keys_not_in_use(tracker: EngineTracker) -> None:
    """Only the keys of running requests stay."""
    tracker.record_finished(tracker.record_arrival(dispatch(1, 1, 2), 100), 1)
    sent(tracker)
    tracker.record_arrival(dispatch(2, 1), 50)
    tracker.record_cache_reset()
    assert set(unpack_keys(sent(tracker).dropped)) == {2}


def test_an_engine_without_prefix_cache_holds_no_keys(clock: Clock) -> None:
    """The size of the KV cache does not matter then."""
    tracker = EngineTracker(FACTS, clock, holds_prefixes=False)
    tracked = tracker.record_arrival(dispatch(1, 1, 2, reply_start=b""), 100)
    tracker.record_first_token(tracked, 0)
    tracker.record_finished(tracked, 20, [b"z" * 100])
    update = sent(tracker)
    assert (update.added, update.dropped) == (b"", b"")
    assert tracker.snapshot().added == b""


def test_draining_causes_one_update_and_stays_in_all_later_ones(tracker: EngineTracker) -> None:
    """The start of the drain is a change; every later update repeats it."""
    tracker.record_draining()
    assert sent(tracker) == Update(is_draining=True)
    assert tracker.pop_update() is NO_CHANGE
    tracker.record_arrival(None, 1)
    assert sent(tracker).is_draining


def test_listeners_are_called_at_every_change(tracker: EngineTracker) -> None:
    """A listener is called for each step of a request, a drain and so on, until removed."""
    calls: list[str] = []
    step = ""

    def listener() -> None:
        calls.append(step)

    tracker.add_listener(listener)
    step = "arrive"
    tracked = tracker.record_arrival(None, 1)
    step = "start"
    tracker.record_first_token(tracked, 0)
    step = "finish"
    tracker.record_finished(tracked, 1)
    step = "notify"
    tracker.record_load_change()
    step = "forget"
    tracker.record_cache_reset()
    step = "drain"
    tracker.record_draining()
    assert calls == ["arrive", "start", "finish", "notify", "forget", "drain"]
    tracker.remove_listener(listener)
    tracker.record_arrival(None, 1)
    assert calls[-1] == "drain"


def test_invalid_keys_are_rejected(tracker: EngineTracker) -> None:
    """Half a key is an error and leaves no request behind."""
    with pytest.raises(ValueError, match="multiple of item size"):
        tracker.record_arrival(Dispatch(id=1, keys=b"1234567", key_bytes=1, prompt_bytes=1), 5)
    assert tracker.load.running == 0
