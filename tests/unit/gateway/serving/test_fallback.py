"""The fallback chain: which model answers, and what clients see while one starts."""

import asyncio
import json
import time

import httpx
import pytest

from gateway.admission.cold_start import CHECK_S
from gateway.config.serving_options import Adapter, QueueOptions, ServingOptions
from gateway.faults import Action
from gateway.routing.fleet import ModelState
from gateway.serving.shadow import ANSWERED, SKIPPED
from gateway.telemetry.dispatch import DISPATCH, Dispatch
from gateway.telemetry.update import AdapterState
from gateway.upstream.client import UpstreamClient
from tests.gateway_process import Document
from tests.unit.conftest import FakeEngine, StartEngine, Visit, answer, chunked
from tests.unit.surface import CHAT, Surface, error_of, script

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = EVENTS + chunked(b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n") + b"0\r\n\r\n"
TOO_LONG = answer(
    b'{"error":{"message":"This model\'s maximum context length is 9 tokens."}}',
    status=b"400 Bad Request",
)
REFUSED = answer(b'{"error":{"message":"what is this?"}}', status=b"400 Bad Request")
BROKEN = answer(b"{}", status=b"500 Internal Server Error")
NOTHING = ServingOptions(queue=QueueOptions(max_requests=0))


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """A surface without models, where `a` falls back to `b` and then `c`."""
    surface = Surface(upstream)
    surface.configure(fallbacks={"a": ["b", "c"]})
    return surface


async def asked(surface: Surface, model: str, **more: object) -> httpx.Response:
    """The answer to a request for `model`."""
    async with surface.client() as client:
        return await client.post(CHAT, json={"model": model, **more})


def dispatch_of(engine: FakeEngine) -> Dispatch:
    """The dispatch that came with the engine's last request."""
    lines = engine.requests[-1].split(b"\r\n")
    (value,) = [x.partition(b": ")[2] for x in lines if x.lower().startswith(DISPATCH + b":")]
    return Dispatch.decode(value)


async def test_an_alias_is_answered_by_its_target(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The body is unchanged; the engine gets its own name, and the client a header with it."""
    engine = await start_engine(script(answer(b"{}")))
    surface.add("org/real", engine)
    surface.configure(aliases={"nick": "org/real"})
    response = await asked(surface, "nick")
    await asked(surface, "org/real")

    assert response.headers["x-gateway-model"] == "org/real"
    assert json.loads(engine.requests[0].partition(b"\r\n\r\n")[2]) == {"model": "nick"}
    assert dispatch_of(engine).model == ""
    engine.requests.pop()
    assert dispatch_of(engine).model == "org/real"


async def test_an_alias_shares_its_models_cache(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A prompt has the same keys whatever the client calls the model."""
    engine = await start_engine(script(answer(b"{}")))
    surface.add("real", engine)
    surface.configure(aliases={"nick": "real"})
    keys = []
    for name in ("nick", "real", "other"):
        surface.add("other", engine)
        await asked(surface, name, messages=[{"role": "user", "content": "x" * 2000}])
        keys.append(dispatch_of(engine).keys)

    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("unknown", "model_not_found"),
        ("unhealthy", "model_unavailable"),
        ("cold", "model_unavailable"),
        ("overloaded", "overloaded"),
        ("failing", "answered_5xx"),
        ("too long", "context_length_exceeded"),
        ("broken adapter", "adapter_broken"),
    ],
)
async def test_another_model_answers_for_one_that_cannot(
    start_engine: StartEngine, surface: Surface, trouble: str, reason: str
) -> None:
    """The client gets the fallback's answer with its name; the reason is counted."""
    second = await start_engine(script(answer(b'"second"')))
    await trouble_of("a", trouble, start_engine, surface)
    surface.add("b", second)
    response = await asked(surface, "a")

    assert (response.status_code, response.text) == (200, '"second"')
    assert response.headers["x-gateway-model"] == "b"
    assert reason in {
        f.reason for f, _ in surface.context.faults.counts if f.action is Action.FELL_BACK
    }


async def trouble_of(name: str, trouble: str, start_engine: StartEngine, surface: Surface) -> None:
    """A model that cannot answer."""
    if trouble == "unknown":
        return
    if trouble == "broken adapter":
        base = surface.add("base", await start_engine(script(answer(b'"base"'))))
        base.options = ServingOptions(adapters=[Adapter(name=name, source="gone")])
        for replica in base.replicas.values():
            replica.record_adapters(AdapterState(broken={name: "it is gone"}))
        return
    scripts = {"failing": script(BROKEN), "too long": script(TOO_LONG), "overloaded": forever}
    if run := scripts.get(trouble):
        model = surface.add(name, await start_engine(run))
        if trouble == "overloaded":
            model.options = NOTHING
            (replica,) = model.replicas.values()
            for _ in range(replica.metadata.facts.max_sequences + 1):
                surface.load(name)
            await asyncio.sleep(0.1)
        return
    model = surface.add(name)
    is_cold = trouble == "cold"
    model.state = ModelState.SCALED_TO_ZERO if is_cold else ModelState.UNHEALTHY
    model.options = ServingOptions(when_cold="fallback" if is_cold else "hold")


