"""Metrics of requests, and their `Server-Timing`."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable

import httpx
import pytest
from msgspec import structs

from gateway.asgi import Message, Receive, Scope, Send
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.metrics import NO_MODEL
from gateway.routing.decision import LOG_SIZE
from gateway.routing.fleet import ModelState
from gateway.serving.fallback import COLD_COMMENT_S
from gateway.telemetry.update import Finished, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import FakeEngine, StartEngine, Visit, answer, chunked
from tests.unit.recorder import KeptRecorder
from tests.unit.surface import CHAT, Surface, script

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = [EVENTS, chunked(b"data: {}\n\n"), chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n"]
STEPS = ["receive", "queue", "route", "connect", "engine", "first_event", "gateway"]


@pytest.fixture
def recorder() -> KeptRecorder:
    """Where metrics go."""
    return KeptRecorder()


@pytest.fixture
def surface(upstream: UpstreamClient, recorder: KeptRecorder) -> Surface:
    """An application whose metrics are kept."""
    return Surface(upstream, recorder=recorder)


def outcomes(recorder: KeptRecorder) -> dict[tuple[str, ...], int]:
    """How requests ended, by all labels."""
    return {key[1]: n for key, n in recorder.counts.items() if key[0] == "gateway_requests"}


def timing_ms(header: str) -> dict[str, float]:
    """The steps of a `Server-Timing`."""
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


async def test_an_answered_request_is_counted_and_timed(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """Labels describe the request, and histograms have the time of its steps."""
    surface.add("m", await start_engine(script(answer(b"{}"))))

    async with surface.client() as client:
        headers = {"authorization": "Bearer k", "x-gateway-priority": "batch"}
        await client.post(CHAT, json={"model": "m"}, headers=headers)

    assert outcomes(recorder) == {("m", CHAT, "key", "batch", "answered"): 1}
    names = {name for (name, labels), seen in recorder.observations.items() if labels == ("m",)}
    assert names == {
        "gateway_e2e_seconds",
        "gateway_queue_wait_seconds",
        "gateway_routing_seconds",
        "gateway_overhead_seconds",
    }


async def test_time_to_first_event_is_observed_for_streams(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """TTFT is observed for streams, and is at most the whole time."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*STREAM[:2])
        await asyncio.sleep(0.05)
        await tracked.send(*STREAM[2:])

    surface.add("m", await start_engine(run))

    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m", "stream": True})

    (ttft_s,) = recorder.observations["gateway_ttft_seconds", ("m",)]
    (e2e_s,) = recorder.observations["gateway_e2e_seconds", ("m",)]
    assert 0 < ttft_s <= e2e_s - 0.04


@pytest.mark.parametrize(
    ("engine_answer", "outcome"),
    [
        (answer(b"{}", status=b"400 Bad Request"), "refused"),
        (answer(b"{}", status=b"500 Internal Server Error"), "failed"),
        (EVENTS + chunked(b"data: {}\n\n"), "truncated"),
    ],
)
async def test_outcomes_follow_from_the_engines_answer(
    surface: Surface,
    recorder: KeptRecorder,
    start_engine: StartEngine,
    engine_answer: bytes,
    outcome: str,
) -> None:
    """Refusals, failures and truncated streams have different outcomes."""

    async def run(tracked: Visit) -> None:
        await tracked.send(engine_answer)
        tracked.writer.close()

    surface.add("m", await start_engine(run))

    async with surface.client() as client:
        headers = {"x-gateway-resume": "off"}
        await client.post(CHAT, json={"model": "m", "stream": True}, headers=headers)

    assert outcomes(recorder) == {("m", CHAT, "address", "interactive", outcome): 1}
    assert not recorder.observations["gateway_e2e_seconds", ("m",)]


@pytest.mark.parametrize("body", [b"{", b'{"model": "invented"}'])
async def test_invented_model_names_are_no_labels(
    surface: Surface, recorder: KeptRecorder, body: bytes
) -> None:
    """Unknown models and broken bodies are counted under no name."""
    async with surface.client() as client:
        await client.post(CHAT, content=body)

    assert outcomes(recorder) == {(NO_MODEL, CHAT, "address", "interactive", "refused"): 1}


async def test_a_stream_begins_with_its_first_event(
    surface: Surface, start_engine: StartEngine
) -> None:
    """If an engine fails after its 200 and before any event, the client gets the error's status."""

    async def fail(tracked: Visit) -> None:
        await tracked.send(EVENTS)
        tracked.writer.close()

    async def think(tracked: Visit) -> None:
        await tracked.send(EVENTS)
        await asyncio.sleep(0.05)
        await tracked.send(*STREAM[1:])

    fails = surface.add("fails", await start_engine(fail))
    fails.options = ServingOptions(queue=QueueOptions(max_wait_s=0.05))
    surface.add("thinks", await start_engine(think))

    async with surface.client() as client:
        failed = await client.post(CHAT, json={"model": "fails", "stream": True})
        answered = await client.post(CHAT, json={"model": "thinks", "stream": True})

    assert failed.status_code == 503
    steps = timing_ms(answered.headers["server-timing"])
    assert steps["first_event"] >= 40
    assert steps["gateway"] < steps["first_event"]


