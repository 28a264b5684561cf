"""An engine's account of its requests: load, what they left in the cache, what they came to."""

import pytest

from gateway.engine_telemetry.tracker import EngineTracker
from gateway.kvcache.prefix import extend
from gateway.kvcache.prefix_index import packed, unpacked, unpacked_tokens
from gateway.telemetry import Dispatch, EngineFacts, Finished, Load, Update
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake",
    routes=(),
    kv_tokens=1000,
    block_size=16,
    max_sequences=8,
    max_model_len=1000,
)
KEY_BYTES = 40
NOTHING_NEW = None


@pytest.fixture
def report(clock: Clock) -> EngineTracker:
    """The report of an engine with nothing to do."""
    report = EngineTracker(FACTS, clock)
    report.take()
    return report


def dispatch(number: int, *keys: int, rest: bytes | None = None) -> Dispatch:
    """A request's, whose canonical prompt has 40 bytes a key."""
    return Dispatch(
        id=number,
        keys=packed(keys),
        key_bytes=KEY_BYTES,
        prompt_bytes=len(keys) * KEY_BYTES,
        seed=7,
        reply_start=rest,
    )


def taken(report: EngineTracker) -> Update:
    """What the report has to tell; there must be something."""
    update = report.take()
    assert update is not None
    return update


def finished(report: EngineTracker) -> Finished:
    """The one request that has finished."""
    (request,) = taken(report).finished
    return request


def test_nothing_happens_nothing_is_told(report: EngineTracker) -> None:
    """Only changes are told, and each of them once."""
    assert report.take() is NOTHING_NEW
    report.arrive(None, 10)
    assert taken(report) == Update(
        load=Load(running=1, waiting=0, pending_tokens=10, free_tokens=990)
    )
    assert report.take() is NOTHING_NEW


def test_free_tokens_are_the_engines_word(clock: Clock) -> None:
    """What the engine says counts, as long as it has a request; then everything is free."""
    report = EngineTracker(FACTS, clock, lambda: 0, lambda: 640)
    assert report.load.free_tokens == 1000
    tracked = report.arrive(None, 10)
    assert report.load.free_tokens == 640
    report.finish(tracked, 1)
    assert report.load.free_tokens == 1000


def test_work_that_does_not_get_on(report: EngineTracker, clock: Clock) -> None:
    """Time without progress counts from the first request, and ends with the last."""
    clock.now_s += 50
    assert report.stalled_s == 0
    tracked = report.arrive(None, 10)
    clock.now_s += 2
    report.arrive(None, 10)
    assert report.stalled_s == 2
    report.progress()
    assert report.stalled_s == 0
    clock.now_s += 3
    report.start(tracked, 0)
    assert report.stalled_s == 0
    clock.now_s += 4
    report.finish(tracked, 1, is_aborted=True)
    assert report.stalled_s == 4
    clock.now_s += 1
    pooled = report.arrive(None, 10)
    report.pool(pooled, 0)
    assert report.stalled_s == 0


def test_a_stall_is_told_but_no_news(report: EngineTracker, clock: Clock) -> None:
    """Every frame says how long, and none is sent for its sake."""
    tracked = report.arrive(None, 10)
    assert taken(report).stalled_s == 0
    clock.now_s += 7
    assert report.take() is NOTHING_NEW
    assert report.beat() == Update(stalled_s=7)
    assert report.snapshot().stalled_s == 7
    clock.now_s += 1
    report.arrive(None, 10)
    assert taken(report).stalled_s == 8
    report.start(tracked, 0)
    report.drain()
    taken(report)
    assert report.beat() == Update(is_draining=True)


def test_a_beat_has_what_is_new(report: EngineTracker) -> None:
    """Nothing that has changed waits for another frame, and all is told once."""
    report.arrive(dispatch(5), 10)
    assert report.beat().accepted == [5]
    assert report.take() is NOTHING_NEW


def test_an_arrival_is_load_and_holdings(report: EngineTracker) -> None:
    """A request counts from its arrival: its tokens as pending, its keys as held."""
    report.arrive(dispatch(5, 1, 2), 100)
    update = taken(report)
    assert update.accepted == [5]
    assert update.load == Load(running=1, waiting=0, pending_tokens=100, free_tokens=900)
    assert list(unpacked(update.added)) == [2, 1]
    assert list(unpacked_tokens(update.added_tokens)) == [100, 50]


def test_cached_tokens_are_not_pending(report: EngineTracker) -> None:
    """A prompt whose beginning is held waits for the rest of it only, until its first token."""
    first = report.arrive(dispatch(1, 1, 2), 100)
    report.start(first, 0)
    second = report.arrive(dispatch(2, 1, 2, 3), 150)
    assert report.load.pending_tokens == 50
    report.start(second, 96)
    assert report.load.pending_tokens == 0
    report.finish(first, 1)
    report.finish(second, 1)
    assert report.load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=1000)