async def forever(tracked: Visit) -> None:
    """No answer."""
    await asyncio.sleep(60)


async def test_a_client_error_does_not_fall_back(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A request that an engine refuses is no reason to ask another model."""
    surface.add("a", await start_engine(script(REFUSED)))
    second = await start_engine(script(answer(b'"second"')))
    surface.add("b", second)
    response = await asked(surface, "a")

    assert (response.status_code, second.requests) == (400, [])


async def test_the_client_gets_the_error_of_the_last_model(
    start_engine: StartEngine, surface: Surface
) -> None:
    """If no model can answer, the error says why the last one cannot."""
    surface.add("a", await start_engine(script(BROKEN)))
    surface.add("c", await start_engine(script(TOO_LONG)))
    response = await asked(surface, "a")

    assert response.status_code == 400
    assert error_of(response) == (400, "context_length_exceeded", None)


async def test_a_stream_that_has_begun_does_not_change_its_model(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A stream of one model is not resumed by another."""

    async def break_off(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(b'data: {"choices":[{"delta":{}}]}\n\n'))
        tracked.writer.close()

    surface.add("a", await start_engine(break_off)).options = ServingOptions(
        queue=QueueOptions(max_wait_s=0.1), cold_start_timeout_s=0.1
    )
    second = await start_engine(script(STREAM))
    surface.add("b", second)
    response = await asked(surface, "a", stream=True)

    assert second.requests == []
    assert b'"error"' in response.content


async def test_a_request_waits_for_a_model_that_starts(
    start_engine: StartEngine, surface: Surface
) -> None:
    """All are answered once an engine runs, with a header for the time they waited."""
    engine = await start_engine(script(answer(b"{}")))
    model = surface.add("m")
    model.state = ModelState.SCALED_TO_ZERO
    asking = [asyncio.create_task(asked(surface, "m")) for _ in range(3)]
    await asyncio.sleep(0.2)
    waiting = surface.pools.of(model).cold_start.waiting
    surface.fleet.replace_replicas(model, [engine.replica((CHAT,))])
    answers = await asyncio.gather(*asking)

    await asyncio.sleep(2 * CHECK_S)

    assert waiting == 3 == max(surface.wakes)
    assert surface.wakes[-1] == 0
    assert [a.status_code for a in answers] == [200] * 3
    assert all(float(a.headers["x-gateway-cold-start-s"]) >= 0.1 for a in answers)


async def test_a_stream_shows_that_its_model_is_starting(
    start_engine: StartEngine, surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments and headers say so until the answer begins."""
    monkeypatch.setattr("gateway.serving.fallback.COLD_COMMENT_S", 0.05)
    engine = await start_engine(script(STREAM))
    model = surface.add("m")
    model.state, model.start_s = ModelState.SCALED_TO_ZERO, 12.5
    asking = asyncio.create_task(asked(surface, "m", stream=True))
    await asyncio.sleep(0.3)
    surface.fleet.replace_replicas(model, [engine.replica((CHAT,))])
    response = await asking

    assert response.headers["x-gateway-state"] == "scaled_to_zero"
    assert response.headers["x-gateway-expected-start-s"] == "12.5"
    assert response.text.startswith(": the model is starting\n\n")
    assert response.text.endswith('data: {"choices":[]}\n\ndata: [DONE]\n\n')


async def test_a_failed_start_is_reported_and_backs_off(surface: Surface) -> None:
    """Waiting clients get the reason, as do those that come soon after, without another start."""
    model = surface.add("m")
    model.state = ModelState.STARTING
    asking = asyncio.create_task(asked(surface, "m"))
    await asyncio.sleep(0.1)
    model.state, model.reason = ModelState.UNHEALTHY, "no such weights"
    first = await asking
    await asyncio.sleep(0.1)
    model.state = ModelState.SCALED_TO_ZERO
    wakes = len(surface.wakes)
    second = await asked(surface, "m")

    for response in (first, second):
        assert error_of(response) == (503, "model_unavailable", "model")
        assert "no such weights" in response.json()["error"]["message"]
    assert int(second.headers["retry-after"]) > 20
    assert len(surface.wakes) == wakes


async def test_a_model_that_is_deployed_again_is_tried_again(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A failure is forgotten with the entry that failed."""
    model = surface.add("m")
    model.state, model.reason = ModelState.UNHEALTHY, "no such weights"
    failed = await asked(surface, "m")
    model.state, model.deployed_s = ModelState.SCALED_TO_ZERO, 2.0
    engine = await start_engine(script(answer(b"{}")))
    asking = asyncio.create_task(asked(surface, "m"))
    await asyncio.sleep(0.1)
    surface.fleet.replace_replicas(model, [engine.replica((CHAT,))])

    assert (failed.status_code, (await asking).status_code) == (503, 200)


async def test_a_start_stays_wanted_for_a_while_after_clients_give_up(surface: Surface) -> None:
    """A client that gives up and comes back soon finds the model closer to ready."""
    model = surface.add("m")
    model.options = ServingOptions(cold_start_timeout_s=0.05)
    await asked(surface, "m")
    wakes = len(surface.wakes)
    await asyncio.sleep(4 * CHECK_S)

    assert len(surface.wakes) > wakes
    assert 0 not in surface.wakes


async def test_requests_that_wait_for_a_start_are_limited(surface: Surface) -> None:
    """The next one gets an error and a time to retry."""
    model = surface.add("m")
    model.options = ServingOptions(queue=QueueOptions(max_requests=2), cold_start_timeout_s=0.5)
    asking = [asyncio.create_task(asked(surface, "m")) for _ in range(2)]
    await asyncio.sleep(0.1)
    third = await asked(surface, "m")
    await asyncio.gather(*asking)

    assert error_of(third)[:2] == (429, "overloaded")


async def test_removing_a_model_ends_the_wait_for_its_start(surface: Surface) -> None:
    """It will have no engine."""
    model = surface.add("m")
    asking = asyncio.create_task(asked(surface, "m"))
    await asyncio.sleep(0.1)
    surface.fleet.remove(model)

    assert error_of(await asking)[:2] == (503, "model_unavailable")


async def test_a_shadow_gets_copies_that_nobody_sees(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The client gets its own model's answer; the shadow's is dropped, and its time recorded."""
    mine = await start_engine(script(answer(b'"mine"')))
    shadow = await start_engine(script(answer(b'"shadow"')))
    surface.add("m", mine)
    surface.add("s", shadow)
    surface.configure(splits={"n": {"models": {"m": 1}, "shadow": {"model": "s", "fraction": 1}}})
    answers = [await asked(surface, "n") for _ in range(3)]
    await seen(surface, ANSWERED, 3)
    (record,) = (await shadows(surface))["data"]

    assert {a.text for a in answers} == {'"mine"'}
    assert len(shadow.requests) == 3
    assert b"-shadow" in shadow.requests[0]
    assert (record["name"], record["shadow"]) == ("n", "s")
    assert record["own"]["outcomes"] == record["copies"]["outcomes"] == {ANSWERED: 3}
    assert record["copies"]["whole_s"]["p50"] > 0


async def test_a_shadow_that_does_not_run_is_not_started(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A copy is worth no engine, and no request waits for one."""
    surface.add("m", await start_engine(script(answer(b'"mine"'))))
    surface.add("s").state = ModelState.SCALED_TO_ZERO
    surface.configure(splits={"n": {"models": {"m": 1}, "shadow": {"model": "s", "fraction": 1}}})
    response = await asked(surface, "n")

    assert response.text == '"mine"'
    assert (await shadows(surface))["data"][0]["copies"]["outcomes"] == {SKIPPED: 1}
    assert surface.wakes == []


async def shadows(surface: Surface) -> Document:
    """The operators' view of shadows."""
    async with surface.client() as client:
        found: Document = (await client.get("/gateway/shadows")).json()
    return found


async def seen(surface: Surface, outcome: str, count: int) -> None:
    """Wait until copies have had an outcome."""
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        data = (await shadows(surface))["data"]
        if data and data[0]["copies"]["outcomes"] == {outcome: count}:
            return
        await asyncio.sleep(0.02)


async def test_aliases_and_splits_are_listed_as_models(
    start_engine: StartEngine, surface: Surface
) -> None:
    """An alias has the state of its model, a split that of its first ready model."""
    surface.add("cold").state = ModelState.SCALED_TO_ZERO
    engine = await start_engine(script(answer(b"{}")))
    surface.add("warm", engine)
    splits = {"both": {"models": {"cold": 1, "warm": 3}}}
    surface.configure(aliases={"nick": "cold", "lost": "nowhere"}, splits=splits)
    async with surface.client() as client:
        listing = (await client.get("/v1/models")).json()["data"]
        alone = await client.get("/v1/models/both")
        lost = await client.get("/v1/models/lost")
    cards = {card["id"]: card for card in listing}

    assert list(cards) == ["cold", "warm", "nick", "both"]
    assert (cards["nick"]["state"], cards["nick"]["stands_for"]) == ("scaled_to_zero", ["cold"])
    assert cards["both"] == alone.json()
    assert (cards["both"]["state"], cards["both"]["replicas"]) == ("ready", 1)
    assert cards["both"]["stands_for"] == ["cold", "warm"], "shares are no client's business"
    assert error_of(lost)[:2] == (404, "model_not_found")


async def test_a_name_hides_the_model_of_that_name(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Requests and the card are those of its target; a name without a target has no card."""
    surface.add("new", await start_engine(script(answer(b'"new"'))))
    surface.add("old").state = ModelState.SCALED_TO_ZERO
    surface.add("lost", await start_engine(script(answer(b'"lost"'))))
    surface.configure(aliases={"old": "new", "lost": "nowhere"})
    async with surface.client() as client:
        listing = (await client.get("/v1/models")).json()["data"]
        alone = (await client.get("/v1/models/old")).json()
        lost = await client.get("/v1/models/lost")
    cards = {card["id"]: card for card in listing}

    assert sorted(card["id"] for card in listing) == ["new", "old"]
    assert cards["old"] == alone
    assert (alone["state"], alone["stands_for"]) == ("ready", ["new"])
    assert (await asked(surface, "old")).text == '"new"'
    assert lost.status_code == (await asked(surface, "lost")).status_code == 404


async def test_a_dry_run_goes_where_the_request_would(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Over aliases, to the first of the chain that is there; nothing is woken."""
    surface.add("a").state = ModelState.SCALED_TO_ZERO
    engine = await start_engine(script(answer(b"{}")))
    surface.add("c", engine)
    surface.configure(aliases={"nick": "a"}, fallbacks={"a": ["b", "c"]})
    async with surface.client() as client:
        response = await client.post("/gateway/route", json={"model": "nick"})

    assert response.json()["model"] == "c"
    assert surface.wakes == []


async def test_a_session_keeps_its_arm_of_a_split(
    start_engine: StartEngine, surface: Surface
) -> None:
    """By the session's header, or else by the user the body names."""
    for name in ("x", "y"):
        surface.add(name, await start_engine(script(answer(b"{}"))))
    surface.configure(splits={"n": {"models": {"x": 1, "y": 1}}})
    seen: dict[str, set[str]] = {}
    async with surface.client() as client:
        for number in range(48):
            who = str(number % 12)
            for key, body, headers in (
                (f"session {who}", {"user": str(number)}, {"x-session-id": who}),
                (f"user {who}", {"user": who}, {}),
            ):
                sent = await client.post(CHAT, json={"model": "n", **body}, headers=headers)
                seen.setdefault(key, set()).add(sent.headers["x-gateway-model"])

    assert all(len(models) == 1 for models in seen.values())
    assert set.union(*seen.values()) == {"x", "y"}


async def test_a_model_that_loses_its_last_engine_falls_back_at_once(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A request does not wait for another engine to start where another model can answer."""

    async def go(tracked: Visit) -> None:
        surface.fleet.replace_replicas(model, [])
        tracked.writer.close()

    model = surface.add("a", await start_engine(go))
    model.options = ServingOptions(cold_start_timeout_s=30)
    surface.add("b", await start_engine(script(answer(b'"second"'))))
    began_s = time.monotonic()
    response = await asked(surface, "a")

    assert response.text == '"second"'
    assert time.monotonic() - began_s < model.options.cold_start_timeout_s / 2


async def test_the_answering_model_is_named_after_the_first_one_died(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The response does not begin before it is known which model answers."""

    async def begin_and_die(tracked: Visit) -> None:
        await tracked.send(EVENTS)
        surface.fleet.replace_replicas(model, [])
        tracked.writer.close()

    model = surface.add("a", await start_engine(begin_and_die))
    surface.add("b", await start_engine(script(STREAM)))
    response = await asked(surface, "a", stream=True)

    assert response.headers["x-gateway-model"] == "b"
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_permanent_error_does_not_hide_one_worth_retrying(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The client gets an error that a retry might change rather than that a model is unknown."""
    surface.add("a", await start_engine(script(BROKEN)))
    alone = await asked(surface, "a")
    surface.add("c", await start_engine(script(STREAM)), routes=("/v1/embeddings",))
    with_other = await asked(surface, "a")

    assert alone.status_code == 500
    assert error_of(with_other)[:2] == (502, "upstream_failed")


async def test_a_model_that_does_not_serve_the_route_is_skipped(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The next model of the chain that serves it answers."""
    surface.add("a", await start_engine(script(STREAM)), routes=("/v1/completions",))
    surface.add("b", await start_engine(script(answer(b'"second"'))))

    assert (await asked(surface, "a")).text == '"second"'


async def test_the_largest_share_of_waiting_requests_is_rejected_first(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Neither one client nor batch requests can take all places while a model starts."""
    model = surface.add("m")
    model.options = ServingOptions(queue=QueueOptions(max_requests=3), cold_start_timeout_s=5)

    async def ask(key: str, **headers: str) -> httpx.Response:
        async with surface.client() as client:
            every = {"authorization": f"Bearer {key}", **headers}
            return await client.post(CHAT, json={"model": "m"}, headers=every)

    greedy = [asyncio.create_task(ask("greedy")) for _ in range(2)]
    batch = asyncio.create_task(ask("other", **{"x-gateway-priority": "batch"}))
    await asyncio.sleep(0.1)
    modest = [asyncio.create_task(ask("modest")) for _ in range(2)]
    await asyncio.sleep(0.1)
    engine = await start_engine(script(answer(b"{}")))
    surface.fleet.replace_replicas(model, [engine.replica((CHAT,))])

    assert (await batch).status_code == 429
    assert [(await task).status_code for task in greedy] == [200, 429]
    assert [(await task).status_code for task in modest] == [200, 200]


async def test_a_deadline_does_not_hide_that_a_model_is_cold(surface: Surface) -> None:
    """A client with less time than the start takes learns when to retry."""
    model = surface.add("m")
    model.start_s, model.options = 12.5, ServingOptions(timeout_s=0.1)
    response = await asked(surface, "m")

    assert error_of(response)[:2] == (503, "model_unavailable")
    assert response.headers["retry-after"] == "13"


async def test_a_stream_whose_model_was_up_soon_begins_with_its_answer(
    start_engine: StartEngine, surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No comment precedes a slow answer, so it has all its headers."""
    monkeypatch.setattr("gateway.serving.fallback.COLD_COMMENT_S", 1.0)

    async def think(tracked: Visit) -> None:
        await asyncio.sleep(2.0)
        await tracked.send(STREAM)

    engine = await start_engine(think)
    model = surface.add("m")
    asking = asyncio.create_task(asked(surface, "m", stream=True))
    await asyncio.sleep(0.1)
    surface.fleet.replace_replicas(model, [engine.replica((CHAT,))])
    response = await asking

    assert response.headers["x-gateway-model"] == "m"
    assert response.text.startswith("data: ")


async def test_a_shadow_that_breaks_off_has_not_answered(
    start_engine: StartEngine, surface: Surface
) -> None:
    """It counts by its error, which no client has seen and no fault is."""

    async def break_off(tracked: Visit) -> None:
        await tracked.send(EVENTS + chunked(b'data: {"choices":[{"delta":{}}]}\n\n'))
        tracked.writer.close()

    surface.add("m", await start_engine(script(STREAM)))
    surface.add("s", await start_engine(break_off)).options = ServingOptions(
        queue=QueueOptions(max_wait_s=0.1)
    )
    surface.configure(splits={"n": {"models": {"m": 1}, "shadow": {"model": "s", "fraction": 1}}})
    await asked(surface, "n", stream=True)
    await seen(surface, "model_unavailable", 1)
    (record,) = (await shadows(surface))["data"]

    assert record["own"]["outcomes"] == {ANSWERED: 1}
    assert record["copies"]["outcomes"] == {"model_unavailable": 1}
    assert surface.context.faults.counts == []


async def test_a_shadow_that_is_full_delays_nobody(
    start_engine: StartEngine, surface: Surface
) -> None:
    """A copy waits in no queue, and no queued request is rejected for it."""
    surface.add("m", await start_engine(script(answer(b'"mine"'))))
    shadow = surface.add("s", await start_engine(forever))
    (replica,) = shadow.replicas.values()
    for _ in range(replica.metadata.facts.max_sequences + 1):
        surface.load("s")
    await asyncio.sleep(0.1)
    surface.configure(splits={"n": {"models": {"m": 1}, "shadow": {"model": "s", "fraction": 1}}})
    await asked(surface, "n")
    await seen(surface, "overloaded", 1)

    assert (await shadows(surface))["data"][0]["copies"]["outcomes"] == {"overloaded": 1}
