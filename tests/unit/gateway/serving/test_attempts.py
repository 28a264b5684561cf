"""Attempts at answering a request, with engines that fail in every way there is."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from gateway.assembly import build_router
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.errors import (
    NO_RETRY,
    DeadlineExceeded,
    GatewayError,
    ModelUnavailable,
    Overloaded,
    UpstreamFailed,
)
from gateway.faults import Action
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.serving.fallback import FallbackChain
from gateway.serving.retry_budget import RESERVE
from gateway.serving.retry_policy import RetryPolicy
from gateway.serving.target_resolver import TargetResolver
from gateway.telemetry import Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import (
    PATIENCE_S,
    Client,
    FakeEngine,
    Script,
    StartEngine,
    Visit,
    answer,
    chunked,
)

CHAT = "/v1/chat/completions"
ROUTES = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/v1/embeddings")
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LIMITS = RetryPolicy()
SORRY = answer(b'{"error":"mine"}', status=b"500 Internal Server Error")


def script(*parts: bytes, closes: bool = False) -> Script:
    """Answer with `parts`."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)
        if closes:
            tracked.writer.close()

    return run


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    """One event of a chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-id", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(body).encode()


ROLE = chunk({"role": "assistant", "content": ""})
FINISH = chunk({}, "stop")


def text_of(stream: bytes) -> str:
    """The text of a chat's stream."""
    events = [e.removeprefix(b"data: ") for e in stream.split(b"\n\n") if e.startswith(b"data: {")]
    choices = [choice for e in events for choice in json.loads(e).get("choices", [])]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def continuing(text: str) -> Script:
    """Answer a chat with what is missing from the text."""

    async def run(tracked: Visit) -> None:
        body = json.loads(tracked.request.partition(b"\r\n\r\n")[2])
        sent = body["messages"][-1]["content"] if len(body["messages"]) > 1 else ""
        events = [ROLE, chunk({"content": text[len(sent) :]}), FINISH, DONE]
        await tracked.send(EVENTS + chunked(b"".join(events)) + END)

    return run