def test_waiting_requests_do_not_run(clock: Clock) -> None:
    """What the engine says of its queue divides the requests into waiting and running."""
    waiting = 0
    report = EngineTracker(FACTS, clock, lambda: waiting)
    for _ in range(3):
        report.arrive(None, 10)
    waiting = 2
    assert (report.load.running, report.load.waiting) == (1, 2)
    waiting = 9  # the engine's count is older than what has left since
    assert (report.load.running, report.load.waiting) == (0, 3)


def test_the_times_of_a_request(report: EngineTracker, clock: Clock) -> None:
    """Queue, prefill and decode follow each other without a gap."""
    tracked = report.arrive(dispatch(9, 1, 2), 100)
    clock.now_s = 103.0
    report.start(tracked, 48, scheduled_s=101.0)
    clock.now_s = 107.0
    report.finish(tracked, 20)
    assert finished(report) == Finished(
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


def test_a_first_token_may_be_heard_of_late(report: EngineTracker, clock: Clock) -> None:
    """An engine that gives no output before the end says then when the first token came."""
    tracked = report.arrive(None, 100)
    clock.now_s = 110.0
    report.start(tracked, 0, scheduled_s=101.0, first_token_s=104.0)
    report.finish(tracked, 20)
    request = finished(report)
    assert (request.queue_s, request.prefill_s, request.decode_s) == (1.0, 3.0, 6.0)
    assert request.running == pytest.approx(1.0)


def test_times_from_another_clock_are_kept_in_order(report: EngineTracker, clock: Clock) -> None:
    """A clock that is off makes no negative durations."""
    tracked = report.arrive(None, 100)
    clock.now_s = 101.0
    report.start(tracked, 0, scheduled_s=99.0, first_token_s=200.0)
    report.finish(tracked, 1)
    request = finished(report)
    assert (request.queue_s, request.prefill_s, request.decode_s) == (0.0, 1.0, 0.0)


def test_running_is_the_mean_over_the_decode(clock: Clock) -> None:
    """Who ran beside a request counts for as long as it did; who waited does not."""
    waiting = 0
    report = EngineTracker(FACTS, clock, lambda: waiting)
    tracked = report.arrive(dispatch(1), 10)
    report.start(tracked, 0)
    clock.now_s = 102.0  # two seconds alone
    other = report.arrive(None, 10)
    report.start(other, 0)
    clock.now_s = 106.0  # four seconds of two
    waiting = 1
    late = report.arrive(None, 10)
    clock.now_s = 108.0  # and two more, in which a third waits
    report.finish(tracked, 5)
    report.finish(other, 5)
    report.finish(late, 0, is_aborted=True)
    assert taken(report).finished[0].running == pytest.approx((2 * 1 + 4 * 2 + 2 * 2) / 8)


def test_the_answer_extends_the_prompt(report: EngineTracker) -> None:
    """A finished answer adds the keys that the next turn of the conversation will have."""
    tracked = report.arrive(dispatch(1, 1, 2, rest=b"tail" + b"|"), 100)
    report.start(tracked, 0)
    taken(report)
    reply = b"x" * 95
    report.finish(tracked, 19, [reply])
    update = taken(report)
    expected = extend(2, b"tail|" + reply, KEY_BYTES)
    assert len(expected) == 2
    assert set(unpacked(update.added)) == set(expected)
    # five bytes of the first block are the prompt's; an answer's token has five
    assert sorted(unpacked_tokens(update.added_tokens)) == [107, 115]


def test_an_answer_to_a_short_prompt_has_keys_too(report: EngineTracker) -> None:
    """Where the prompt fills no block, the chain begins at its seed."""
    tracked = report.arrive(dispatch(1, rest=b"hi|"), 10)
    report.finish(tracked, 10, [b"y" * 50])
    assert list(unpacked(taken(report).added)) == list(extend(7, b"hi|" + b"y" * 37, KEY_BYTES))


def test_several_answers_all_begin_at_the_prompt(report: EngineTracker) -> None:
    """Each of the answers is a continuation of its own."""
    tracked = report.arrive(dispatch(1, 1, rest=b""), 50)
    report.start(tracked, 0)
    taken(report)
    replies = [b"a" * 80, b"b" * 40]
    report.finish(tracked, 24, replies)
    update = taken(report)
    tokens = dict(zip(unpacked(update.added), unpacked_tokens(update.added_tokens), strict=True))
    first, second = (extend(1, reply, KEY_BYTES) for reply in replies)
    assert tokens == {first[0]: 58, first[1]: 66, second[0]: 58}


def test_a_prompt_that_no_answer_follows(report: EngineTracker) -> None:
    """Without a place for the reply, it leaves no keys."""
    tracked = report.arrive(dispatch(1, 1), 50)
    report.start(tracked, 0)
    taken(report)
    report.finish(tracked, 24, [b"a" * 80])
    assert taken(report).added == b""


def test_an_abort_before_the_first_token(report: EngineTracker) -> None:
    """What it brought is not there; its durations are not known."""
    tracked = report.arrive(dispatch(3, 1, 2), 100)
    taken(report)
    report.finish(tracked, 0, is_aborted=True)
    update = taken(report)
    assert set(unpacked(update.dropped)) == {1, 2}
    (request,) = update.finished
    assert request.is_aborted
    assert (request.queue_s, request.prefill_s, request.decode_s) == (0, 0, 0)


def test_an_abort_after_the_first_token(report: EngineTracker) -> None:
    """What was computed stays in the cache."""
    tracked = report.arrive(dispatch(3, 1, 2), 100)
    report.start(tracked, 0)
    taken(report)
    report.finish(tracked, 3, is_aborted=True)
    update = taken(report)
    assert update.dropped == b""
    assert update.finished[0].is_aborted


def test_a_pooled_request_leaves_its_prompt(report: EngineTracker) -> None:
    """An embedding has no tokens, no durations, and its prompt in the cache."""
    tracked = report.arrive(dispatch(3, 1, 2), 100)
    taken(report)
    report.pool(tracked, 16)
    update = taken(report)
    assert update.dropped == b""
    assert update.load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=1000)
    (request,) = update.finished
    assert (request.cached_tokens, request.completion_tokens, request.prefill_s) == (16, 0, 0)
    assert not request.is_aborted


