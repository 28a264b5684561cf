"""The operators' routes, and the headers that explain decisions."""

import random
from contextlib import nullcontext
from typing import Any

import httpx
import pytest

from gateway.assembly import RouterOptions, build_router
from gateway.config.gateway import GatewayConfig
from gateway.config.serving_options import ServingOptions
from gateway.errors.access import InvalidKey
from gateway.errors.request import UnknownRoute
from gateway.identity.api_key import key_hash
from gateway.identity.project import AdminKey, Directory, Project
from gateway.rare_warning import PERIOD_S
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.serving.live_config import LiveConfig
from gateway.serving.operator_access import OperatorAccess
from gateway.telemetry.dispatch import DISPATCH, Dispatch
from gateway.telemetry.update import Finished, Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine, Visit, answer

CHAT = "/v1/chat/completions"
KEY = "an operator's long key"
BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 1000}]}


class Bench:
    """A gateway with two engines that answer everything."""

    def __init__(self, upstream: UpstreamClient, *, is_local: bool) -> None:
        self.woken: list[str] = []
        self.tracked_requests: list[bytes] = []
        self.live_config = LiveConfig()
        self.live_config.apply(GatewayConfig(open_on_loopback=True))
        self.model = ServedModel("m", created_s=1, state=ModelState.READY)
        fleet = Fleet()
        fleet.add(self.model)
        options = RouterOptions(
            is_local=is_local,
            time_of_day=lambda: 1000.0,
            rng=random.Random(1),  # noqa: S311 - it breaks ties only
        )
        router = build_router(
            fleet, self._wake, live_config=self.live_config, upstream=upstream, options=options
        )
        self.pools = router.pools
        self._transport = httpx.ASGITransport(router.app)

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client that sends `headers`."""
        return httpx.AsyncClient(
            transport=self._transport, base_url="http://localhost", headers=headers
        )

    async def run_engine(self, tracked: Visit) -> None:
        """Answer a request, and keep it."""
        self.tracked_requests.append(tracked.request)
        await tracked.send(answer(b"{}"))

    def _wake(self, model: ServedModel, waiting: int) -> None:
        self.woken += [model.name] * waiting


@pytest.fixture
def is_local() -> bool:
    """Whether the gateway listens on loopback only."""
    return True


@pytest.fixture
async def bench(start_engine: StartEngine, upstream: UpstreamClient, is_local: bool) -> Bench:
    """A gateway without an admin key."""
    bench = Bench(upstream, is_local=is_local)
    bench.model.replace_replicas(
        [(await start_engine(bench.run_engine)).replica() for _ in range(2)]
    )
    return bench


def dispatch_in(request: bytes) -> Dispatch:
    """The dispatch in a request to an engine."""
    for line in request.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name == DISPATCH:
            return Dispatch.decode(value)
    raise AssertionError("no dispatch")


async def test_an_answer_names_its_replica(bench: Bench) -> None:
    """And how much of the prompt it was thought to hold: nothing, the first time."""
    async with bench.client() as client:
        response = await client.post(CHAT, json=BODY)

    assert response.headers["x-gateway-replica"] in bench.model.replicas
    assert response.headers["x-gateway-cached-tokens"] == "0"
    assert "x-gateway-decision" not in response.headers


async def test_the_second_request_goes_where_its_prefix_is(bench: Bench) -> None:
    """Without telemetry, the router predicts that the first request's prefix is cached there."""
    async with bench.client() as client:
        first = await client.post(CHAT, json=BODY)
        second = await client.post(CHAT, json=BODY)

    assert second.headers["x-gateway-replica"] == first.headers["x-gateway-replica"]
    assert int(second.headers["x-gateway-cached-tokens"]) > 100


async def test_a_decision_explains_itself_in_a_header(bench: Bench) -> None:
    """It lists all candidates with their costs, the chosen one first."""
    async with bench.client(**{"x-gateway-explain": "1"}) as client:
        response = await client.post(CHAT, json=BODY)
    decision = httpx.Response(200, content=response.headers["x-gateway-decision"]).json()

    assert decision["model"] == "m"
    assert decision["policy"] == "marginal"
    assert decision["request_id"] == response.headers["x-request-id"]
    assert decision["replica"] == response.headers["x-gateway-replica"]
    assert {c["replica"] for c in decision["candidates"]} == bench.model.replicas.keys()
    assert decision["candidates"][0]["replica"] == decision["replica"]


