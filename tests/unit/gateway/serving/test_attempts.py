"""Attempts at answering a request, with engines that fail in every way there is."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from gateway.assembly import build_router
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.errors.access import CacheNotPrivate
from gateway.errors.gateway_error import NO_RETRY, GatewayError
from gateway.errors.limits import Overloaded
from gateway.errors.upstream import DeadlineExceeded, ModelUnavailable, UpstreamFailed
from gateway.faults import Action
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.identity.project import Project
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.serving.fallback import FallbackChain
from gateway.serving.retry_budget import RESERVE
from gateway.serving.retry_policy import RetryPolicy
from gateway.serving.target_resolver import TargetResolver
from gateway.telemetry.update import Update
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import BUFFER_LIMIT
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
NO = (
    b'{ "error": {"message": "No.", "type": "invalid_request_error", "param": null, "code": null} }'
)
MINE = b'{"error":{"message":"Mine.","type":"server_error","param":null,"code":"mine"}}'
SORRY = answer(MINE, status=b"500 Internal Server Error")


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
class Bench:
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
def bench(upstream: UpstreamClient, start_engine: StartEngine) -> Bench:
    """A model without engines."""
    return Bench(upstream, start_engine)


async def test_an_answer_is_forwarded_with_status_and_headers(bench: Bench) -> None:
    """An engine's refusal passes through unchanged, in one message, under the gateway's id."""
    await bench.has(script(answer(NO, b"server: e", b"x-a: 1", status=b"422 Unprocessable")))
    await bench.answer()
    start, body = bench.client.messages
    assert start["status"] == 422
    headers = dict(start["headers"])
    assert (headers[b"content-length"], headers[b"x-a"], headers[b"x-request-id"]) == (
        *(b"%d" % len(NO), b"1", b"id"),
    )
    assert b"server" not in headers
    assert headers[b"x-gateway-replica"] == next(iter(bench.model.replicas)).encode()
    assert body == {"type": "http.response.body", "body": NO, "more_body": False}
    assert bench.faults == {}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail":"Not here: /srv/models/m"}', "Not here: ..."),
        (b"no such thing", "no such thing"),
        (b"<html>" + b"x" * BUFFER_LIMIT, "The engine answered 404."),
    ],
    ids=["detail", "text", "a page of a megabyte"],
)
async def test_a_refusal_of_another_shape_gets_openais(
    bench: Bench, body: bytes, message: str
) -> None:
    """Whatever kind of engine it is; its status stays."""
    headers = (b"content-type: text/html", b"content-encoding: identity", b"x-a: 1")
    await bench.has(script(answer(body, *headers, status=b"404 Not Found")))
    await bench.answer()
    error = {"type": "invalid_request_error", "param": None, "code": "not_found"}
    assert bench.client.status == 404
    assert json.loads(bench.client.body) == {"error": {"message": message, **error}}
    assert bench.client.headers[b"content-type"] == b"application/json"
    assert bench.client.headers[b"content-length"] == b"%d" % len(bench.client.body)
    assert b"content-encoding" not in bench.client.headers
    assert bench.client.headers[b"x-a"] == b"1"


async def test_a_stream_is_forwarded_as_it_arrives(bench: Bench) -> None:
    """The first event is at the client before the engine sends the second."""

    async def wait_between(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(b"data: 1\n\n"))
        await asyncio.wait_for(bench.client.has_bytes.wait(), PATIENCE_S)
        await tracked.send(chunked(b"data: 2\n\n") + END)

    await bench.has(wait_between)
    await bench.answer(request(stream=True))
    assert bench.client.body == b"data: 1\n\ndata: 2\n\n"
    assert bench.client.is_complete


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
async def test_a_failure_before_the_first_byte_is_not_seen(bench: Bench, failure: str) -> None:
    """The request goes to the other engine under the same id; a header shows the retry."""
    run, tracked_requests = failing_first(FAILURES[failure], script(answer(b'"fine"')))
    await bench.has(run, run)
    await bench.answer()
    assert (bench.client.status, bench.client.body) == (200, b'"fine"')
    assert bench.client.headers[b"x-gateway-retries"] == b"1"
    assert bench.tracked_requests == [1, 1]
    assert all(b"x-request-id: id\r\n" in tracked.request for tracked in tracked_requests())
    assert [action for _, action in bench.faults] == [Action.RETRIED]


async def test_an_unreachable_engine_is_skipped_at_no_cost(bench: Bench) -> None:
    """Refused connections cost no retry of the budget, and others are preferred to the replica."""
    await bench.has(script(answer(b'"fine"')), script(answer(b'"fine"')))
    dead, _ = bench.model.replicas.values()
    await bench.engines[0].stop()
    for _ in range(4 * int(RESERVE)):
        bench.client = Client()
        bench.pool.scheduler.replicas.clear_backoff(dead)
        await bench.answer()
        assert bench.client.status == 200
    assert bench.pool.retry_budget(request()).spend()


async def test_the_second_engine_that_reports_an_error_blames_the_request(bench: Bench) -> None:
    """The client gets the answer of the second one, and is asked not to send it again."""
    await bench.has(*[script(SORRY)] * 5)
    await bench.answer()
    assert sum(bench.tracked_requests) == 2
    assert max(bench.tracked_requests) == 1
    assert (bench.client.status, bench.client.body) == (500, MINE)
    assert bench.client.headers[b"x-should-retry"] == b"false"
    assert bench.faults == {
        ("answered_5xx", Action.RETRIED): 1,
        ("answered_5xx", Action.BLAMED): 1,
    }


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"422 Unprocessable"])
async def test_a_client_error_is_not_retried(bench: Bench, status: bytes) -> None:
    """A wrong request is wrong on every engine."""
    await bench.has(*[script(answer(b"{}", status=status))] * 2)
    await bench.answer()
    assert sum(bench.tracked_requests) == 1
    assert bench.client.status == int(status[:3])


async def test_retries_do_not_multiply_an_outage(bench: Bench) -> None:
    """Once the budget is spent, a failing model costs little more than its requests."""
    await bench.has(*[script(SORRY)] * 4)
    count = 100
    for _ in range(count):
        bench.client = Client()
        await bench.answer()
    assert sum(bench.tracked_requests) <= count * 1.2 + RESERVE


async def test_an_engine_that_always_fails_is_ejected(bench: Bench) -> None:
    """After a few failures it gets no more requests."""
    run = script(SORRY)
    await bench.has(run, script(answer(b"{}")), script(answer(b"{}")))
    for _ in range(20 * CONSECUTIVE_FAILURES):
        bench.client = Client()
        await bench.answer()
        assert bench.client.status == 200
    assert bench.tracked_requests[0] == CONSECUTIVE_FAILURES
    assert bench.faults[("answered_5xx", Action.EJECTED)] == 1


async def test_a_model_that_lost_its_last_engine_is_unavailable(bench: Bench) -> None:
    """No engine is left to try, and the client learns when to retry."""

    async def vanish(tracked: Visit) -> None:
        bench.fleet.replace_replicas(bench.model, [])
        tracked.writer.close()

    await bench.has(vanish)
    with pytest.raises(ModelUnavailable):
        await bench.answer()
    assert bench.client.messages == []


async def test_a_successor_is_waited_for(bench: Bench) -> None:
    """The only engine drains while its successor starts: the client waits, and is answered."""
    await bench.has(FAILURES["draining"])
    bench.model.options = ServingOptions(
        queue=QueueOptions(max_wait_s=PATIENCE_S), cold_start_timeout_s=PATIENCE_S
    )
    task = asyncio.create_task(bench.answer())
    async with asyncio.timeout(PATIENCE_S):
        while not bench.engines[0].requests:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    successor = await bench.start_engine(script(answer(b'"fine"')))
    replicas = [*bench.model.replicas.values(), successor.replica(ROUTES)]
    bench.fleet.replace_replicas(bench.model, replicas)
    await asyncio.wait_for(task, PATIENCE_S)
    assert (bench.client.status, bench.client.body) == (200, b'"fine"')
    assert bench.tracked_requests == [1]


async def test_the_wait_limit_holds_for_a_request_and_all_its_retries(bench: Bench) -> None:
    """Waiting for a successor and then in its queue takes no longer than either may alone."""
    (first,) = await bench.has(FAILURES["draining"])
    limit_s = 1.0
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=limit_s))
    began_s = asyncio.get_running_loop().time()
    task = asyncio.create_task(bench.answer())
    await asyncio.sleep(0.6 * limit_s)
    successor = (await bench.start_engine(script(answer(b'"fine"')))).replica(ROUTES)
    bench.fleet.replace_replicas(bench.model, [first, successor])
    for replica in (first, successor):
        bench.set_draining(replica, is_draining=True)
    with pytest.raises(Overloaded, match=rf"longer than {limit_s:g} s"):
        await asyncio.wait_for(task, PATIENCE_S)
    assert asyncio.get_running_loop().time() - began_s < 1.4 * limit_s


async def test_a_batch_request_that_has_queued_for_long_waits_for_a_successor(bench: Bench) -> None:
    """Its own limit holds for all its waits, not that of interactive requests."""
    (first,) = await bench.has(FAILURES["draining"])
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=0.4, batch_max_wait_s=60))
    bench.set_draining(first, is_draining=True)
    task = asyncio.create_task(bench.answer(msgspec.structs.replace(request(), tier="flex")))
    await asyncio.sleep(0.5)
    bench.set_draining(first, is_draining=False)
    await asyncio.sleep(0.1)
    successor = (await bench.start_engine(script(answer(b'"fine"')))).replica(ROUTES)
    bench.fleet.replace_replicas(bench.model, [first, successor])
    await asyncio.wait_for(task, PATIENCE_S)
    assert (bench.client.status, bench.client.body) == (200, b'"fine"')
    assert bench.tracked_requests == [1]


async def test_a_stream_has_its_whole_wait_again_when_it_breaks(bench: Bench) -> None:
    """The queue before its first event does not shorten the wait for an engine to resume it on."""
    broken = script(EVENTS + chunked(ROLE + chunk({"content": "one "})), closes=True)
    (first,) = await bench.has(broken)
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=0.5))
    bench.set_draining(first, is_draining=True)
    task = asyncio.create_task(bench.answer(request(stream=True, temperature=0)))
    await asyncio.sleep(0.4)
    bench.set_draining(first, is_draining=False)
    bench.pool.scheduler.record_telemetry_lost(first.id)
    await asyncio.sleep(0.25)
    successor = (await bench.start_engine(continuing("one two"))).replica(ROUTES)
    bench.fleet.replace_replicas(bench.model, [first, successor])
    await asyncio.wait_for(task, PATIENCE_S)
    assert text_of(bench.client.body) == "one two"
    assert bench.faults == {("broke_off", Action.RESUMED): 1}


async def test_a_request_that_kills_engines_is_not_tried_on_all(bench: Bench) -> None:
    """Two may die under it by chance; a third does not get it."""
    await bench.has(*[FAILURES["broke_off"]] * 5)
    with pytest.raises(UpstreamFailed) as failure:
        await bench.answer()
    assert sum(bench.tracked_requests) == LIMITS.max_deaths
    assert failure.value.headers == [NO_RETRY]


async def test_a_stream_that_makes_no_progress_is_given_up(bench: Bench) -> None:
    """The second engine that ends it with an error blames the request, not the engines."""
    failed = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
    await bench.has(*[script(EVENTS + chunked(ROLE + failed + DONE) + END)] * 6)
    await bench.answer(request(stream=True))
    assert sum(bench.tracked_requests) == 2
    assert bench.faults[("engine_error", Action.BLAMED)] == 1
    assert bench.pool.scheduler.replicas.health_counts()["backoff"] == 0
    assert bench.client.body.endswith(DONE)


async def test_a_501_is_passed_on_and_not_counted_against_the_engine(bench: Bench) -> None:
    """501 depends on the request: it is forwarded, not retried, and no fault is counted."""
    await bench.has(*[script(answer(b"{}", status=b"501 Not Implemented"))] * 2)
    for _ in range(2 * CONSECUTIVE_FAILURES):
        bench.client = Client()
        await bench.answer()
        assert bench.client.status == 501
    assert sum(bench.tracked_requests) == 2 * CONSECUTIVE_FAILURES
    assert bench.faults == {}


async def test_a_request_leaves_an_engine_that_is_stuck(
    bench: Bench, upstream: UpstreamClient
) -> None:
    """A request that waits for headers goes elsewhere as soon as its engine is known to hang."""
    waiting = asyncio.Event()

    async def hang(tracked: Visit) -> None:
        waiting.set()
        await tracked.until_gone()

    run, _ = failing_first(hang, script(answer(b'"fine"')))
    await bench.has(run, run)
    task = asyncio.create_task(bench.answer())
    await asyncio.wait_for(waiting.wait(), PATIENCE_S)
    stuck = next(engine for engine in bench.engines if engine.requests)
    upstream.abort_connections(stuck.address)
    await asyncio.wait_for(task, PATIENCE_S)
    assert bench.client.body == b'"fine"'
    assert bench.faults == {("stuck", Action.RETRIED): 1}


async def test_a_broken_body_is_not_ended_as_if_complete(bench: Bench) -> None:
    """Too late for an error response: the answer stays incomplete, and the error is raised."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 3_000_000
    await bench.has(*[script(begun, closes=True)] * 2)
    with pytest.raises(UpstreamFailed):
        await bench.answer()
    assert bench.client.response.has_begun
    assert not bench.client.is_complete
    assert sum(bench.tracked_requests) == 1


