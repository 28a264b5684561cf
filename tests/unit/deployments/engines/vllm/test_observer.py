"""The observer of vLLM's requests, and what it records in the engine's tracker."""

import asyncio
from array import array
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass

import pytest

from deployments.engines.call import with_call_context
from deployments.engines.vllm.observer import FirstToken, RequestObserver, prompt_tokens
from gateway.asgi import Message, Receive, Scope, Send
from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.kvcache.prefix import extend
from gateway.telemetry.dispatch import DISPATCH, Dispatch
from gateway.telemetry.update import Finished, pack_keys, unpack_keys
from tests.unit.conftest import Clock
from tests.unit.tracked import KEY_BYTES, dispatch, engine_facts, finished, sent

FACTS = engine_facts(100_000)


@dataclass
class FakeTimes:
    """Times of vLLM's events."""

    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0


@dataclass
class FakeCompletion:
    """A completion, or a part of it."""

    text: str
    token_ids: Sequence[int] = ()
    index: int = 0
    finish_reason: str | None = None


@dataclass
class FakeOutput:
    """An output of vLLM."""

    outputs: list[FakeCompletion]
    finished: bool = False
    num_cached_tokens: int | None = 32
    metrics: FakeTimes | None = None


@dataclass
class FakePooled:
    """An output of vLLM for an embedding."""

    finished: bool = True
    num_cached_tokens: int = 16


@dataclass
class Outputs:
    """Outputs of a call, and whether it was closed."""

    items: Sequence[FakeOutput | Exception]
    is_closed: bool = False

    async def run(self) -> AsyncGenerator[FakeOutput, None]:
        """The call."""
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.is_closed = True


def delta(text: str, *, last: str | None = None, index: int = 0) -> FakeOutput:
    """A part of a completion, a token for each letter; `last`: its finish reason."""
    ids = [ord(letter) for letter in text]
    return FakeOutput([FakeCompletion(text, ids, index, last)], finished=last is not None)


PROMPT = {"type": "token", "prompt_token_ids": list(range(100))}


@pytest.fixture
def tracker(clock: Clock) -> EngineTracker:
    """The tracker that is fed."""
    tracker = EngineTracker(FACTS, clock)
    tracker.pop_update()
    return tracker


@pytest.fixture
def observer(tracker: EngineTracker) -> RequestObserver:
    """The observer under test."""
    return RequestObserver(tracker)


Call = Callable[[], Coroutine[None, None, None]]


async def request(call: Call, routed: Dispatch | None = None) -> None:
    """Make `call` in an HTTP request with that dispatch."""
    headers = [(DISPATCH, routed.encode())] if routed else []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(call())  # as frameworks do: in a context of its own

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Nobody listens."""

    await with_call_context(app)({"type": "http", "headers": headers}, receive, send)


async def answered(
    observer: RequestObserver, *items: FakeOutput | Exception, is_delta: bool = True
) -> list[FakeOutput]:
    """All outputs of an observed call."""
    calls = observer.generate(Outputs(items).run(), PROMPT, "request", is_delta=is_delta)
    return [output async for output in calls]


async def test_outputs_pass_unchanged(observer: RequestObserver) -> None:
    """Callers get the same objects in the same order."""
    outputs = [delta("a"), delta("b"), delta("", last="stop")]
    assert await answered(observer, *outputs) == outputs


@pytest.mark.parametrize("is_delta", [True, False])
async def test_an_answer_s_text_is_collected(
    observer: RequestObserver, tracker: EngineTracker, is_delta: bool
) -> None:
    """Whether outputs are parts or the whole so far; it follows the prompt in the cache."""
    text = "the answer to all of the questions, all"
    pieces = [text[:10], text[10:39]] if is_delta else [text[:10], text]
    outputs = [delta(pieces[0]), delta(pieces[1], last="stop")]

    async def call() -> None:
        await answered(observer, *outputs, is_delta=is_delta)

    await request(call, dispatch(3, 1, reply_start=b"|"))
    update = sent(tracker)
    assert set(unpack_keys(update.added)) == {1, *extend(1, b"|" + text.encode(), KEY_BYTES)}
    assert update.finished == [
        Finished(
            id=3,
            prompt_tokens=100,
            cached_tokens=32,
            completion_tokens=39,
            prompt_bytes=40,
            queue_s=0.0,
            prefill_s=0.0,
            decode_s=0.0,
            running=1.0,
        )
    ]


async def test_several_answers_are_collected_apart(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Parts of several completions come mixed, and are joined by index."""
    one, two = "1" * 39, "2" * 39
    last = FakeOutput(
        [FakeCompletion("1", [1], 0, "stop"), FakeCompletion("2", [2], 1, "stop")], finished=True
    )

    async def call() -> None:
        await answered(observer, delta(one[:-1]), delta(two[:-1], index=1), last)

    await request(call, dispatch(3, 1, reply_start=b"|"))
    update = sent(tracker)
    expected = [extend(1, b"|" + text.encode(), KEY_BYTES)[0] for text in (one, two)]
    assert set(unpack_keys(update.added)) == {1, *expected}
    assert update.finished[0].completion_tokens == 78