async def test_a_stream_without_a_heartbeat_begins_at_once(
    surface: Surface, start_engine: StartEngine
) -> None:
    """A response that only the engine takes for a stream has its head before its first event."""
    seen: list[bool] = []

    async def think(tracked: Visit) -> None:
        await tracked.send(EVENTS)
        await asyncio.sleep(0.05)
        seen.append(has_begun.is_set())
        await tracked.send(*STREAM[1:])

    has_begun = asyncio.Event()
    surface.add("m", await start_engine(think))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            has_begun.set()
            await send(message)

        await surface.app(scope, receive, sending)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.post(CHAT, json={"model": "m", "stream": "?"})
        has_begun.clear()
        await client.post(CHAT, json={"model": "m", "stream": True})

    assert seen == [True, False]


async def test_a_rejected_request_counts_as_shed(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """If no request may wait, one without room is shed."""
    engine, forever = await _busy_engine(start_engine)
    model = surface.add("m", engine)
    model.options = ServingOptions(queue=QueueOptions(max_requests=0))
    for _ in range(20):
        surface.load("m")
    await _until(lambda: len(engine.requests) >= 8)
    shed = ("m", CHAT, "address", "interactive", "shed")
    before = outcomes(recorder)[shed]

    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"})
    forever.set()

    assert response.status_code == 429
    assert outcomes(recorder)[shed] == before + 1


async def test_a_missed_deadline_counts_as_timeout(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """It does not count as a failure."""
    engine, forever = await _busy_engine(start_engine)
    surface.add("m", engine)

    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m"}, headers={"x-request-timeout-s": "0.05"})
    forever.set()

    assert outcomes(recorder) == {("m", CHAT, "address", "interactive", "timeout"): 1}


async def test_a_disconnected_client_counts_as_client_cancelled(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """The server around the gateway cancels its request."""
    engine, forever = await _busy_engine(start_engine)
    surface.add("m", engine)

    async with surface.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json={"model": "m"}))
        await _until(lambda: bool(engine.requests))
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    forever.set()

    assert outcomes(recorder) == {("m", CHAT, "address", "interactive", "client_cancelled"): 1}


async def test_server_timing_splits_the_time_by_step(
    surface: Surface, start_engine: StartEngine
) -> None:
    """The engine's time has its own step, and all steps add up to at most the whole."""

    async def run(tracked: Visit) -> None:
        await asyncio.sleep(0.05)
        await tracked.send(answer(b"{}"))

    surface.add("m", await start_engine(run))

    began_s = time.perf_counter()
    async with surface.client() as client:
        response = await client.post(CHAT, json={"model": "m"})
    whole_ms = 1000 * (time.perf_counter() - began_s)

    steps = timing_ms(response.headers["server-timing"])
    assert list(steps) == STEPS
    assert steps["engine"] >= 49
    assert steps["connect"] > 0
    assert steps["route"] <= steps["gateway"]
    assert sum(steps.values()) - steps["route"] <= whole_ms + 1


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/nowhere"])
async def test_every_reply_has_a_server_timing(surface: Surface, path: str) -> None:
    """Replies without any engine have it, too."""
    async with surface.client() as client:
        response = await client.get(path)

    steps = timing_ms(response.headers["server-timing"])
    assert list(steps) == STEPS
    assert steps["engine"] == 0


async def test_queue_time_is_not_gateway_time(surface: Surface, start_engine: StartEngine) -> None:
    """Time in a queue is not time that the gateway itself has added."""
    engine, go_on = await _busy_engine(start_engine)
    surface.add("m", engine)
    for _ in range(12):
        surface.load("m")
    await _until(lambda: len(engine.requests) >= 8)

    async with surface.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json={"model": "m"}))
        await asyncio.sleep(0.05)
        go_on.set()
        steps = timing_ms((await asking).headers["server-timing"])

    assert steps["queue"] >= 40
    assert steps["gateway"] < steps["queue"]


