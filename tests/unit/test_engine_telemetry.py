"""What an engine tells its routers: the stream on a real socket, and the calls it tells of."""

import asyncio
import logging
import socket
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from deployments.engines.asgi import send_json
from deployments.engines.call import with_call_context
from deployments.engines.control_routes import BACKLOG_BYTES, KEEP_ALIVE_S
from deployments.engines.server import EngineServer
from deployments.engines.vllm.observer import FirstToken, RequestObserver, prompt_tokens
from gateway.asgi import Message, Receive, Scope, Send
from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.kvcache.prefix import extend
from gateway.telemetry import (
    DISPATCH,
    TELEMETRY_PATH,
    Dispatch,
    EngineFacts,
    Finished,
    Update,
    UpdateReader,
    pack_keys,
    unpack_keys,
)
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake",
    routes=(),
    kv_tokens=100_000,
    block_size=16,
    max_sequences=8,
    max_model_len=1000,
)
KEY_BYTES = 40


class FakeEngine:
    """Answers everything with its path; what it tells is the test's to say."""

    facts = FACTS

    def __init__(self) -> None:
        self.clock = Clock()
        self.report = EngineTracker(FACTS, self.clock)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send_json(send, 200, scope["path"].encode())

    async def check(self) -> None:
        """Be well."""

    async def stop(self) -> None:
        """Hold nothing, release nothing."""

    def serve(self, number: int, *keys: int) -> None:
        """Take and finish a request."""
        tracked = self.report.arrive(dispatch(number, *keys), 10)
        self.report.start(tracked, 0)
        self.report.finish(tracked, 1)


class Listener:
    """A router's side of one subscription, on a bare socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = b""
        self._reader = reader
        self._writer = writer
        self._updates = UpdateReader()
        self._frames: list[Update] = []

    async def read_head(self) -> None:
        """Take the response's head."""
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).lower()

    async def hear(self) -> Update:
        """The next frame."""
        while not self._frames:
            self._frames += self._updates.feed(await self._chunk())
        return self._frames.pop(0)

    async def hear_finished(self, count: int) -> list[int]:
        """The ids of the next requests that have finished."""
        ids: list[int] = []
        while len(ids) < count:
            ids += [request.id for request in (await self.hear()).finished]
        return ids

    async def hear_end(self) -> None:
        """The proper end of the stream."""
        assert await self._chunk() == b""

    async def read_to_the_break(self) -> None:
        """Read until the connection is closed, which must be in the middle of the stream."""
        try:
            while await self._chunk():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        pytest.fail("the stream came to a proper end")

    async def leave(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]


@dataclass
class Served:
    """An engine with its server, and those who listen to it."""

    engine: FakeEngine
    server: EngineServer
    listeners: list[Listener] = field(default_factory=list)

    async def listen(self, method: str = "GET") -> Listener:
        """Subscribe, as far as the response's head."""
        reader, writer = await asyncio.open_connection(sock=self._connect())
        head = f"{method} {TELEMETRY_PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n"
        writer.write(f"{head}authorization: Bearer {self.server.key}\r\n\r\n".encode())
        listener = Listener(reader, writer)
        self.listeners.append(listener)
        await listener.read_head()
        return listener

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((self.server.host, self.server.port))
        sock.setblocking(False)
        return sock


@asynccontextmanager
async def served(
    keep_alive_s: float = KEEP_ALIVE_S, backlog_bytes: int = BACKLOG_BYTES
) -> AsyncIterator[Served]:
    """A running server of a fake engine."""
    engine = FakeEngine()
    server = EngineServer(engine, "127.0.0.1", keep_alive_s, backlog_bytes)
    await server.start()
    this = Served(engine, server)
    try:
        yield this
    finally:
        for listener in this.listeners:
            await listener.leave()
        await server.stop()


def dispatch(number: int, *keys: int) -> Dispatch:
    """A request's, whose prompt has 40 bytes a key."""
    return Dispatch(
        id=number,
        keys=pack_keys(keys),
        key_bytes=KEY_BYTES,
        prompt_bytes=len(keys) * KEY_BYTES,
        seed=7,
        reply_start=b"|",
        priority=1000 + number,
    )


