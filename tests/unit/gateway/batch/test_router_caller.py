"""Lines of batches go through a router as requests of their project, behind all others."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.batch.line_caller import LineCall
from gateway.batch.model_rooms import RouterRooms
from gateway.batch.router_caller import RouterCaller
from gateway.request.inference_request import InferenceRequest
from gateway.routing.target import Target
from gateway.serving.trusted_requests import ProjectIdentities
from gateway.telemetry.update import Load, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, Visit, answer
from tests.unit.projects import project, write_projects
from tests.unit.surface import CHAT, Surface, script

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()


def _call(project_id: str = "", *, is_guaranteed: bool = False) -> LineCall:
    return LineCall(
        project_id=project_id,
        path=CHAT,
        body=BODY,
        request_id="batch_1-7-1",
        session="batch_1/0",
        is_guaranteed=is_guaranteed,
    )


def _caller(surface: Surface) -> RouterCaller:
    router = surface.router
    return RouterCaller(
        router.app,
        ProjectIdentities(router.live_config),
        router.live_config,
        router.resolver.model,
    )


@pytest.fixture
def surface(upstream: UpstreamClient) -> Surface:
    """A router for requests of its own process."""
    return Surface(upstream, trusts_requests=True)


@pytest.fixture
async def projects(surface: Surface, tmp_path: Path) -> None:
    """Authentication, with two projects, of which one may not chat."""
    path = write_projects(
        tmp_path / "projects.yaml",
        project("search", id="search"),
        project("other", id="other", routes=["/v1/embeddings"], models=["n"]),
    )
    surface.configure(auth={"projects": [path]})


async def test_a_line_is_answered(start_engine: StartEngine, surface: Surface) -> None:
    """With the request's id, and as the engine answers it."""
    engine = await start_engine(script(answer(b'{"ok": 1}')))
    surface.add("m", engine)

    found = await _caller(surface).call(_call())

    assert (found.status, found.body, found.request_id) == (200, b'{"ok": 1}', "batch_1-7-1")
    assert b"x-request-id: batch_1-7-1" in engine.requests[0].lower()


@pytest.mark.usefixtures("projects")
@pytest.mark.parametrize(("is_guaranteed", "tier"), [(False, "flex"), (True, "default")])
async def test_a_line_is_a_request_of_its_project(
    start_engine: StartEngine,
    surface: Surface,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_guaranteed: bool,
    tier: str,
) -> None:
    """Of the tier `flex`, or `default` where it must not wait; no key is needed for it."""
    surface.add("m", await start_engine(script(answer(b"{}"))))
    seen: list[InferenceRequest] = []
    resolver = surface.router.resolver
    resolve = resolver.target

    def record(request: InferenceRequest, name: str) -> Target:
        seen.append(request)
        return resolve(request, name)

    monkeypatch.setattr(resolver, "target", record)

    found = await _caller(surface).call(_call("search", is_guaranteed=is_guaranteed))

    assert found.status == 200
    (request,) = seen
    assert (request.identity.project.id, request.tier) == ("search", tier)
    assert request.session


@pytest.mark.usefixtures("projects")
async def test_a_project_that_has_gone_is_refused(surface: Surface) -> None:
    """Nobody would pay; and nobody is anonymous where clients are authenticated."""
    for project_id in ("gone", ""):
        assert (await _caller(surface).call(_call(project_id))).status == 401


@pytest.mark.usefixtures("projects")
async def test_what_a_project_may_not_use_is_refused(
    start_engine: StartEngine, surface: Surface
) -> None:
    """Before any line runs, and for each line."""
    surface.add("m", await start_engine(script(answer(b"{}"))))
    caller = _caller(surface)

    route = caller.refusal("other", CHAT, "m")
    model = caller.refusal("other", "/v1/embeddings", "m")
    unknown = caller.refusal("search", CHAT, "nothing")
    line = await caller.call(_call("other"))

    assert route is not None
    assert model is not None
    assert unknown is not None
    assert (route[0], model[0], unknown[0]) == (
        *("route_not_allowed", "model_not_found", "model_not_found"),
    )
    assert line.status == 403
    assert caller.refusal("search", CHAT, "m") is None


async def test_a_busy_gateway_says_when_to_try_again(surface: Surface) -> None:
    """A model without engines may have one later."""
    surface.add("m")
    calling = asyncio.create_task(_caller(surface).call(_call()))
    await asyncio.sleep(0.05)
    surface.fleet.remove(surface.fleet.model("m"))

    found = await calling

    assert (found.status, found.may_retry) == (503, True)
    assert found.retry_after_s > 0


async def test_a_line_that_is_given_up_leaves_its_engine(
    start_engine: StartEngine, surface: Surface
) -> None:
    """The engine stops computing."""
    reached = asyncio.Event()

    async def hang(tracked: Visit) -> None:
        reached.set()
        await tracked.until_gone()

    engine = await start_engine(hang)
    surface.add("m", engine)
    calling = asyncio.create_task(_caller(surface).call(_call()))
    await reached.wait()

    calling.cancel()

    await asyncio.wait_for(engine.gone.wait(), 5)


async def test_room_is_what_telemetry_says(start_engine: StartEngine, surface: Surface) -> None:
    """Nothing is known of a replica that has not reported, or of a model that is not there."""
    engine = await start_engine(script(answer(b"{}")))
    model = surface.add("m", engine)
    rooms = RouterRooms(surface.fleet, surface.pools, surface.live_config)
    before = rooms("m")
    replicas = surface.pools.of(model).scheduler.replicas
    (state,) = replicas.all()
    load = Load(running=3, waiting=1, pending_tokens=50, free_tokens=700)
    state.record_update(Update(is_snapshot=True, load=load))

    (room,) = rooms("m")

    assert before == []
    assert rooms("nothing") == ()
    assert (room.slots, room.sequences, room.ours) == (8, 4, 0)
    assert (room.kv_tokens, room.free_tokens, room.pending_tokens) == (1024, 700, 50)
    assert not room.is_sought


async def test_a_request_that_does_not_say_whose_it_is_is_refused(surface: Surface) -> None:
    """Nobody is let in by mistake, not even where clients are not authenticated."""
    surface.add("m")

    async with surface.client() as client:
        found = await client.post(CHAT, content=BODY)

    assert found.status_code == 401


async def test_a_model_that_may_still_become_known_is_not_refused(surface: Surface) -> None:
    """Its lines wait: the gateway has just been started."""
    caller = _caller(surface)
    surface.fleet.is_settled = False

    assert caller.refusal("", CHAT, "m") is None
    assert (await caller.call(_call())).status == 503
    surface.fleet.is_settled = True
    assert caller.refusal("", CHAT, "m") is not None


async def test_an_answer_that_is_too_large_is_not_held(
    start_engine: StartEngine, surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line fails for good, with an error that says so."""
    monkeypatch.setattr("gateway.batch.router_caller.MAX_ANSWER", 10)
    surface.add("m", await start_engine(script(answer(b'{"text": "long"}'))))

    found = await _caller(surface).call(_call())

    assert (found.status, json.loads(found.body)["error"]["code"]) == (400, "answer_too_large")