async def test_an_answer_s_token_ids_are_collected(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """If the prompt came as token ids, the answer's ids follow it, four bytes each."""
    of_ids = Dispatch(
        id=3, key_bytes=KEY_BYTES, prompt_bytes=400, seed=7, reply_start=b"", is_token_ids=True
    )
    first, second = delta("abcde"), delta("fghij", last="length")

    async def call() -> None:
        await answered(observer, first, second)

    await request(call, of_ids)
    ids = array("I", list(b"abcdefghij")).tobytes()
    assert list(unpack_keys(sent(tracker).added)) == list(extend(7, ids, KEY_BYTES))


async def test_the_dispatch_goes_to_the_first_call(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Of several calls in a request, only the first has the router's dispatch."""
    priorities = []

    async def call() -> None:
        priorities.append(observer.priority)
        first = observer.generate(
            Outputs([delta("", last="stop")]).run(), PROMPT, "0", is_delta=True
        )
        await answered(observer, delta("", last="stop"))
        _ = [output async for output in first]
        priorities.append(observer.priority)

    await request(call, dispatch(8))
    assert [request.id for request in sent(tracker).finished] == [0, 8]
    assert priorities == [1008, 1008]
    await request(call)
    assert [request.id for request in sent(tracker).finished] == [0, 0]
    assert priorities[2:] == [0, 0]
    assert observer.priority == 0


async def test_requests_at_once_keep_their_dispatches(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Concurrent requests do not mix them up."""

    async def call() -> None:
        await asyncio.sleep(0)
        await answered(observer, delta("x", last="stop"))

    await asyncio.gather(*(request(call, dispatch(n)) for n in range(1, 9)))
    assert {request.id for request in sent(tracker).finished} == set(range(1, 9))


async def test_a_call_closed_early_is_aborted(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """A call closed before its last output counts as aborted, and closes the engine's."""
    outputs = Outputs([delta("a"), delta("b", last="stop")])
    call = observer.generate(outputs.run(), PROMPT, "request", is_delta=True)
    await anext(call)
    await call.aclose()
    assert outputs.is_closed
    request_ = finished(tracker)
    assert request_.is_aborted
    assert request_.completion_tokens == 1


async def test_the_last_output_finishes_a_request(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Even if the caller does not ask for another."""
    call = observer.generate(
        Outputs([delta("a", last="stop")]).run(), PROMPT, "request", is_delta=True
    )
    await anext(call)
    assert not finished(tracker).is_aborted
    await call.aclose()
    assert tracker.pop_update() is None


async def test_an_engine_s_error_is_passed_on_and_aborts(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """The caller gets it, and the request counts as aborted."""
    with pytest.raises(RuntimeError, match="no memory"):
        await answered(observer, RuntimeError("no memory"))
    assert finished(tracker).is_aborted


async def test_an_output_that_says_abort_counts_as_aborted(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Its last output is not a whole answer."""
    await answered(observer, delta("a"), delta("", last="abort"))
    assert finished(tracker).is_aborted


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_request_without_a_token_leaves_no_keys(
    observer: RequestObserver, tracker: EngineTracker, reason: str
) -> None:
    """An engine that aborts or fails a request before its first token has not cached its prompt."""
    keys = extend(7, bytes(10 * KEY_BYTES))
    routed = Dispatch(id=3, key_bytes=KEY_BYTES, prompt_bytes=10 * KEY_BYTES, keys=pack_keys(keys))

    async def call() -> None:
        await answered(observer, delta("", last=reason))

    await request(call, routed)

    assert finished(tracker).is_aborted
    assert not tracker.snapshot().added


async def test_vllms_own_times_are_used(
    observer: RequestObserver, tracker: EngineTracker, clock: Clock
) -> None:
    """The start and the first token have the times that vLLM reports."""

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        clock.now_s = 110.0
        whole = FakeCompletion("all", [1, 2, 3])
        yield FakeOutput([whole], finished=True, metrics=FakeTimes(101.0, 103.0))

    async for _ in observer.generate(outputs(), PROMPT, "request", is_delta=False):
        pass
    request_ = finished(tracker)
    assert (request_.queue_s, request_.prefill_s, request_.decode_s) == (1.0, 2.0, 7.0)


async def test_a_request_without_output_is_seen_to_start(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """Once it decodes, its prefill is no longer pending, even without streaming."""
    asked: list[str] = []

    def find(request_id: str) -> FirstToken | None:
        asked.append(request_id)
        return FirstToken(48, None) if len(asked) > 1 else None

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        for pending in (100, 0, 0):
            observer.record_step(0, 0.0, find)
            assert tracker.load.pending_tokens == pending
        yield delta("x", last="stop")

    async for _ in observer.generate(outputs(), PROMPT, "mine", is_delta=False):
        pass
    observer.record_step(0, 0.0, find)
    assert asked == ["mine", "mine"]
    assert finished(tracker).cached_tokens == 48


def test_a_changed_queue_is_reported(observer: RequestObserver, tracker: EngineTracker) -> None:
    """After a step in which another number of requests waits."""
    heard: list[None] = []
    tracker.add_listener(lambda: heard.append(None))
    for waiting in (0, 0, 2, 2, 0):
        observer.record_step(waiting, 0.0, lambda _: None)
    assert len(heard) == 2


def test_a_notable_change_of_the_cache_is_reported(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """After a step in which notably more or less of it is in use."""
    heard: list[None] = []
    tracker.add_listener(lambda: heard.append(None))
    for used_share in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.5, 0.02):
        observer.record_step(0, used_share, lambda _: None)
    assert len(heard) == 3


async def test_steps_and_outputs_are_progress(
    observer: RequestObserver, tracker: EngineTracker, clock: Clock
) -> None:
    """An engine that steps or gives an output has not stalled."""
    stalls: list[float] = []

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        for text in "abc":
            clock.now_s += 5
            yield delta(text)
        clock.now_s += 5
        stalls.append(tracker.stalled_s)
        observer.record_step(0, 0.0, lambda _: None)
        stalls.append(tracker.stalled_s)

    async for output in observer.generate(outputs(), PROMPT, "request", is_delta=True):
        assert output.outputs
        stalls.append(tracker.stalled_s)
    assert stalls == [0, 0, 0, 5, 0]


async def test_a_pooling_request_is_reported(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """With its prompt tokens and its cached tokens."""

    async def outputs() -> AsyncGenerator[FakePooled, None]:
        yield FakePooled()

    async def call() -> None:
        passed = [output async for output in observer.encode(outputs(), PROMPT)]
        assert passed == [FakePooled()]

    await request(call, dispatch(4, 1, 2, reply_start=b"|"))
    update = sent(tracker)
    assert set(unpack_keys(update.added)) == {1, 2}
    (request_,) = update.finished
    assert (request_.id, request_.prompt_tokens, request_.cached_tokens) == (4, 100, 16)
    assert not request_.is_aborted


async def test_a_pooling_request_without_output_is_aborted(
    observer: RequestObserver, tracker: EngineTracker
) -> None:
    """It ended without its vector."""

    async def outputs() -> AsyncGenerator[FakePooled, None]:
        for vector in list[FakePooled]():
            yield vector
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        await anext(observer.encode(outputs(), PROMPT))
    assert finished(tracker).is_aborted


class BrokenReport(EngineTracker):
    """Tracker that fails at an arrival."""

    def record_arrival(self, *_: object, **__: object) -> TrackedRequest:
        """Fail, the first time."""
        raise RuntimeError("broken")


class FinallyBrokenReport(EngineTracker):
    """Tracker that fails at the first token and at the end."""

    def record_first_token(self, *_: object) -> None:
        """Fail."""
        raise RuntimeError("broken")

    def record_finished(self, *_: object, **__: object) -> None:
        """Fail."""
        raise RuntimeError("broken")


@pytest.mark.parametrize("kind", [BrokenReport, FinallyBrokenReport])
async def test_errors_of_telemetry_do_not_reach_requests(
    kind: type[EngineTracker], caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged, and the answer is complete."""
    observer = RequestObserver(kind(FACTS, Clock()))
    outputs = [delta("a"), delta("b", last="stop")]
    assert await answered(observer, *outputs) == outputs
    assert "engine telemetry failed" in caplog.text


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (PROMPT, 100),
        ({"type": "embeds", "prompt_embeds": [[0.0]] * 3}, 3),
        ({"type": "embeds", "prompt_embeds": [[0.0]] * 3, "prompt_token_ids": [1, 2]}, 2),
        ({"encoder_prompt": PROMPT, "decoder_prompt": {"prompt_token_ids": [1]}}, 1),
        ("a text", 0),
        (None, 0),
    ],
)
def test_a_prompt_s_length_is_known_in_every_form(prompt: object, tokens: int) -> None:
    """In every form in which vLLM passes prompts on; 0 if it is unknown."""
    assert prompt_tokens(prompt) == tokens