async def test_a_subscriber_gets_a_snapshot_and_then_changes() -> None:
    """A listener learns what was before it came, and then of every change, once."""
    async with served() as this:
        this.engine.serve(1, 11)
        listener = await this.listen()
        assert b"200 ok" in listener.head
        assert b"content-type: application/octet-stream" in listener.head
        assert b"transfer-encoding: chunked" in listener.head

        snapshot = await listener.hear()
        assert snapshot.is_snapshot
        assert list(unpack_keys(snapshot.added)) == [11]
        assert snapshot.finished == []

        this.engine.serve(2, 12)
        update = await listener.hear()
        assert not update.is_snapshot
        assert list(unpack_keys(update.added)) == [12]
        assert update.accepted == [2]
        assert [request.id for request in update.finished] == [2]


async def test_frames_are_a_period_apart() -> None:
    """Changes in quick succession share a frame: the first is sent at once, the others together."""
    async with served() as this:
        listener = await this.listen()
        await listener.hear()
        this.engine.serve(1)
        first = await listener.hear()
        assert [request.id for request in first.finished] == [1]
        for number in range(2, 6):
            this.engine.serve(number)
            await asyncio.sleep(0)
        second = await listener.hear()
        assert [request.id for request in second.finished] == [2, 3, 4, 5]


async def test_only_keep_alives_are_sent_without_changes() -> None:
    """In a quiet time there are empty frames only, so that a dead peer is noticed."""
    async with served(keep_alive_s=0.01) as this:
        listener = await this.listen()
        await listener.hear()
        assert [await listener.hear() for _ in range(3)] == [Update()] * 3
        this.engine.report.drain()
        assert [await listener.hear() for _ in range(3)] == [Update(is_draining=True)] * 3


async def test_a_stall_shows_while_nothing_happens() -> None:
    """Frames without news say how long the engine has not got on with its work."""
    async with served(keep_alive_s=0.01) as this:
        listener = await this.listen()
        await listener.hear()
        this.engine.report.arrive(dispatch(1), 10)
        this.engine.clock.now_s += 30
        while (await listener.hear()).stalled_s != 30:
            pass
        this.engine.report.progress()
        while (await listener.hear()).stalled_s:
            pass


async def test_a_second_subscriber_causes_no_gap_for_the_first() -> None:
    """Its snapshot has what the first is told in a frame; both hear the same from then on."""
    async with served() as this:
        first = await this.listen()
        await first.hear()
        for number in range(1, 20):
            this.engine.serve(number, number)
        second = await this.listen()
        snapshot = await second.hear()
        assert snapshot.is_snapshot
        assert set(unpack_keys(snapshot.added)) == set(range(1, 20))
        this.engine.serve(20, 20)

        assert await first.hear_finished(20) == list(range(1, 21))
        assert await second.hear_finished(1) == [20]


async def test_a_subscriber_that_leaves_does_not_affect_the_others() -> None:
    """The stream goes on for those who stay, and begins anew for those who come back."""
    async with served() as this:
        first, second = await this.listen(), await this.listen()
        await first.hear()
        await second.hear()
        await first.leave()
        this.engine.serve(1)
        assert await second.hear_finished(1) == [1]
        assert (await (await this.listen()).hear()).is_snapshot