@dataclass
class Stand:
    """A model whose engines the test plays."""

    upstream: UpstreamClient
    start_engine: StartEngine
    client: Client = field(default_factory=Client)
    engines: list[FakeEngine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet()
        self.model = ServedModel("m", created_s=1)
        self.model.options = ServingOptions(
            queue=QueueOptions(max_wait_s=0.2), cold_start_timeout_s=0.2
        )
        self.fleet.add(self.model)
        router = build_router(self.fleet, lambda *_: None, upstream=self.upstream)
        self.context = router.context
        self.pool = router.pools.of(self.model)

    async def has(self, *scripts: Script) -> list[Replica]:
        """Engines that answer so."""
        self.engines = [await self.start_engine(script) for script in scripts]
        replicas = [engine.replica(ROUTES) for engine in self.engines]
        self.fleet.replace_replicas(self.model, replicas)
        return replicas

    async def answer(self, sent: InferenceRequest | None = None) -> None:
        """Have one request answered."""
        sent = sent or request()
        resolver = TargetResolver(self.fleet)
        await FallbackChain(sent, ("m",), resolver, self.context, self.client.response).run()

    def set_draining(self, replica: Replica, *, is_draining: bool) -> None:
        """Have a replica report whether it drains: while it does, requests queue for it."""
        update = Update(is_snapshot=True, is_draining=is_draining)
        self.pool.scheduler.record_update(replica.id, update)

    @property
    def tracked_requests(self) -> list[int]:
        """How many requests each engine has had."""
        return [len(engine.requests) for engine in self.engines]

    @property
    def faults(self) -> dict[tuple[str, Action], int]:
        """What was noted."""
        return {(f.reason, f.action): count for f, count in self.context.faults.counts}


def request(path: str = CHAT, timeout_s: float | None = None, **fields: object) -> InferenceRequest:
    """A request, streamed if its fields say so."""
    fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    body = json.dumps(fields).encode()
    return InferenceRequest(
        head=parse_head(path, body, b""),
        path=path,
        headers=[(b"content-type", b"application/json")],
        body=body,
        request_id=b"id",
        timeout_s=timeout_s,
        arrived_s=asyncio.get_running_loop().time(),
    )


@pytest.fixture
def stand(upstream: UpstreamClient, start_engine: StartEngine) -> Stand:
    """A model without engines."""
    return Stand(upstream, start_engine)


async def test_an_answer_passes_with_status_and_headers(stand: Stand) -> None:
    """An engine's refusal passes through unchanged, in one message, under the gateway's id."""
    await stand.has(script(answer(b"{}", b"server: e", b"x-a: 1", status=b"422 Unprocessable")))
    await stand.answer()
    start, body = stand.client.messages
    assert start["status"] == 422
    headers = dict(start["headers"])
    assert (headers[b"content-length"], headers[b"x-a"], headers[b"x-request-id"]) == (
        *(b"2", b"1", b"id"),
    )
    assert b"server" not in headers
    assert headers[b"x-gateway-replica"] == next(iter(stand.model.replicas)).encode()
    assert body == {"type": "http.response.body", "body": b"{}", "more_body": False}
    assert stand.faults == {}


async def test_a_stream_passes_as_it_comes(stand: Stand) -> None:
    """The first event is at the client before the engine sends the second."""

    async def wait_between(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(b"data: 1\n\n"))
        await asyncio.wait_for(stand.client.has_bytes.wait(), PATIENCE_S)
        await tracked.send(chunked(b"data: 2\n\n") + END)

    await stand.has(wait_between)
    await stand.answer(request(stream=True))
    assert stand.client.body == b"data: 1\n\ndata: 2\n\n"
    assert stand.client.is_complete


FAILURES = {
    "broke_off": script(b"", closes=True),
    "half_a_head": script(b"HTTP/1.1 200 OK\r\nconte", closes=True),
    "half_a_body": script(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf", closes=True),
    "garbage": script(b"garbage\r\n\r\n", closes=True),
    "key": script(answer(b"{}", status=b"401 Unauthorized")),
    "draining": script(answer(b"{}", b"x-engine-draining: 1", status=b"503 Unavailable")),
    "answered_500": script(SORRY),
    "answered_503": script(answer(b"{}", status=b"503 Unavailable")),
}


def failing_first(failure: Script, success: Script) -> tuple[Script, Callable[[], list[Visit]]]:
    """One script for all engines: whoever is first fails, and the others succeed."""
    tracked_requests: list[Visit] = []

    async def run(tracked: Visit) -> None:
        tracked_requests.append(tracked)
        await (failure if len(tracked_requests) == 1 else success)(tracked)

    return run, lambda: tracked_requests


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_before_the_first_byte_is_not_seen(stand: Stand, failure: str) -> None:
    """The request goes to the other engine, under the same id, and its client is told that."""
    run, tracked_requests = failing_first(FAILURES[failure], script(answer(b'"fine"')))
    await stand.has(run, run)
    await stand.answer()
    assert (stand.client.status, stand.client.body) == (200, b'"fine"')
    assert stand.client.headers[b"x-gateway-retries"] == b"1"
    assert stand.tracked_requests == [1, 1]
    assert all(b"x-request-id: id\r\n" in tracked.request for tracked in tracked_requests())
    assert [action for _, action in stand.faults] == [Action.RETRIED]


async def test_an_unreachable_engine_is_skipped_at_no_cost(stand: Stand) -> None:
    """Refused connections cost no retry of the budget, and others are preferred to the replica."""
    await stand.has(script(answer(b'"fine"')), script(answer(b'"fine"')))
    dead, _ = stand.model.replicas.values()
    await stand.engines[0].stop()
    for _ in range(4 * int(RESERVE)):
        stand.client = Client()
        stand.pool.scheduler.replicas.clear_backoff(dead)
        await stand.answer()
        assert stand.client.status == 200
    assert stand.pool.retry_budget(request()).spend()


async def test_a_request_gets_a_limited_number_of_attempts(stand: Stand) -> None:
    """Where all engines fail, the last one's own answer is what the client gets."""
    await stand.has(*[script(SORRY)] * 5)
    await stand.answer()
    assert sum(stand.tracked_requests) == 1 + LIMITS.max_retries
    assert max(stand.tracked_requests) == 1
    assert (stand.client.status, stand.client.body) == (500, b'{"error":"mine"}')
    assert stand.faults[("answered_5xx", Action.FAILED)] == 1


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"422 Unprocessable"])
async def test_a_client_error_is_not_retried(stand: Stand, status: bytes) -> None:
    """A wrong request is wrong on every engine."""
    await stand.has(*[script(answer(b"{}", status=status))] * 2)
    await stand.answer()
    assert sum(stand.tracked_requests) == 1
    assert stand.client.status == int(status[:3])