async def test_a_wait_that_ends_in_a_timeout_is_observed(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """A deadline that passes in the queue: the wait is observed, and not the gateway's own."""
    engine, go_on = await _busy_engine(start_engine)
    surface.add("m", engine)
    for _ in range(12):
        surface.load("m")
    await _until(lambda: len(engine.requests) >= 8)

    async with surface.client() as client:
        response = await client.post(
            CHAT, json={"model": "m"}, headers={"x-request-timeout-s": "0.05"}
        )
    go_on.set()

    steps = timing_ms(response.headers["server-timing"])
    assert response.status_code == 504
    assert steps["queue"] >= 45
    assert steps["gateway"] < steps["queue"]
    assert [s for s in recorder.observations["gateway_queue_wait_seconds", ("m",)] if s >= 0.045]


async def test_waiting_for_a_successor_is_queue_time(
    surface: Surface, start_engine: StartEngine
) -> None:
    """After the only engine has died, the wait for another one is queue time."""

    async def die(tracked: Visit) -> None:
        tracked.writer.close()

    async def answer_it(tracked: Visit) -> None:
        await tracked.send(answer(b"{}"))

    dead, other = await start_engine(die), await start_engine(answer_it)
    model = surface.add("m", dead)

    async with surface.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json={"model": "m"}))
        await _until(lambda: bool(dead.requests))
        await asyncio.sleep(0.1)
        surface.fleet.replace_replicas(model, [other.replica()])
        response = await asking

    steps = timing_ms(response.headers["server-timing"])
    assert response.status_code == 200
    assert steps["queue"] >= 80
    assert steps["gateway"] < steps["queue"]


@pytest.mark.parametrize(
    ("engine_answer", "outcome"),
    [
        ([b"".join(STREAM)], "answered"),
        ([answer(b"{}", status=b"500 Oh")], "failed"),
        ([answer(b"{}", status=b"400 Oh")], "refused"),
    ],
)
async def test_after_comments_the_outcome_is_the_engines(
    surface: Surface,
    recorder: KeptRecorder,
    start_engine: StartEngine,
    engine_answer: list[bytes],
    outcome: str,
) -> None:
    """A model that had to start: its client was sent comments before it was answered."""
    engine = await start_engine(script(*engine_answer))
    model = surface.add("m")

    async with surface.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json={"model": "m", "stream": True}))
        await _until(lambda: bool(surface.woken))
        await asyncio.sleep(COLD_COMMENT_S + 0.2)
        model.state = ModelState.READY
        surface.fleet.replace_replicas(model, [engine.replica()])
        response = await asking

    assert response.text.startswith(":")
    assert outcomes(recorder) == {("m", CHAT, "address", "interactive", outcome): 1}
    assert timing_ms(response.headers["server-timing"])["queue"] >= 900
    assert (outcome == "answered") == bool(recorder.observations["gateway_e2e_seconds", ("m",)])


async def test_a_failing_recorder_does_not_affect_requests(
    upstream: UpstreamClient, start_engine: StartEngine
) -> None:
    """They are answered as without it."""

    class Failing(KeptRecorder):
        def count(self, *_: object) -> None:
            raise RuntimeError("no")

    surface = Surface(upstream, recorder=Failing())
    surface.add("m", await start_engine(script(answer(b"{}"))))

    async with surface.client() as client:
        answered = await client.post(CHAT, json={"model": "m"})
        unknown = await client.post(CHAT, json={"model": "n"})

    assert (answered.status_code, unknown.status_code) == (200, 404)


async def test_tokens_are_counted_as_the_engine_reports_them(
    surface: Surface, recorder: KeptRecorder, start_engine: StartEngine
) -> None:
    """It counts prompt, cached and answer tokens, the prediction, and the mean gap of tokens."""
    engine = await start_engine(script(answer(b"{}")))
    model = surface.add("m", engine)
    async with surface.client() as client:
        await client.post(CHAT, json={"model": "m"})
    (logged,) = surface.pools.decisions.latest()
    chosen = structs.replace(logged.decision.candidates[0], cached_tokens=48.0)
    decision = structs.replace(logged.decision, id=1, candidates=[chosen])
    surface.pools.decisions.record_sent(decision)
    for number in range(1, LOG_SIZE + 1):  # later ones are decided while it runs
        surface.pools.decisions.record_sent(structs.replace(decision, id=100 + number))
    finished = Finished(
        id=decision.id,
        prompt_tokens=100,
        cached_tokens=64,
        completion_tokens=11,
        prompt_bytes=400,
        queue_s=0.0,
        prefill_s=0.1,
        decode_s=0.5,
        running=1.0,
    )
    strangers = Finished(
        **{f: getattr(finished, f) for f in finished.__struct_fields__} | {"id": 7}
    )

    scheduler = surface.pools.of(model).scheduler
    scheduler.record_update(engine.replica().id, Update(finished=[finished, strangers]))

    tokens = {key[0]: n for key, n in recorder.counts.items() if key[1] == ("m",)}
    assert tokens == {
        "gateway_prompt_tokens": 100,
        "gateway_cached_tokens": 64,
        "gateway_predicted_cached_tokens": 48,
        "gateway_completion_tokens": 11,
    }
    assert recorder.observations["gateway_inter_token_seconds", ("m",)] == [0.05]


async def _busy_engine(start_engine: StartEngine) -> tuple[FakeEngine, asyncio.Event]:
    """An engine that answers nobody before the event."""
    event = asyncio.Event()

    async def run(tracked: Visit) -> None:
        await event.wait()
        await tracked.send(answer(b"{}"))

    return await start_engine(run), event


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for is no event of ours
        await asyncio.sleep(0.005)