async def test_a_subscriber_that_does_not_read_is_disconnected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What piles up for it is bounded; the others are told everything all the same."""
    async with served(backlog_bytes=1_000_000) as this:
        slow, good = await this.listen(), await this.listen()
        await slow.hear()
        await good.hear()
        number = 0
        with caplog.at_level(logging.WARNING):
            while not any("does not read" in record.message for record in caplog.records):
                number += 1
                keys = range(number * 100_000, number * 100_000 + 20_000)
                this.engine.report.finish(this.engine.report.arrive(dispatch(number, *keys), 9), 1)
                await good.hear_finished(1)
        await slow.read_to_the_break()
        this.engine.serve(7)
        assert await good.hear_finished(1) == [7]


async def test_a_drain_is_published_at_once() -> None:
    """Every listener is told, before the drain has an end."""
    async with served() as this:
        listener = await this.listen()
        await listener.hear()
        assert await this.server.drain(timeout_s=1) == 0
        assert (await listener.hear()).is_draining
        assert (await (await this.listen()).hear()).is_draining


async def test_a_stop_ends_the_stream() -> None:
    """The listeners get what there still was to tell, and a proper end of the stream."""
    async with served() as this:
        listener = await this.listen()
        await listener.hear()
        this.engine.serve(1)
        await this.server.stop()
        assert await listener.hear_finished(1) == [1]
        await listener.hear_end()


async def test_telemetry_takes_get_only() -> None:
    """Another method gets 405, and is told which one to take."""
    async with served() as this:
        listener = await this.listen("POST")
        assert b"405" in listener.head.split(b"\r\n")[0]
        assert b"allow: get" in listener.head


async def test_changes_do_not_pile_up_without_subscribers() -> None:
    """What no router wanted to know is not kept for the first that comes."""
    async with served() as this:
        for number in range(100):
            this.engine.serve(number + 1)
        assert this.engine.report.take() is None
        snapshot = await (await this.listen()).hear()
        assert snapshot.is_snapshot
        assert snapshot.finished == []


@dataclass
class FakeTimes:
    """When vLLM did what."""

    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0


@dataclass
class FakeCompletion:
    """An answer, or a part of it."""

    text: str
    token_ids: Sequence[int] = ()
    index: int = 0
    finish_reason: str | None = None


@dataclass
class FakeOutput:
    """What vLLM yields."""

    outputs: list[FakeCompletion]
    finished: bool = False
    num_cached_tokens: int | None = 32
    metrics: FakeTimes | None = None


@dataclass
class FakePooled:
    """What vLLM yields for an embedding."""

    finished: bool = True
    num_cached_tokens: int = 16


@dataclass
class Outputs:
    """What a call yields, and what becomes of it."""

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
    """A piece of an answer, a token for each letter; `last`: why it ended."""
    ids = [ord(letter) for letter in text]
    return FakeOutput([FakeCompletion(text, ids, index, last)], finished=last is not None)


PROMPT = {"type": "token", "prompt_token_ids": list(range(100))}


@pytest.fixture
def report(clock: Clock) -> EngineTracker:
    """The report that is told."""
    report = EngineTracker(FACTS, clock)
    report.take()
    return report


@pytest.fixture
def observer(report: EngineTracker) -> RequestObserver:
    """The observer under test."""
    return RequestObserver(report)


Call = Callable[[], Coroutine[None, None, None]]


async def request(call: Call, sent: Dispatch | None = None) -> None:
    """Have `call` made in an HTTP request that comes with the dispatch."""
    headers = [(DISPATCH, sent.encode())] if sent else []

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
    """Take everything that a watched call yields."""
    calls = observer.generate(Outputs(items).run(), PROMPT, "request", is_delta=is_delta)
    return [output async for output in calls]


def told(report: EngineTracker) -> Update:
    """What the report has to tell; there must be something."""
    update = report.take()
    assert update is not None
    return update


def finished(report: EngineTracker) -> Finished:
    """The one request that has finished."""
    (request_,) = told(report).finished
    return request_


async def test_outputs_pass_unchanged(observer: RequestObserver) -> None:
    """Whoever called the engine gets what it yields, the same objects in the same order."""
    outputs = [delta("a"), delta("b"), delta("", last="stop")]
    assert await answered(observer, *outputs) == outputs


@pytest.mark.parametrize("is_delta", [True, False])
async def test_an_answer_s_text_is_collected(
    observer: RequestObserver, report: EngineTracker, is_delta: bool
) -> None:
    """Whether outputs are pieces or the whole so far, the answer's text follows the prompt."""
    text = "the answer to all of the questions, all"
    pieces = [text[:10], text[10:39]] if is_delta else [text[:10], text]
    outputs = [delta(pieces[0]), delta(pieces[1], last="stop")]

    async def call() -> None:
        await answered(observer, *outputs, is_delta=is_delta)

    await request(call, dispatch(3, 1))
    update = told(report)
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
    observer: RequestObserver, report: EngineTracker
) -> None:
    """Pieces of different answers come mixed; each is put together by its index."""
    one, two = "1" * 39, "2" * 39
    last = FakeOutput(
        [FakeCompletion("1", [1], 0, "stop"), FakeCompletion("2", [2], 1, "stop")], finished=True
    )

    async def call() -> None:
        await answered(observer, delta(one[:-1]), delta(two[:-1], index=1), last)

    await request(call, dispatch(3, 1))
    update = told(report)
    expected = [extend(1, b"|" + text.encode(), KEY_BYTES)[0] for text in (one, two)]
    assert set(unpack_keys(update.added)) == {1, *expected}
    assert update.finished[0].completion_tokens == 78