async def test_the_dispatch_header_carries_the_prompts_keys(bench: Bench) -> None:
    """The engine gets the keys of the prompt, whatever the client sends under that name."""
    async with bench.client(**{"x-gateway-dispatch": "forged"}) as client:
        await client.post(CHAT, json=BODY)

    dispatch = dispatch_in(bench.tracked_requests[0])
    assert dispatch.id
    assert len(dispatch.keys) == 3 * 8
    assert dispatch.prompt_bytes > 1000
    assert b"forged" not in bench.tracked_requests[0]


async def test_a_dry_run_sends_nothing(bench: Bench) -> None:
    """`/gateway/route` answers with the decision for any inference body."""
    async with bench.client() as client:
        response = await client.post("/gateway/route", json=BODY)

    assert response.json()["replica"] in bench.model.replicas
    assert response.json()["actual"] is None
    assert bench.tracked_requests == []


async def test_a_dry_run_sees_the_prefixes_of_one_scope(bench: Bench) -> None:
    """Those of the project that it is for; without one, those that are shared by all."""
    projects = (
        Project(id="p", name="Plain"),
        Project(id="a", cache_scope="all"),
        Project(id="k", cache_scope="key"),
    )
    bench.live_config.directory.replace("files", Directory(projects=projects))
    async with bench.client() as client:
        await client.post(CHAT, json=BODY)

        async def predicted(query: str) -> int:
            response = await client.post(f"/gateway/route{query}", json=BODY)
            return int(response.json()["cached_tokens"])

        assert await predicted("") > 100
        assert await predicted("?project=a") > 100
        assert await predicted("?project=p") == await predicted("?project=Plain") == 0
        assert await predicted("?project=k&key=k") == 0
        unknown = await client.post("/gateway/route?project=nobody", json=BODY)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "project")


@pytest.mark.parametrize("source", ["config", "directory", "none"])
async def test_a_wrong_admin_key_is_refused_wherever_it_comes(bench: Bench, source: str) -> None:
    """Also on a request to a model, where it shows what projects do not see."""
    if source == "config":
        bench.live_config.apply(GatewayConfig(admin_key=KEY))
    elif source == "directory":
        admin = AdminKey(id="admin", hash=key_hash(KEY.encode()))
        bench.live_config.directory.replace("files", Directory(admin_keys=(admin,)))
    async with bench.client() as client:
        wrong = await client.post(CHAT, json=BODY, headers={"x-gateway-admin-key": KEY[:-1]})
        right = await client.post(CHAT, json=BODY, headers={"x-gateway-admin-key": KEY})

    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert right.status_code == (401 if source == "none" else 200)
    assert all(KEY.encode() not in request for request in bench.tracked_requests)


