"""What a call takes is recorded once: all its parts, when it has left, however it ended."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.engine_telemetry.usage_meter import CallUsage
from gateway.telemetry.dispatch import Dispatch, Origin
from gateway.telemetry.usage import UsageRecord
from tests.unit.tracked import engine_facts

FACTS = msgspec.structs.replace(engine_facts(10_000), devices=2, model="m", step_tokens=100)


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def opened(tracker: EngineTracker, number: int = 1, **origin: object) -> CallUsage:
    """A call that has arrived."""
    fields = Origin(**{"project": "p", **origin})  # type: ignore[arg-type]
    call = tracker.usage.open_call(Dispatch(id=number, origin=fields))
    assert call is not None
    return call


def records(tracker: EngineTracker) -> list[UsageRecord]:
    """Records that routers have not been sent."""
    update = tracker.pop_update()
    return update.usage if update else []


def test_a_call_of_nobody_is_not_counted() -> None:
    """Without an origin there is nothing to report."""
    tracker = EngineTracker(FACTS, SetClock())
    assert tracker.usage.open_call(Dispatch(id=1)) is None
    assert tracker.usage.open_call(None) is None


def test_all_parts_of_a_call_are_one_record_once_it_has_left() -> None:
    """Two prompts, one of them with two answers: a shared prompt counts once."""
    clock = SetClock()
    tracker = EngineTracker(FACTS, clock)
    call = opened(tracker)
    first = tracker.record_arrival(call.dispatch, 10, call=call)
    same = tracker.record_arrival(None, 10, call=call, is_same_prompt=True)
    other = tracker.record_arrival(None, 7, call=call)
    for part in (first, same, other):
        tracker.record_first_token(part, 4)
    tracker.record_finished(first, 3)
    tracker.record_finished(same, 5)
    tracker.usage.close_call(call)
    assert records(tracker) == []

    tracker.record_finished(other, 2, is_aborted=True)

    (record,) = records(tracker)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (17, 8, 10)
    assert (record.seq, record.id, record.model, record.is_aborted) == (1, 1, "m", True)


def test_a_call_that_the_engine_refuses_is_recorded_without_tokens() -> None:
    """Its reservation ends with it."""
    tracker = EngineTracker(FACTS, SetClock())
    call = opened(tracker, reserved_tokens=9)
    update = tracker.pop_update()
    assert update is not None
    assert [(each.id, each.tokens) for each in update.reserved] == [(1, 9)]
    assert [each.id for each in tracker.snapshot().reserved] == [1]

    tracker.usage.close_call(call)

    assert [each.prompt_tokens for each in records(tracker)] == [0]
    assert tracker.snapshot().reserved == []


def test_a_prompt_that_passed_others_and_was_given_up_is_counted() -> None:
    """A client that leaves just before the first token has had its prompt computed, and cached."""
    facts = msgspec.structs.replace(FACTS, supports_priority=True)
    tracker = EngineTracker(facts, SetClock(), waiting=lambda: 1)
    calls = []
    for number, priority in ((1, 5_000), (2, 20)):
        dispatch = Dispatch(id=number, origin=Origin(project="p"), priority=priority)
        call = tracker.usage.open_call(dispatch)
        assert call is not None
        calls.append((call, tracker.record_arrival(dispatch, 900, call=call)))

    for call, part in reversed(calls):
        tracker.record_finished(part, 0, is_aborted=True)
        tracker.usage.close_call(call)

    assert [(each.id, each.prompt_tokens) for each in records(tracker)] == [(2, 900), (1, 0)]


def test_a_prompt_that_waited_and_was_given_up_is_not_counted() -> None:
    """The engine has not begun with it; one that was being computed counts."""
    waiting = 1
    tracker = EngineTracker(FACTS, SetClock(), lambda: waiting)
    calls = [opened(tracker, number) for number in (1, 2)]
    parts = [tracker.record_arrival(each.dispatch, 10, call=each) for each in calls]
    for call, part in zip(calls, parts, strict=True):
        tracker.usage.close_call(call)
        if call is calls[1]:
            tracker.record_finished(part, 0, is_aborted=True)
    waiting = 0
    tracker.record_finished(parts[0], 0, is_aborted=True)

    assert [(each.id, each.prompt_tokens) for each in records(tracker)] == [(2, 0), (1, 10)]


def test_an_embedding_is_counted() -> None:
    """It has no answer made of tokens."""
    clock = SetClock()
    tracker = EngineTracker(FACTS, clock)
    call = opened(tracker)
    part = tracker.record_arrival(call.dispatch, 12, call=call)
    clock.now_s += 0.5
    tracker.record_pooled(part, 4)
    tracker.usage.close_call(call)

    (record,) = records(tracker)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (12, 4, 0)
    assert record.device_s == 2 * 0.5


def test_an_adapter_is_named_beside_its_model() -> None:
    """The dispatch says which one answers."""
    tracker = EngineTracker(FACTS, SetClock())
    tracker.usage.close_call(opened(tracker, 1, model="m"))
    tracker.usage.close_call(opened(tracker, 2, model="tuned"))
    assert [(each.model, each.adapter) for each in records(tracker)] == [("m", ""), ("m", "tuned")]


def test_one_request_alone_gets_all_the_time_that_it_took() -> None:
    """Prefill and decoding, times the devices."""
    clock = SetClock()
    tracker = EngineTracker(FACTS, clock)
    call = opened(tracker)
    part = tracker.record_arrival(call.dispatch, 50, call=call)
    clock.now_s += 1.0
    tracker.record_first_token(part, 0)
    clock.now_s += 3.0
    tracker.record_finished(part, 9)
    tracker.usage.close_call(call)

    assert [each.device_s for each in records(tracker)] == [2 * 4.0]


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "first", "end", "abort"]), st.integers(0, 5)),
        max_size=60,
    ),
    st.lists(st.floats(0, 2), min_size=60, max_size=60),
)
def test_the_shares_of_all_requests_are_at_most_the_time_that_passed(
    events: list[tuple[str, int]], waits: list[float]
) -> None:
    """However they overlap, and however many are aborted."""
    clock = SetClock()
    tracker = EngineTracker(FACTS, clock)
    running: dict[TrackedRequest, CallUsage] = {}
    total_s = passed_s = 0.0
    for number, ((event, which), wait_s) in enumerate(zip(events, waits, strict=False)):
        if running:
            passed_s += wait_s
        clock.now_s += wait_s
        if event == "arrive":
            call = opened(tracker, number + 1)
            tracker.usage.close_call(call)
            part = tracker.record_arrival(call.dispatch, 40 * (which + 1), which + 1, call=call)
            running[part] = call
        elif running:
            part = list(running)[which % len(running)]
            if event == "first":
                tracker.record_first_token(part, which)
            else:
                tracker.record_finished(part, which, is_aborted=event == "abort")
                del running[part]
        total_s += sum(record.device_s for record in records(tracker))
    for part in running:
        tracker.record_finished(part, 0, is_aborted=True)
    total_s += sum(record.device_s for record in records(tracker))

    assert total_s <= passed_s * FACTS.devices * (1 + 1e-9) + 1e-9