async def test_an_answer_s_token_ids_are_collected(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """Where the prompt came as token ids, the answer's ids follow it, four bytes each."""
    sent = Dispatch(
        id=3, key_bytes=KEY_BYTES, prompt_bytes=400, seed=7, reply_start=b"", is_token_ids=True
    )
    first, second = delta("abcde"), delta("fghij", last="length")

    async def call() -> None:
        await answered(observer, first, second)

    await request(call, sent)
    ids = array("I", list(b"abcdefghij")).tobytes()
    assert list(unpack_keys(told(report).added)) == list(extend(7, ids, KEY_BYTES))


async def test_the_dispatch_goes_to_the_first_call(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """Of several calls in a request the first is the router's prompt; the rest have no id."""
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
    assert [request.id for request in told(report).finished] == [0, 8]
    assert priorities == [1008, 1008]
    await request(call)
    assert [request.id for request in told(report).finished] == [0, 0]
    assert priorities[2:] == [0, 0]
    assert observer.priority == 0


async def test_requests_at_once_keep_their_dispatches(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """Each request's calls are told with its own dispatch."""

    async def call() -> None:
        await asyncio.sleep(0)
        await answered(observer, delta("x", last="stop"))

    await asyncio.gather(*(request(call, dispatch(n)) for n in range(1, 9)))
    assert {request.id for request in told(report).finished} == set(range(1, 9))


async def test_a_call_closed_early_is_aborted(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """A call that is closed before its last output was aborted, and closes the engine's."""
    outputs = Outputs([delta("a"), delta("b", last="stop")])
    call = observer.generate(outputs.run(), PROMPT, "request", is_delta=True)
    await anext(call)
    await call.aclose()
    assert outputs.is_closed
    request_ = finished(report)
    assert request_.is_aborted
    assert request_.completion_tokens == 1


async def test_the_last_output_finishes_a_request(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """The last output is the end, also for those who do not ask whether there is another."""
    call = observer.generate(
        Outputs([delta("a", last="stop")]).run(), PROMPT, "request", is_delta=True
    )
    await anext(call)
    assert not finished(report).is_aborted
    await call.aclose()
    assert report.take() is None


async def test_an_engine_s_error_is_passed_on_and_aborts(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """Its error reaches the caller, and the request counts as aborted."""
    with pytest.raises(RuntimeError, match="no memory"):
        await answered(observer, RuntimeError("no memory"))
    assert finished(report).is_aborted


async def test_an_output_that_says_abort_counts_as_aborted(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """A last output that says so is no whole answer."""
    await answered(observer, delta("a"), delta("", last="abort"))
    assert finished(report).is_aborted


async def test_vllms_own_times_are_used(
    observer: RequestObserver, report: EngineTracker, clock: Clock
) -> None:
    """Where the engine says when it began and had a token, this is what counts."""

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        clock.now_s = 110.0
        whole = FakeCompletion("all", [1, 2, 3])
        yield FakeOutput([whole], finished=True, metrics=FakeTimes(101.0, 103.0))

    async for _ in observer.generate(outputs(), PROMPT, "request", is_delta=False):
        pass
    request_ = finished(report)
    assert (request_.queue_s, request_.prefill_s, request_.decode_s) == (1.0, 2.0, 7.0)


async def test_a_request_without_output_is_seen_to_start(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """A request without output before its end is no pending prefill once it decodes."""
    asked: list[str] = []

    def find(request_id: str) -> FirstToken | None:
        asked.append(request_id)
        return FirstToken(48, None) if len(asked) > 1 else None

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        for pending in (100, 0, 0):
            observer.record_step(0, 0.0, find)
            assert report.load.pending_tokens == pending
        yield delta("x", last="stop")

    async for _ in observer.generate(outputs(), PROMPT, "mine", is_delta=False):
        pass
    observer.record_step(0, 0.0, find)
    assert asked == ["mine", "mine"]
    assert finished(report).cached_tokens == 48


def test_a_changed_queue_is_reported(observer: RequestObserver, report: EngineTracker) -> None:
    """After a step of the engine, listeners are told if another number of requests waits."""
    heard: list[None] = []
    report.watch(lambda: heard.append(None))
    for waiting in (0, 0, 2, 2, 0):
        observer.record_step(waiting, 0.0, lambda _: None)
    assert len(heard) == 2


def test_a_notable_change_of_the_cache_is_reported(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """After a step of the engine, listeners are told if notably more or less of it is in use."""
    heard: list[None] = []
    report.watch(lambda: heard.append(None))
    for used_share in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.5, 0.02):
        observer.record_step(0, used_share, lambda _: None)
    assert len(heard) == 3


async def test_steps_and_outputs_are_progress(
    observer: RequestObserver, report: EngineTracker, clock: Clock
) -> None:
    """An engine that steps, or gives any output, gets on with its work."""
    stalls: list[float] = []

    async def outputs() -> AsyncGenerator[FakeOutput, None]:
        for text in "abc":
            clock.now_s += 5
            yield delta(text)
        clock.now_s += 5
        stalls.append(report.stalled_s)
        observer.record_step(0, 0.0, lambda _: None)
        stalls.append(report.stalled_s)

    async for output in observer.generate(outputs(), PROMPT, "request", is_delta=True):
        assert output.outputs
        stalls.append(report.stalled_s)
    assert stalls == [0, 0, 0, 5, 0]


async def test_a_pooling_request_is_reported(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """A pooled request is told with its prompt and cached tokens."""

    async def outputs() -> AsyncGenerator[FakePooled, None]:
        yield FakePooled()

    async def call() -> None:
        passed = [output async for output in observer.encode(outputs(), PROMPT)]
        assert passed == [FakePooled()]

    await request(call, dispatch(4, 1, 2))
    update = told(report)
    assert set(unpack_keys(update.added)) == {1, 2}
    (request_,) = update.finished
    assert (request_.id, request_.prompt_tokens, request_.cached_tokens) == (4, 100, 16)
    assert not request_.is_aborted


async def test_a_pooling_request_without_output_is_aborted(
    observer: RequestObserver, report: EngineTracker
) -> None:
    """A pooled request that ends without its vector was aborted."""

    async def outputs() -> AsyncGenerator[FakePooled, None]:
        for vector in list[FakePooled]():
            yield vector
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        await anext(observer.encode(outputs(), PROMPT))
    assert finished(report).is_aborted


class BrokenReport(EngineTracker):
    """Fails at everything."""

    def arrive(self, dispatch: Dispatch | None, prompt_tokens: int) -> TrackedRequest:
        """Fail, the first time."""
        raise RuntimeError("broken")


class FinallyBrokenReport(EngineTracker):
    """Fails when something has been done."""

    def start(self, *_: object) -> None:
        """Fail."""
        raise RuntimeError("broken")

    def finish(self, *_: object, **__: object) -> None:
        """Fail."""
        raise RuntimeError("broken")


@pytest.mark.parametrize("kind", [BrokenReport, FinallyBrokenReport])
async def test_errors_of_telemetry_do_not_reach_requests(
    kind: type[EngineTracker], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in the report is logged, and the answer comes all the same."""
    observer = RequestObserver(kind(FACTS, Clock()))
    outputs = [delta("a"), delta("b", last="stop")]
    assert await answered(observer, *outputs) == outputs
    assert "engine telemetry failed" in caplog.text


async def test_other_scopes_have_no_call_context() -> None:
    """The server's start and end reach the application as they are."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Message:
        return {}

    await with_call_context(app)({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


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
    """In every form in which vLLM hands prompts over; 0 where it cannot be told."""
    assert prompt_tokens(prompt) == tokens