@pytest.mark.parametrize(
    ("url", "body", "status", "code"),
    [
        ("/gateway/route", {"model": "absent"}, 404, "model_not_found"),
        ("/gateway/route", {}, 400, "missing_required_parameter"),
        ("/gateway/route?path=/nowhere", BODY, 400, "invalid_value"),
        ("/gateway/route?path=/v1/embeddings", BODY, 404, "unsupported_route"),
    ],
)
async def test_a_dry_run_fails_as_the_request_would(
    bench: Bench, url: str, body: dict[str, Any], status: int, code: str
) -> None:
    """The same errors, in the same shape."""
    async with bench.client() as client:
        response = await client.post(url, json=body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_decisions_are_kept_with_their_outcomes(bench: Bench) -> None:
    """The newest is first; finished requests have their engine's report."""
    async with bench.client() as client:
        for number in range(3):
            await client.post(CHAT, json=BODY, headers={"x-request-id": f"number-{number}"})
        dispatch = dispatch_in(bench.tracked_requests[1])
        finished = Finished(
            id=dispatch.id,
            prompt_tokens=300,
            cached_tokens=256,
            completion_tokens=7,
            prompt_bytes=dispatch.prompt_bytes,
            queue_s=0.25,
            prefill_s=0.5,
            decode_s=1.0,
            running=1.0,
        )
        replica = next(iter(bench.model.replicas))
        bench.pools.of(bench.model).scheduler.record_update(replica, Update(finished=[finished]))
        decisions = (await client.get("/gateway/decisions")).json()["data"]
        limited = (await client.get("/gateway/decisions?limit=1")).json()["data"]

    assert [d["request_id"] for d in decisions] == ["number-2", "number-1", "number-0"]
    assert decisions[0]["actual"] is None
    assert decisions[1]["actual"]["cached_tokens"] == 256
    assert decisions[1]["actual"]["ttft_s"] == 0.75
    assert limited == decisions[:1]


@pytest.mark.parametrize(
    ("is_local", "admin_key", "sent", "status"),
    [
        (True, None, "", 200),
        (False, None, "", 404),
        (False, None, f"Bearer {KEY}", 404),
        (True, KEY, "", 401),
        (True, KEY, "Bearer wrong", 401),
        (False, KEY, f"Bearer {KEY}", 200),
    ],
)
async def test_only_operators_are_let_in(
    bench: Bench, admin_key: str | None, sent: str, status: int
) -> None:
    """They need the key, unless the gateway can only be reached from its own machine."""
    bench.live_config.apply(GatewayConfig(admin_key=admin_key, open_on_loopback=True))

    async with bench.client(authorization=sent) as client:
        answers = [
            await client.get("/gateway/decisions"),
            await client.get("/gateway/config"),
            await client.post("/gateway/route", json=BODY),
        ]

    assert [answer.status_code for answer in answers] == [status] * 3


async def test_operators_without_a_key_are_let_in_only_if_the_config_says_so(bench: Bench) -> None:
    """By default there are no such routes, on loopback either."""
    bench.live_config.apply(GatewayConfig())

    async with bench.client() as client:
        response = await client.get("/gateway/config")

    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "127.0.0.1", "origin": "http://localhost:3000"}, 200),
        ({"host": "evil.example"}, 404),
        ({"host": "127.0.0.1.evil.example:8000"}, 404),
        ({"host": "localhost@evil.example"}, 404),
        ({"host": ""}, 404),
        ({"host": "localhost", "origin": "https://evil.example"}, 404),
        ({"host": "localhost", "origin": "null"}, 404),
        ({"host": "localhost", "x-forwarded-for": "203.0.113.9"}, 404),
        ({"host": "localhost", "x-forwarded-for": "127.0.0.1"}, 404),
        ({"host": "localhost", "x-forwarded-host": "api.example"}, 404),
        ({"host": "localhost", "x-forwarded-proto": "https"}, 404),
        ({"host": "localhost", "forwarded": "for=203.0.113.9"}, 404),
        ({"host": "localhost", "x-real-ip": "203.0.113.9"}, 404),
        ({"host": "localhost", "via": "1.1 proxy"}, 404),
    ],
)
async def test_an_open_route_is_closed_to_whoever_may_not_be_on_this_machine(
    bench: Bench, headers: dict[str, str], status: int
) -> None:
    """Another name for the machine, or a header of another proxy, closes it."""
    async with bench.client() as client:
        response = await client.get("/gateway/config", headers=headers)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("lines", "is_open"),
    [
        (["127.0.0.1"], True),
        (["::1"], True),
        (["203.0.113.9", "127.0.0.1"], False),
        (["203.0.113.9, 127.0.0.1"], False),
        (["203.0.113.9"], False),
        ([], False),
    ],
)
def test_only_the_gateways_own_proxy_may_name_the_client(lines: list[str], is_open: bool) -> None:
    """Behind it, there is one line of `x-forwarded-for`: its own, with a loopback address."""
    live_config = LiveConfig()
    live_config.apply(GatewayConfig(open_on_loopback=True))
    access = OperatorAccess(live_config, is_local=True, is_forwarded=True)
    headers = [(b"host", b"localhost"), *((b"x-forwarded-for", line.encode()) for line in lines)]
    scope = {"method": "GET", "path": "/gateway/config", "headers": headers}

    with nullcontext() if is_open else pytest.raises(UnknownRoute):
        access.check(scope)