async def test_a_broken_stream_is_resumed_on_another_engine(bench: Bench) -> None:
    """Another engine gives the rest, and the client sees one answer."""
    words = ["one ", "two ", "three ", "four "]
    before = [ROLE, *(chunk({"content": word}) for word in words[:2])]

    run, _ = failing_first(
        script(EVENTS + chunked(b"".join(before)), closes=True), continuing("".join(words))
    )
    await bench.has(run, run)
    await bench.answer(request(stream=True, temperature=0))
    assert text_of(bench.client.body) == "".join(words)
    assert bench.client.body.count(b'"role"') == 1
    assert bench.client.body.count(DONE) == 1
    assert bench.client.is_complete
    assert bench.faults == {("broke_off", Action.RESUMED): 1}


async def test_a_stream_without_events_is_retried_from_the_start(bench: Bench) -> None:
    """Headers alone commit to nothing."""
    fine = script(EVENTS + chunked(ROLE + chunk({"content": "hi"}) + FINISH + DONE) + END)
    run, _ = failing_first(script(EVENTS, closes=True), fine)
    await bench.has(run, run)
    await bench.answer(request(stream=True, n=3))
    assert text_of(bench.client.body) == "hi"
    assert bench.faults == {("broke_off", Action.RETRIED): 1}