async def test_retries_do_not_multiply_an_outage(stand: Stand) -> None:
    """Once the budget is spent, a failing model costs little more than its requests."""
    await stand.has(*[script(SORRY)] * 4)
    count = 100
    for _ in range(count):
        stand.client = Client()
        await stand.answer()
    assert sum(stand.tracked_requests) <= count * 1.2 + RESERVE


async def test_an_engine_that_always_fails_is_ejected(stand: Stand) -> None:
    """An engine that always fails gets no more requests than it takes to find out."""
    run = script(SORRY)
    await stand.has(run, script(answer(b"{}")), script(answer(b"{}")))
    for _ in range(20 * CONSECUTIVE_FAILURES):
        stand.client = Client()
        await stand.answer()
        assert stand.client.status == 200
    assert stand.tracked_requests[0] == CONSECUTIVE_FAILURES
    assert stand.faults[("answered_5xx", Action.EJECTED)] == 1


async def test_a_model_that_lost_its_last_engine_is_unavailable(stand: Stand) -> None:
    """There is nobody to try, and the client learns when to come back."""

    async def vanish(tracked: Visit) -> None:
        stand.fleet.replace_replicas(stand.model, [])
        tracked.writer.close()

    await stand.has(vanish)
    with pytest.raises(ModelUnavailable):
        await stand.answer()
    assert stand.client.messages == []


async def test_a_successor_is_waited_for(stand: Stand) -> None:
    """The only engine drains while its successor starts: the client waits, and is answered."""
    await stand.has(FAILURES["draining"])
    stand.model.options = ServingOptions(
        queue=QueueOptions(max_wait_s=PATIENCE_S), cold_start_timeout_s=PATIENCE_S
    )
    task = asyncio.create_task(stand.answer())
    async with asyncio.timeout(PATIENCE_S):
        while not stand.engines[0].requests:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    successor = await stand.start_engine(script(answer(b'"fine"')))
    replicas = [*stand.model.replicas.values(), successor.replica(ROUTES)]
    stand.fleet.replace_replicas(stand.model, replicas)
    await asyncio.wait_for(task, PATIENCE_S)
    assert (stand.client.status, stand.client.body) == (200, b'"fine"')
    assert stand.tracked_requests == [1]


async def test_the_wait_limit_holds_for_a_request_and_all_its_retries(stand: Stand) -> None:
    """Waiting for a successor and then in its queue takes no longer than either may alone."""
    (first,) = await stand.has(FAILURES["draining"])
    limit_s = 1.0
    stand.model.options = ServingOptions(queue=QueueOptions(max_wait_s=limit_s))
    began_s = asyncio.get_running_loop().time()
    task = asyncio.create_task(stand.answer())
    await asyncio.sleep(0.6 * limit_s)
    successor = (await stand.start_engine(script(answer(b'"fine"')))).replica(ROUTES)
    stand.fleet.replace_replicas(stand.model, [first, successor])
    for replica in (first, successor):
        stand.set_draining(replica, is_draining=True)
    with pytest.raises(Overloaded, match=rf"longer than {limit_s:g} s"):
        await asyncio.wait_for(task, PATIENCE_S)
    assert asyncio.get_running_loop().time() - began_s < 1.4 * limit_s


async def test_a_batch_request_that_has_queued_for_long_waits_for_a_successor(stand: Stand) -> None:
    """Its own limit holds for all its waits, not that of interactive requests."""
    (first,) = await stand.has(FAILURES["draining"])
    stand.model.options = ServingOptions(queue=QueueOptions(max_wait_s=0.4, batch_max_wait_s=60))
    stand.set_draining(first, is_draining=True)
    task = asyncio.create_task(stand.answer(msgspec.structs.replace(request(), is_batch=True)))
    await asyncio.sleep(0.5)
    stand.set_draining(first, is_draining=False)
    await asyncio.sleep(0.1)
    successor = (await stand.start_engine(script(answer(b'"fine"')))).replica(ROUTES)
    stand.fleet.replace_replicas(stand.model, [first, successor])
    await asyncio.wait_for(task, PATIENCE_S)
    assert (stand.client.status, stand.client.body) == (200, b'"fine"')
    assert stand.tracked_requests == [1]


