"""All routers as one: rows name their routers, and who does not answer is missing."""

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.faults import Action, Fault
from gateway.inspection import all_routers
from gateway.inspection.all_routers import PeerAnswers
from gateway.inspection.model_rows import merged_models
from gateway.inspection.query import decode_query, encode_rows
from gateway.inspection.replica_rows import merged_replicas
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Load, Update, pack_keys, pack_tokens
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, Visit, answer
from tests.unit.surface import CHAT, error_of, script

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
FACTS = EngineFacts(
    engine="sim",
    routes=(CHAT,),
    kv_tokens=1000,
    block_size=16,
    max_sequences=4,
    max_model_len=1000,
)


@dataclass
class Peers:
    """Other routers of this process; those in `silent` never answer."""

    routers: dict[str, AssembledRouter] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    garbled: dict[str, bytes] = field(default_factory=dict)

    async def ask(self, query: bytes, timeout_s: float) -> PeerAnswers:
        """Ask each in turn."""
        rows = {
            name: encode_rows(await router.inspector.rows(decode_query(query)))
            for name, router in self.routers.items()
        }
        if self.silent:
            await asyncio.sleep(timeout_s)
        return PeerAnswers({**rows, **self.garbled}, self.silent)


def make_router(name: str, peers: Peers, upstream: UpstreamClient) -> AssembledRouter:
    """A router with one model, `m`, whose engine is given later."""
    fleet = Fleet()
    fleet.add(ServedModel("m", created_s=1, state=ModelState.READY))
    options = RouterOptions(router=name, is_local=True, peers=peers, time_of_day=lambda: 1000.0)
    router = build_router(fleet, lambda model, waiting: None, upstream=upstream, options=options)
    router.live_config.apply(parse_gateway({"open_on_loopback": True}))
    return router


