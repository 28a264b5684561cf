"""The request log: what a line has, where it is, and that it never holds a request up."""

import asyncio
import itertools
import json
import logging
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.config.serving_options import ServingOptions
from gateway.errors.startup import ConfigError
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.serving import request_log
from gateway.serving.request_log import LineFile
from gateway.telemetry.dispatch import DISPATCH, Dispatch
from gateway.telemetry.update import Finished, Load, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import FakeEngine, StartEngine, Visit, answer, chunked
from tests.unit.projects import KEY, bearer, project, write_projects
from tests.unit.surface import CHAT, script

PROMPT = "what a client asks"
BODY = {"model": "alias", "messages": [{"role": "user", "content": PROMPT}]}
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Bench:
    """A router that writes its log to a folder."""

    def __init__(self, upstream: UpstreamClient, folder: Path) -> None:
        self.folder = folder
        fleet = Fleet()
        self.model = ServedModel("m", created_s=1, state=ModelState.READY)
        fleet.add(self.model)
        options = RouterOptions(router="r1", log_folder=folder)
        self.router: AssembledRouter = build_router(
            fleet, lambda model, waiting: None, upstream=upstream, options=options
        )
        self.configure()

    def configure(self, **config: object) -> None:
        """Go by this gateway config."""
        fields = {"aliases": {"alias": "m"}, **config}
        self.router.live_config.apply(parse_gateway(fields))

    def serve(self, engine: FakeEngine) -> None:
        """Have the engine answer, whose telemetry has come."""
        replica = engine.replica()
        self.router.fleet.replace_replicas(self.model, [replica])

    def hear(self, update: Update) -> None:
        """A frame of the engine's telemetry comes."""
        (replica,) = self.model.replicas
        self.router.pools.of(self.model).scheduler.record_update(replica, update)

    def client(self) -> httpx.AsyncClient:
        """A client of the router."""
        transport = httpx.ASGITransport(self.router.app, client=("203.0.113.9", 5000))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def lines(self) -> list[dict[str, Any]]:
        """All lines, once the router has stopped."""
        await self.router._request_log.close()
        path = self.folder / "requests_r1.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
async def bench(upstream: UpstreamClient, tmp_path: Path) -> Bench:
    """A router without engines."""
    return Bench(upstream, tmp_path / "logs")