async def test_a_stream_has_its_whole_wait_again_when_it_breaks(stand: Stand) -> None:
    """The queue before its first event does not shorten the wait for an engine to resume it on."""
    broken = script(EVENTS + chunked(ROLE + chunk({"content": "one "})), closes=True)
    (first,) = await stand.has(broken)
    stand.model.options = ServingOptions(queue=QueueOptions(max_wait_s=0.5))
    stand.set_draining(first, is_draining=True)
    task = asyncio.create_task(stand.answer(request(stream=True, temperature=0)))
    await asyncio.sleep(0.4)
    stand.set_draining(first, is_draining=False)
    stand.pool.scheduler.record_telemetry_lost(first.id)
    await asyncio.sleep(0.25)
    successor = (await stand.start_engine(continuing("one two"))).replica(ROUTES)
    stand.fleet.replace_replicas(stand.model, [first, successor])
    await asyncio.wait_for(task, PATIENCE_S)
    assert text_of(stand.client.body) == "one two"
    assert stand.faults == {("broke_off", Action.RESUMED): 1}


async def test_a_request_that_kills_engines_is_not_tried_on_all(stand: Stand) -> None:
    """Two may die under it by chance; a third does not get it."""
    await stand.has(*[FAILURES["broke_off"]] * 5)
    with pytest.raises(UpstreamFailed) as failure:
        await stand.answer()
    assert sum(stand.tracked_requests) == LIMITS.max_deaths
    assert failure.value.headers == [NO_RETRY]


async def test_a_stream_that_makes_no_progress_is_given_up(stand: Stand) -> None:
    """Attempts that bring the client nothing new are few, however many engines there are."""
    failed = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
    await stand.has(*[script(EVENTS + chunked(ROLE + failed + DONE) + END)] * 6)
    await stand.answer(request(stream=True))
    assert sum(stand.tracked_requests) == 1 + LIMITS.max_retries
    assert stand.pool.scheduler.replicas.health_counts()["backoff"] == 0
    assert stand.client.body.endswith(DONE)


async def test_a_501_is_passed_on_and_not_counted_against_the_engine(stand: Stand) -> None:
    """501 is for what a client asks: passed on, not retried, and nobody is blamed."""
    await stand.has(*[script(answer(b"{}", status=b"501 Not Implemented"))] * 2)
    for _ in range(2 * CONSECUTIVE_FAILURES):
        stand.client = Client()
        await stand.answer()
        assert stand.client.status == 501
    assert sum(stand.tracked_requests) == 2 * CONSECUTIVE_FAILURES
    assert stand.faults == {}


async def test_a_request_leaves_an_engine_that_is_stuck(
    stand: Stand, upstream: UpstreamClient
) -> None:
    """A request that waits for headers goes elsewhere as soon as its engine is known to hang."""
    waiting = asyncio.Event()

    async def hang(tracked: Visit) -> None:
        waiting.set()
        await tracked.until_gone()

    run, _ = failing_first(hang, script(answer(b'"fine"')))
    await stand.has(run, run)
    task = asyncio.create_task(stand.answer())
    await asyncio.wait_for(waiting.wait(), PATIENCE_S)
    stuck = next(engine for engine in stand.engines if engine.requests)
    upstream.abort_connections(stuck.address)
    await asyncio.wait_for(task, PATIENCE_S)
    assert stand.client.body == b'"fine"'
    assert stand.faults == {("stuck", Action.RETRIED): 1}