@pytest.mark.parametrize(("path", "end"), [(CHAT, [b"data: [DONE]", b""]), ("/v1/messages", [b""])])
async def test_a_stream_that_cannot_be_resumed_ends_with_an_error_event(
    bench: Bench, path: str, end: list[bytes]
) -> None:
    """Half an event is dropped, an error event follows, and the answer ends properly."""
    sent = EVENTS + chunked(chunk({"content": "a"}) + b'data: {"ha')
    await bench.has(*[script(sent, closes=True)] * 2)
    await bench.answer(request(path, stream=True, n=2))
    first, error, *rest = bench.client.body.split(b"\n\n")
    assert first + b"\n\n" == chunk({"content": "a"})
    body = json.loads(error.rpartition(b"data: ")[2])
    if path == CHAT:
        assert body["error"]["code"] in {"stream_lost", "upstream_failed"}
        assert body["error"]["type"] == "server_error"
    else:
        assert body["error"]["type"] == "api_error"
    assert rest == end
    assert bench.client.is_complete
    assert Action.TRUNCATED in {action for _, action in bench.faults}


async def test_a_client_may_refuse_resumption(bench: Bench) -> None:
    """With `x-gateway-resume: off` a broken stream is a broken stream."""
    sent = EVENTS + chunked(ROLE + chunk({"content": "a"}))
    await bench.has(*[script(sent, closes=True)] * 2)
    resumable = request(stream=True, temperature=0)
    await bench.answer(msgspec.structs.replace(resumable, is_resumable=False))
    assert b'"upstream_failed"' in bench.client.body
    assert bench.client.body.endswith(DONE)
    assert sum(bench.tracked_requests) == 1