def test_an_end_counts_once(report: EngineTracker) -> None:
    """Whatever is told of a request after its end changes nothing."""
    tracked = report.arrive(None, 10)
    report.start(tracked, 0)
    report.start(tracked, 5)
    report.finish(tracked, 1)
    taken(report)
    report.finish(tracked, 1)
    report.start(tracked, 0)
    report.pool(tracked, 0)
    assert report.take() is NOTHING_NEW


def test_a_snapshot_is_all_there_is_to_know(report: EngineTracker) -> None:
    """It has the keys, the requests and the load, and leaves the changes to be taken."""
    report.arrive(dispatch(5, 1, 2), 100)
    report.arrive(None, 10)
    snapshot = report.snapshot()
    assert snapshot.is_snapshot
    assert set(unpacked(snapshot.added)) == {1, 2}
    assert snapshot.accepted == [5]
    assert snapshot.load == report.load
    assert taken(report).accepted == [5]


def test_an_emptied_cache_is_told(report: EngineTracker) -> None:
    """What no running request uses is gone."""
    report.finish(report.arrive(dispatch(1, 1, 2), 100), 1)
    taken(report)
    report.arrive(dispatch(2, 1), 50)
    report.forget()
    assert set(unpacked(taken(report).dropped)) == {2}


def test_an_engine_that_keeps_no_prefixes(clock: Clock) -> None:
    """Without a prefix cache nothing is ever held, whatever the size of the KV cache."""
    report = EngineTracker(FACTS, clock, holds_prefixes=False)
    tracked = report.arrive(dispatch(1, 1, 2, rest=b""), 100)
    report.start(tracked, 0)
    report.finish(tracked, 20, [b"z" * 100])
    update = taken(report)
    assert (update.added, update.dropped) == (b"", b"")
    assert report.snapshot().added == b""


def test_draining_is_told_once_and_for_ever(report: EngineTracker) -> None:
    """The drain is news when it begins; every later frame says it again."""
    report.drain()
    assert taken(report) == Update(is_draining=True)
    assert report.take() is NOTHING_NEW
    report.arrive(None, 1)
    assert taken(report).is_draining


def test_listeners_hear_of_every_change(report: EngineTracker) -> None:
    """A listener is called for each step of a request, the drain and the rest, until it leaves."""
    heard: list[str] = []
    step = ""

    def listener() -> None:
        heard.append(step)

    report.watch(listener)
    step = "arrive"
    tracked = report.arrive(None, 1)
    step = "start"
    report.start(tracked, 0)
    step = "finish"
    report.finish(tracked, 1)
    step = "notify"
    report.notify()
    step = "forget"
    report.forget()
    step = "drain"
    report.drain()
    assert heard == ["arrive", "start", "finish", "notify", "forget", "drain"]
    report.unwatch(listener)
    report.arrive(None, 1)
    assert heard[-1] == "drain"


def test_keys_that_are_none_are_refused(report: EngineTracker) -> None:
    """Half a key is an error, and leaves no request behind."""
    with pytest.raises(ValueError, match="multiple of item size"):
        report.arrive(Dispatch(id=1, keys=b"1234567", key_bytes=1, prompt_bytes=1), 5)
    assert report.load.running == 0