async def test_a_broken_body_is_not_ended_as_if_it_were_whole(stand: Stand) -> None:
    """Where no error can be told any more, the answer stays incomplete and an error is raised."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 3_000_000
    await stand.has(*[script(begun, closes=True)] * 2)
    with pytest.raises(UpstreamFailed):
        await stand.answer()
    assert stand.client.response.has_begun
    assert not stand.client.is_complete
    assert sum(stand.tracked_requests) == 1


async def test_a_broken_stream_is_resumed_on_another_engine(stand: Stand) -> None:
    """Another engine gives the rest, and the client sees one answer."""
    words = ["one ", "two ", "three ", "four "]
    before = [ROLE, *(chunk({"content": word}) for word in words[:2])]

    run, _ = failing_first(
        script(EVENTS + chunked(b"".join(before)), closes=True), continuing("".join(words))
    )
    await stand.has(run, run)
    await stand.answer(request(stream=True, temperature=0))
    assert text_of(stand.client.body) == "".join(words)
    assert stand.client.body.count(b'"role"') == 1
    assert stand.client.body.count(DONE) == 1
    assert stand.client.is_complete
    assert stand.faults == {("broke_off", Action.RESUMED): 1}


async def test_a_stream_without_events_is_retried_from_the_start(stand: Stand) -> None:
    """Headers alone commit to nothing."""
    fine = script(EVENTS + chunked(ROLE + chunk({"content": "hi"}) + FINISH + DONE) + END)
    run, _ = failing_first(script(EVENTS, closes=True), fine)
    await stand.has(run, run)
    await stand.answer(request(stream=True, n=3))
    assert text_of(stand.client.body) == "hi"
    assert stand.faults == {("broke_off", Action.RETRIED): 1}


@pytest.mark.parametrize(("path", "end"), [(CHAT, [b"data: [DONE]", b""]), ("/v1/messages", [b""])])
async def test_a_stream_that_cannot_go_on_ends_with_an_error_event(
    stand: Stand, path: str, end: list[bytes]
) -> None:
    """Half an event is dropped, an error event follows, and the answer ends properly."""
    sent = EVENTS + chunked(chunk({"content": "a"}) + b'data: {"ha')
    await stand.has(*[script(sent, closes=True)] * 2)
    await stand.answer(request(path, stream=True, n=2))
    first, error, *rest = stand.client.body.split(b"\n\n")
    assert first + b"\n\n" == chunk({"content": "a"})
    body = json.loads(error.rpartition(b"data: ")[2])
    assert body["error"]["code"] in {"stream_lost", "upstream_failed"}
    assert rest == end
    assert stand.client.is_complete
    assert Action.TRUNCATED in {action for _, action in stand.faults}


async def test_a_client_may_refuse_resumption(stand: Stand) -> None:
    """With `x-gateway-resume: off` a broken stream is a broken stream."""
    sent = EVENTS + chunked(ROLE + chunk({"content": "a"}))
    await stand.has(*[script(sent, closes=True)] * 2)
    resumable = request(stream=True, temperature=0)
    await stand.answer(msgspec.structs.replace(resumable, is_resumable=False))
    assert b'"upstream_failed"' in stand.client.body
    assert stand.client.body.endswith(DONE)
    assert sum(stand.tracked_requests) == 1


async def never(tracked: Visit) -> None:
    """Keep the client waiting."""
    await tracked.until_gone()


@pytest.mark.parametrize("is_models", [False, True])
async def test_a_deadline_ends_the_wait(stand: Stand, is_models: bool) -> None:
    """The client's own or the model's: 504, and the engine's work ends."""
    await stand.has(never)
    stand.model.options = ServingOptions(timeout_s=0.05 if is_models else None)
    with pytest.raises(DeadlineExceeded) as failure:
        await stand.answer(request(timeout_s=None if is_models else 0.05))
    assert failure.value.headers == [NO_RETRY]
    await asyncio.wait_for(stand.engines[0].gone.wait(), PATIENCE_S)
    assert stand.faults == {("timeout", Action.FAILED): 1}


async def test_the_shorter_deadline_counts(stand: Stand) -> None:
    """A client cannot wait longer than the model allows, but less long."""
    await stand.has(never)
    stand.model.options = ServingOptions(timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
        await stand.answer(request(timeout_s=3600))


async def test_a_deadline_in_a_stream_is_an_event(stand: Stand) -> None:
    """The client keeps what has come, and the last event says why there is no more."""

    async def stop_half_way(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(ROLE + chunk({"content": "a"})))
        await tracked.until_gone()

    await stand.has(stop_half_way)
    await stand.answer(request(stream=True, timeout_s=0.2))
    assert b'"code":"timeout"' in stand.client.body
    assert stand.client.body.endswith(DONE)
    assert stand.client.is_complete


async def test_an_error_is_not_raised_twice(stand: Stand) -> None:
    """Any error a client can be told before the first byte reaches the caller, once."""
    await stand.has(FAILURES["garbage"])
    with pytest.raises(GatewayError) as caught:
        await stand.answer()
    assert caught.value.status == 502
    assert stand.client.messages == []


async def test_cancelling_drops_the_engine_s_connection(stand: Stand) -> None:
    """A client that goes away takes the engine's work with it, in the middle of a stream."""
    await stand.has(script(EVENTS + chunked(b"data: 1\n\n")))
    task = asyncio.create_task(stand.answer(request(stream=True)))
    await asyncio.wait_for(stand.client.has_bytes.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait_for(stand.engines[0].gone.wait(), PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.faults == {}