async def test_a_request_has_one_line(bench: Bench, start_engine: StartEngine) -> None:
    """Who asked for what, who answered, how long it took; nothing of the prompt."""
    tracked: list[bytes] = []

    async def stream(visit: Visit) -> None:
        tracked.append(visit.request)
        events = [chunked(b"data: {}\n\n"), chunked(b"data: [DONE]\n\n")]
        await visit.send(EVENTS, *events, b"0\r\n\r\n")

    bench.serve(await start_engine(stream))
    load = Load(running=0, waiting=0, pending_tokens=0, free_tokens=100)
    bench.hear(Update(is_snapshot=True, load=load))
    async with bench.client() as client:
        response = await client.post(
            CHAT, json={**BODY, "stream": True}, headers={"x-request-id": "mine"}
        )
    header = next(line for line in tracked[0].split(b"\r\n") if line.startswith(DISPATCH))
    dispatch = Dispatch.decode(header.partition(b": ")[2])
    finished = Finished(
        id=dispatch.id,
        prompt_tokens=9,
        cached_tokens=4,
        completion_tokens=2,
        prompt_bytes=0,
        queue_s=0.0,
        prefill_s=0.0,
        decode_s=0.0,
        running=1.0,
    )
    bench.hear(Update(finished=[finished]))
    (line,) = await bench.lines()

    (replica,) = bench.model.replicas
    assert line["time"].endswith("Z")
    expected = {
        "request_id": "mine",
        "router": "r1",
        "client": "203.0.113.9",
        "project": "",
        "key": "",
        "route": CHAT,
        "priority": "interactive",
        "requested_model": "alias",
        "model": "m",
        "adapter": "",
        "replica": replica,
        "attempts": 1,
        "replicas": [replica],
        "is_stream": True,
        "status": 200,
        "outcome": "answered",
        "error": "",
        "prompt_tokens": 9,
        "cached_tokens": 4,
        "completion_tokens": 2,
        "response_bytes": len(response.content),
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["ttft_s"] <= line["e2e_s"]
    assert line["queue_s"] == 0
    assert line["request_bytes"] > len(PROMPT)
    assert PROMPT not in json.dumps(line)


async def test_a_line_names_the_project_and_the_key_but_not_the_secret(
    bench: Bench, start_engine: StartEngine, tmp_path: Path
) -> None:
    """The key's id is in the admin API; the key itself is nowhere."""
    projects = write_projects(tmp_path / "projects.yaml", project("search", KEY))
    bench.configure(auth={"projects": [projects]})
    bench.serve(await start_engine(script(answer(b"{}"))))
    async with bench.client() as client:
        await client.post(CHAT, json=BODY, headers=bearer())
        await client.post(CHAT, json=BODY, headers=bearer("wrong"))
    answered, refused = await bench.lines()

    assert answered["project"]
    assert answered["key"]
    assert KEY not in json.dumps(answered)
    assert (refused["project"], refused["status"], refused["error"]) == ("", 401, "invalid_api_key")
    assert refused["client"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("body", "status", "outcome", "error"),
    [
        ({"model": "absent"}, 404, "refused", "model_not_found"),
        ({}, 400, "refused", "missing_required_parameter"),
    ],
)
async def test_a_refused_request_has_a_line_with_its_error(
    bench: Bench, body: dict[str, Any], status: int, outcome: str, error: str
) -> None:
    """Whatever it did not come to is empty."""
    async with bench.client() as client:
        await client.post(CHAT, json=body)
    (line,) = await bench.lines()

    assert (line["status"], line["outcome"], line["error"]) == (status, outcome, error)
    assert (line["model"], line["replica"], line["attempts"]) == ("", "", 0)
    assert line["requested_model"] == body.get("model", "")


async def test_each_attempt_is_in_the_line(bench: Bench, start_engine: StartEngine) -> None:
    """Also the one that failed, whichever engine it came to."""
    visits = itertools.count()

    async def die_once(visit: Visit) -> None:
        if next(visits) == 0:
            visit.writer.close()
        else:
            await visit.send(answer(b"{}"))

    engines = [await start_engine(die_once) for _ in range(2)]
    bench.router.fleet.replace_replicas(bench.model, [engine.replica() for engine in engines])
    async with bench.client() as client:
        await client.post(CHAT, json=BODY)
    (line,) = await bench.lines()

    assert (line["outcome"], line["attempts"]) == ("answered", 2)
    assert {*line["replicas"]} == {*bench.model.replicas}
    assert line["replicas"][-1] == line["replica"]


async def test_the_model_that_was_tried_last_is_named(
    bench: Bench, start_engine: StartEngine
) -> None:
    """Also if it has had no engine: the replicas are those of the models before."""
    other = ServedModel("other", created_s=1)
    other.options = ServingOptions(cold_start_timeout_s=0.05)
    bench.router.fleet.add(other)
    bench.configure(fallbacks={"m": ["other"]})
    bench.serve(await start_engine(script(answer(b"{}", status=b"500 Oh"))))
    async with bench.client() as client:
        await client.post(CHAT, json=BODY)
    (line,) = await bench.lines()

    assert (line["model"], line["status"]) == ("other", 503)
    assert {*line["replicas"]} == {*bench.model.replicas}


async def test_the_config_turns_it_off_and_names_its_folder(bench: Bench, tmp_path: Path) -> None:
    """At once, without a restart."""
    bench.configure(request_log={"enabled": False})
    async with bench.client() as client:
        await client.post(CHAT, json={})
        bench.configure(request_log={"folder": str(tmp_path / "other")})
        await client.post(CHAT, json={})

    assert await bench.lines() == []
    assert len((tmp_path / "other" / "requests_r1.jsonl").read_text().splitlines()) == 1


def test_the_folder_is_an_absolute_path() -> None:
    """A relative one would be another folder in each process."""
    with pytest.raises(ConfigError, match=r"request_log\.folder: must be an absolute path"):
        parse_gateway({"request_log": {"folder": "logs"}})


async def test_lines_that_cannot_be_written_are_dropped(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are answered; the router's log says what to do."""
    (tmp_path / "logs").write_text("a file in the folder's place")
    async with bench.client() as client:
        await client.post(CHAT, json={})
    await bench.router._request_log.close()

    (record,) = [each for each in caplog.records if each.name == request_log.__name__]
    assert record.getMessage().startswith("1 lines of the request log are lost: ")


async def test_lines_that_come_too_fast_are_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded, and the number of those that are lost is logged."""
    monkeypatch.setattr(request_log, "MAX_WAITING", 2)
    async with bench.client() as client:
        for _ in range(5):
            await client.post(CHAT, json={})

    with caplog.at_level(logging.WARNING):
        lines = await bench.lines()
    assert len(lines) == 2
    assert "3 lines of the request log are lost" in caplog.text


async def test_lines_are_written_while_the_router_runs(bench: Bench) -> None:
    """Within half a second."""
    bench.router._request_log.start()
    async with bench.client() as client:
        await client.post(CHAT, json={})
    path = bench.folder / "requests_r1.jsonl"
    async with asyncio.timeout(5):
        while not path.exists():  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.02)
    await bench.router._request_log.close()


def test_a_full_file_is_renamed(tmp_path: Path) -> None:
    """As many are kept as the config says, the newest lines in the one without a number."""
    file = LineFile(tmp_path / "requests.jsonl")
    for number in range(5):
        file.write(b"%d\n" % number, max_bytes=2, max_files=3)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "requests.jsonl.1": "4\n",
        "requests.jsonl.2": "3\n",
    }


def test_strangers_do_not_read_the_log(tmp_path: Path) -> None:
    """It has the addresses of clients."""
    path = tmp_path / "requests.jsonl"
    LineFile(path).write(b"{}\n", max_bytes=100, max_files=3)

    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