@pytest.mark.parametrize(
    "path",
    [
        "/%67ateway/config",
        "/gateway%2Fconfig",
        "/%2567ateway/config",
        "//gateway/config",
        "/gateway/config/",
        "/gateway/config;a=b",
        "/GATEWAY/config",
        "/gateway/conf%69g?a=b",
    ],
)
async def test_an_operators_route_has_one_spelling(bench: Bench, path: str) -> None:
    """Rules of another proxy about `/gateway` cannot be passed by another way to write it."""
    bench.live_config.apply(GatewayConfig(admin_key=KEY))

    async with bench.client(authorization=f"Bearer {KEY}") as client:
        other = await client.get(httpx.URL("http://localhost").copy_with(raw_path=path.encode()))
        plain = await client.get("/gateway/config?a=b")

    assert (other.status_code, plain.status_code) == (404, 200)


def test_wrong_keys_are_logged_but_not_each_of_many(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the address, and how many there were."""
    now_s = 0.0
    live_config = LiveConfig()
    live_config.apply(GatewayConfig(admin_key=KEY))
    access = OperatorAccess(live_config, clock=lambda: now_s)
    scope = {
        "method": "GET",
        "path": "/gateway/config",
        "client": ("203.0.113.9", 1),
        "headers": [(b"authorization", b"Bearer wrong")],
    }

    for _ in range(100):
        with pytest.raises(InvalidKey):
            access.check(scope)
    now_s = PERIOD_S
    with pytest.raises(InvalidKey):
        access.check(scope)

    assert [record.getMessage() for record in caplog.records] == [
        "wrong admin key for /gateway/config from 203.0.113.9"
        f" ({count} times since the last such line)"
        for count in (1, 100)
    ]


async def test_the_config_in_force_is_shown_without_secrets(bench: Bench) -> None:
    """It shows names, limits and a config rejected since, but never the operators' key."""
    await bench.live_config.adopt({"aliases": {"x": "m"}, "admin_key": KEY})
    await bench.live_config.adopt({"aliases": {"x": "x"}})

    async with bench.client(authorization=f"Bearer {KEY}") as client:
        response = await client.get("/gateway/config")

    (router,) = response.json()["data"]
    assert router["config"]["aliases"] == {"x": "m"}
    assert router["refused"]["problems"] == ["gateway: aliases.x: resolves to itself: x -> x"]
    assert KEY not in response.text


async def test_a_session_prefers_its_replica(bench: Bench) -> None:
    """Where nothing else speaks for either, `x-session-id` does, in a dry run as well."""
    replicas: dict[str, set[str]] = {}
    async with bench.client() as client:
        for number in range(60):
            session = f"session-\u00fc-{number % 30}".encode("latin-1")
            headers = {b"x-session-id": session}
            text = {"messages": [{"role": "user", "content": str(number)}]}
            dry = await client.post("/gateway/route", json=BODY | text, headers=headers)
            sent = await client.post(CHAT, json=BODY | text, headers=headers)
            found = replicas.setdefault(str(number % 30), set())
            found |= {dry.json()["replica"], sent.headers["x-gateway-replica"]}

    assert [len(found) for found in replicas.values()] == [1] * 30
    assert set.union(*replicas.values()) == set(bench.model.replicas)


async def test_a_dry_run_starts_no_engine(bench: Bench) -> None:
    """Asking where a request would go starts no engine; sending one does."""
    bench.model.replace_replicas([])
    bench.model.state = ModelState.SCALED_TO_ZERO
    bench.model.options = ServingOptions(cold_start_timeout_s=0.01)
    async with bench.client() as client:
        dry = await client.post("/gateway/route", json=BODY)
        woken = list(bench.woken)
        await client.post(CHAT, json=BODY)

    assert (dry.status_code, woken, set(bench.woken)) == (503, [], {"m"})