async def never(tracked: Visit) -> None:
    """Keep the client waiting."""
    await tracked.until_gone()


@pytest.mark.parametrize("is_models", [False, True])
async def test_a_deadline_ends_the_wait(bench: Bench, is_models: bool) -> None:
    """The client's own or the model's: 504, and the engine's work ends."""
    await bench.has(never)
    bench.model.options = ServingOptions(timeout_s=0.05 if is_models else None)
    with pytest.raises(DeadlineExceeded) as failure:
        await bench.answer(request(timeout_s=None if is_models else 0.05))
    assert failure.value.headers == [NO_RETRY]
    await asyncio.wait_for(bench.engines[0].gone.wait(), PATIENCE_S)
    assert bench.faults == {("timeout", Action.FAILED): 1}


async def test_the_shorter_deadline_counts(bench: Bench) -> None:
    """A client cannot wait longer than the model allows, but less long."""
    await bench.has(never)
    bench.model.options = ServingOptions(timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
        await bench.answer(request(timeout_s=3600))


async def test_a_deadline_in_a_stream_is_an_event(bench: Bench) -> None:
    """The client keeps the events so far, and the last event says why the stream ends."""

    async def stop_half_way(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(ROLE + chunk({"content": "a"})))
        await tracked.until_gone()

    await bench.has(stop_half_way)
    await bench.answer(request(stream=True, timeout_s=0.2))
    assert b'"code":"timeout"' in bench.client.body
    assert bench.client.body.endswith(DONE)
    assert bench.client.is_complete


async def test_an_error_is_not_raised_twice(bench: Bench) -> None:
    """An error before the first byte reaches the caller once."""
    await bench.has(FAILURES["garbage"])
    with pytest.raises(GatewayError) as caught:
        await bench.answer()
    assert caught.value.status == 502
    assert bench.client.messages == []


async def test_cancelling_drops_the_engine_s_connection(bench: Bench) -> None:
    """When a client leaves in the middle of a stream, its engine stops working for it."""
    await bench.has(script(EVENTS + chunked(b"data: 1\n\n")))
    task = asyncio.create_task(bench.answer(request(stream=True)))
    await asyncio.wait_for(bench.client.has_bytes.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait_for(bench.engines[0].gone.wait(), PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.faults == {}


ROUTING = ("x-gateway-replica", "x-gateway-cached-tokens", "x-gateway-decision")
"""Headers that say where a request went."""


@pytest.mark.parametrize(
    ("identity", "is_operator", "shown"),
    [
        (ANONYMOUS_IDENTITY, False, True),
        (ClientIdentity(project=Project(id="p")), False, False),
        (ClientIdentity(project=Project(id="p", cache_scope="all")), False, False),
        (ClientIdentity(project=Project(id="p")), True, True),
    ],
)
async def test_a_project_does_not_learn_where_its_request_went(
    bench: Bench, identity: ClientIdentity, is_operator: bool, shown: bool
) -> None:
    """Operators do, and everybody whom the gateway does not authenticate."""
    await bench.has(script(answer(b"{}")))
    sent = msgspec.structs.replace(
        request(), identity=identity, is_operator=is_operator, is_explained=True
    )
    await bench.answer(sent)

    headers = bench.client.headers
    assert headers[b"x-gateway-model"] == b"m"
    assert b"server-timing" in headers
    assert [name for name in ROUTING if name.encode() in headers] == list(ROUTING if shown else ())


async def test_engines_that_share_their_caches_are_for_those_who_may(bench: Bench) -> None:
    """A project with caches of its own is refused; others, and open gateways, are answered."""
    [replica] = await bench.has(script(answer(b"{}")))
    facts = msgspec.structs.replace(replica.metadata.facts, has_private_caches=False)
    metadata = msgspec.structs.replace(replica.metadata, facts=facts)
    bench.fleet.replace_replicas(bench.model, [Replica("shared", metadata)])

    for kind in ("project", "key", "group:g"):
        identity = ClientIdentity(project=Project(id="p", cache_scope=kind))
        with pytest.raises(CacheNotPrivate, match="share their caches"):
            await bench.answer(msgspec.structs.replace(request(), identity=identity))
    assert bench.tracked_requests == [0]
    for identity in (
        ANONYMOUS_IDENTITY,
        ClientIdentity(project=Project(id="p", cache_scope="all")),
    ):
        await bench.answer(msgspec.structs.replace(request(), identity=identity))
    assert bench.tracked_requests == [2]