def client_of(router: AssembledRouter) -> httpx.AsyncClient:
    """A client of one router."""
    transport = httpx.ASGITransport(router.app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture
def peers() -> Peers:
    """The routers that `a` knows."""
    return Peers()


@pytest.fixture
async def routers(
    peers: Peers, upstream: UpstreamClient, start_engine: StartEngine
) -> list[AssembledRouter]:
    """Routers `a`, which is asked, and `b`, with one engine."""
    engine = await start_engine(script(answer(b"{}")))
    a, b = (make_router(name, peers, upstream) for name in "ab")
    peers.routers["b"] = b
    for router in (a, b):
        router.fleet.model("m").replace_replicas([engine.replica()])
    return [a, b]


@pytest.mark.parametrize(
    "topic", ["config", "decisions", "faults", "models", "replicas", "shadows"]
)
async def test_every_listing_is_of_all_routers(routers: list[AssembledRouter], topic: str) -> None:
    """It names the routers that have answered, and nobody is missing."""
    async with client_of(routers[0]) as client:
        page = (await client.get(f"/gateway/{topic}")).json()

    assert (page["object"], page["routers"], page["missing"]) == ("list", ["a", "b"], [])


async def test_rows_name_their_router(routers: list[AssembledRouter]) -> None:
    """Decisions of both are in one list, the newest first, as many as were asked for."""
    async with client_of(routers[0]) as first, client_of(routers[1]) as second:
        for number, client in enumerate((first, second, first)):
            await client.post(CHAT, json=BODY, headers={"x-request-id": f"n{number}"})
        decisions = (await first.get("/gateway/decisions")).json()["data"]
        limited = (await first.get("/gateway/decisions?limit=2")).json()["data"]
        others = (await first.get("/gateway/decisions?model=other")).json()["data"]

    assert sorted((d["request_id"], d["router"]) for d in decisions) == [
        ("n0", "a"),
        ("n1", "b"),
        ("n2", "a"),
    ]
    assert (limited, others) == (decisions[:2], [])


async def test_faults_are_counted_for_each_router(routers: list[AssembledRouter]) -> None:
    """The same fault of two routers makes two rows."""
    fault = Fault("m", "broke_off", Action.RETRIED)
    for router, times in zip(routers, (1, 2), strict=True):
        for _ in range(times):
            router.context.faults.count(fault)
    async with client_of(routers[0]) as client:
        rows = (await client.get("/gateway/faults")).json()["data"]

    assert [(row["router"], row["count"]) for row in rows] == [("a", 1), ("b", 2)]


async def test_each_router_shows_its_config(routers: list[AssembledRouter]) -> None:
    """A router that has not adopted the newest one is seen."""
    routers[0].live_config.apply(parse_gateway({"open_on_loopback": True, "max_body_mb": 7}))
    async with client_of(routers[0]) as client:
        rows = (await client.get("/gateway/config")).json()["data"]

    assert [(row["router"], row["config"]["max_body_mb"]) for row in rows] == [("a", 7), ("b", 32)]


async def test_a_silent_router_is_missing_and_not_waited_for(
    routers: list[AssembledRouter], peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes after the time limit, with what the others say."""
    monkeypatch.setattr(all_routers, "TIMEOUT_S", 0.05)
    peers.silent.append("hung")
    async with client_of(routers[0]) as client, asyncio.timeout(2):
        page = (await client.get("/gateway/config")).json()
        unknown = await client.get("/gateway/requests/nobody")

    assert (page["routers"], page["missing"]) == (["a", "b"], ["hung"])
    assert error_of(unknown)[:2] == (404, "request_not_found")
    assert "did not answer: hung" in unknown.json()["error"]["message"]


async def test_a_router_of_another_release_is_missing(
    routers: list[AssembledRouter], peers: Peers
) -> None:
    """Its answer cannot be read; those of the others can."""
    peers.garbled["new"] = b"\x00"
    async with client_of(routers[0]) as client:
        page = (await client.get("/gateway/faults")).json()

    assert (page["routers"], page["missing"]) == (["a", "b"], ["new"])


@pytest.mark.parametrize("id_", ["mine", "a/b", "x%20y", "{id}"])
async def test_a_request_is_found_wherever_it_went(
    routers: list[AssembledRouter], id_: str
) -> None:
    """At the other router: who answered it, how it ended, and why it went there."""
    async with client_of(routers[0]) as first, client_of(routers[1]) as second:
        await second.post(CHAT, json=BODY, headers={"x-request-id": id_})
        url = httpx.URL("http://localhost").copy_with(
            path="/gateway/requests/" + id_.replace("%", "%25")
        )
        found = (await first.get(url)).json()

    (row,) = found["data"]
    assert (row["router"], row["state"], row["request_id"]) == ("b", "ended", id_)
    assert (row["status"], row["outcome"], row["attempts"]) == (200, "answered", 1)
    (decision,) = row["decisions"]
    assert decision["replica"] == row["replica"] == row["replicas"][0]


async def test_a_request_under_way_is_found(
    peers: Peers, upstream: UpstreamClient, start_engine: StartEngine
) -> None:
    """It runs, and has its replica."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def wait(visit: Visit) -> None:
        arrived.set()
        await release.wait()
        await visit.send(answer(b"{}"))

    router = make_router("a", peers, upstream)
    engine = await start_engine(wait)
    router.fleet.model("m").replace_replicas([engine.replica()])
    async with client_of(router) as client:
        headers = {"x-request-id": "slow"}
        task = asyncio.create_task(client.post(CHAT, json=BODY, headers=headers))
        await arrived.wait()
        (row,) = (await client.get("/gateway/requests/slow")).json()["data"]
        release.set()
        await task

    assert (row["state"], row["replicas"], row["status"]) == ("running", [engine.replica().id], 0)


async def test_a_replica_has_one_row_with_the_view_of_each_router(
    routers: list[AssembledRouter],
) -> None:
    """What telemetry says is there once; the state is the worst that a router sees."""
    replica = Replica(
        "r", ReplicaMetadata(model="m", host="h", port=1, key="", facts=FACTS, pid=77), "node-1"
    )
    load = Load(running=3, waiting=2, pending_tokens=50, free_tokens=400)
    update = Update(
        is_snapshot=True, added=pack_keys([1, 2]), added_tokens=pack_tokens([8, 16]), load=load
    )
    for router in routers:
        model = router.fleet.model("m")
        router.fleet.replace_replicas(model, [replica])
    a, b = (router.pools.of(router.fleet.model("m")).scheduler for router in routers)
    b.record_update("r", update)
    a.replicas.back_off(replica)
    fault = Fault("m", "unreachable", Action.RETRIED)
    routers[0].context.faults.record(fault, request_id="q", replica="r", message="refused")
    async with client_of(routers[0]) as client:
        (row,) = (await client.get("/gateway/replicas")).json()["data"]
        none = (await client.get("/gateway/replicas?model=other")).json()["data"]

    assert (row["node"], row["pid"], row["address"], row["state"]) == (
        *("node-1", 77, "h:1", "backoff"),
    )
    assert (row["running"], row["waiting"], row["pending_tokens"]) == (3, 2, 50)
    assert (row["kv_tokens"], row["free_kv_tokens"], row["prefixes"]) == (1000, 400, 2)
    assert [(view["router"], view["state"]) for view in row["routers"]] == [
        ("a", "backoff"),
        ("b", "ready"),
    ]
    assert row["errors"] == 1
    assert row["routers"][0]["last_error"] == {
        "at_s": 1000.0,
        "reason": "unreachable",
        "action": "retried",
        "request": "q",
        "message": "refused",
    }
    assert none == []


async def test_a_model_is_in_the_worst_state_that_a_router_sees(
    routers: list[AssembledRouter],
) -> None:
    """With that router's reason; replicas are counted once, requests of all routers together."""
    b = routers[1].fleet.model("m")
    b.replace_replicas([])
    async with client_of(routers[0]) as client:
        (row,) = (await client.get("/gateway/models")).json()["data"]

    assert row == {
        "model": "m",
        "state": "starting",
        "reason": "its last engine is gone",
        "replicas": 0,
        "replica_states": {},
        "in_flight": 0,
        "queued": 0,
        "awaiting_start": 0,
    }


def test_requests_of_a_model_are_summed_over_routers() -> None:
    """Each router knows its own."""
    row: dict[str, object] = {
        "model": "m",
        "state": "ready",
        "in_flight": 1,
        "queued": 2,
        "awaiting_start": 3,
    }

    (merged,) = merged_models([{"router": "a", **row}, {"router": "b", **row}])

    assert (merged["in_flight"], merged["queued"], merged["awaiting_start"]) == (2, 4, 6)


def test_a_state_of_another_release_hides_no_known_one() -> None:
    """While the gateway is upgraded, routers may use words that others do not know."""
    view = {"requests": 0, "queued": 0, "errors": 0, "last_error": None, "free_kv_tokens": None}
    rows: list[dict[str, object]] = [
        {"replica": "r", "model": "m", "router": "a", "state": "resting", **view},
        {"replica": "r", "model": "m", "router": "b", "state": "draining", **view},
    ]

    (row,) = merged_replicas(rows)

    assert row["state"] == "draining"
