"""Requests of projects with limits, from their admission to their end, with fake engines."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.errors.gateway_error import GatewayError
from gateway.errors.limits import Overloaded, QuotaExceeded, RateLimited
from gateway.header_names import DISPATCH
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.ledger.calendar import period_start_s
from gateway.ledger.price import Price
from gateway.ledger.view import AccountsView, MinuteUsage, Spend
from gateway.limits.meter import Meter
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.fallback import FallbackChain
from gateway.serving.target_resolver import TargetResolver
from gateway.telemetry.dispatch import Dispatch, Origin
from gateway.telemetry.update import Load, Update
from gateway.telemetry.usage import Reservation, UsageRecord
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
ROUTES = (CHAT, "/v1/messages", "/v1/embeddings", "/tokenize")
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = EVENTS + chunked(b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n") + b"0\r\n\r\n"
GENEROUS = RateLimit(requests_per_minute=10, tokens_per_minute=10_000, concurrent_requests=9)


def replying(*parts: bytes, closes: bool = False) -> Script:
    """Answer with `parts`."""

    async def run(visit: Visit) -> None:
        await visit.send(*parts)
        if closes:
            visit.writer.close()

    return run


ANSWER = replying(answer(b"{}"))
BROKEN = replying(b"", closes=True)


@dataclass
class LimitedModels:
    """A router with two models, whose engines the test plays; `m` falls back to `spare`."""

    upstream: UpstreamClient
    start_engine: StartEngine
    limits: tuple[RateLimit, ...] = (GENEROUS,)
    engines: list[FakeEngine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet()
        self.clock_s = 1000.0
        options = RouterOptions(clock=lambda: self.clock_s)
        self.router: AssembledRouter = build_router(
            self.fleet, lambda *_: None, upstream=self.upstream, options=options
        )
        for name in ("m", "spare"):
            model = ServedModel(name, created_s=1)
            model.options = ServingOptions(queue=QueueOptions(max_wait_s=0.2), when_cold="fallback")
            self.fleet.add(model)

    async def has(self, *scripts: Script, model: str = "m") -> list[Replica]:
        """Engines of a model that answer so."""
        engines = [await self.start_engine(script) for script in scripts]
        self.engines += engines
        replicas = [engine.replica(ROUTES) for engine in engines]
        self.fleet.replace_replicas(self.fleet.model(model), replicas)
        return replicas

    async def ask(
        self,
        path: str = CHAT,
        *,
        models: tuple[str, ...] = ("m",),
        limits: tuple[RateLimit, ...] | None = None,
        spend: tuple[SpendLimit, ...] = (),
        **fields: object,
    ) -> Client:
        """Have a request answered; the errors that the application would send are raised."""
        fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        body = json.dumps(fields).encode()
        rates = limits or self.limits
        project = Project(id="proj_a", name="team-a", rate_limits=rates, spend_limits=spend)
        request = InferenceRequest(
            head=parse_head(path, body, b""),
            path=path,
            headers=[(b"content-type", b"application/json")],
            body=body,
            request_id=b"id",
            identity=ClientIdentity(project=project, key="key_1"),
            arrived_s=asyncio.get_running_loop().time(),
        )
        self.client = Client()
        resolver = TargetResolver(self.fleet)
        chain = FallbackChain(request, models, resolver, self.router.context, self.client.response)
        await chain.run()
        return self.client

    def settle(self, number: int, tokens: int, *, model: str = "m") -> None:
        """Have an engine report the attempt that it got last, and what it took."""
        dispatch = self.dispatch(number)
        origin = dispatch.origin or Origin()
        reservation = Reservation(
            id=dispatch.id,
            project=origin.project,
            key=origin.key,
            model=model,
            tokens=origin.reserved_tokens,
            is_counted=origin.is_counted,
        )
        usage = UsageRecord(
            epoch=1,
            seq=1,
            id=dispatch.id,
            origin=origin,
            model=model,
            arrived_s=0,
            ended_s=0,
            prompt_tokens=tokens,
        )
        scheduler = self.router.pools.of(self.fleet.model(model)).scheduler
        replica = f"replica-{self.engines[number].address[1]}"
        scheduler.record_update(replica, Update(reserved=[reservation], usage=[usage]))

    def dispatch(self, number: int) -> Dispatch:
        """Dispatch of the last request to an engine."""
        lines = self.engines[number].requests[-1].split(b"\r\n")
        (value,) = [x.partition(b": ")[2] for x in lines if x.lower().startswith(DISPATCH + b":")]
        return Dispatch.decode(value)

    async def until_queued(self) -> None:
        """Wait until a request waits for an engine of `m`."""
        admission = self.router.pools.of(self.fleet.model("m")).admission
        async with asyncio.timeout(PATIENCE_S):
            while not admission.demands:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)

    @property
    def meters(self) -> list[Meter]:
        """All meters of rates."""
        return list(self.router.limits.rates.meters)

    @property
    def used(self) -> list[tuple[int, int, int]]:
        """Requests, tokens and running requests of every meter."""
        return [(m.used_requests, m.used_tokens, m.running) for m in self.meters]


@pytest.fixture
def limited(upstream: UpstreamClient, start_engine: StartEngine) -> LimitedModels:
    """A model without engines, and a project with generous limits."""
    return LimitedModels(upstream, start_engine)


async def test_every_answer_tells_what_the_limits_leave(limited: LimitedModels) -> None:
    """A stream at its head; what was expected counts until the engine tells what it took."""
    await limited.has(replying(STREAM))
    client = await limited.ask(stream=True, max_tokens=40)
    headers = client.headers
    reserved = 10_000 - int(headers[b"x-ratelimit-remaining-tokens"])
    assert 40 < reserved < 100
    assert {name: headers[name] for name in headers if name.startswith(b"x-ratelimit")} == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"1m0s",
        b"x-ratelimit-limit-tokens": b"10000",
        b"x-ratelimit-remaining-tokens": b"%d" % (10_000 - reserved),
        b"x-ratelimit-reset-tokens": b"1m0s",
    }
    origin = limited.dispatch(0).origin
    assert origin is not None
    assert origin.reserved_tokens == reserved
    assert limited.used == [(1, reserved, 0)]
    limited.settle(0, 77)
    assert limited.used == [(1, 77, 0)]


async def test_a_request_above_a_limit_reaches_no_engine(limited: LimitedModels) -> None:
    """The client learns when to come back, and what the limits are."""
    await limited.has(ANSWER)
    limit = (RateLimit(requests_per_minute=1),)
    await limited.ask(limits=limit)
    limited.clock_s += 18
    with pytest.raises(RateLimited, match=r"Used 1, Requested 1\. Please try again in 42s"):
        await limited.ask(limits=limit)
    assert dict(limited.client.response.headers)[b"x-ratelimit-reset-requests"] == b"42s"
    assert len(limited.engines[0].requests) == 1
    assert limited.used == [(1, limited.used[0][1], 0)]


async def test_anthropics_clients_get_their_own_headers(limited: LimitedModels) -> None:
    """On Anthropic's routes limits have Anthropic's names."""
    await limited.has(ANSWER)
    client = await limited.ask("/v1/messages")
    assert client.headers[b"anthropic-ratelimit-requests-remaining"] == b"9"
    assert b"x-ratelimit-limit-requests" not in client.headers


async def test_a_request_in_a_queue_holds_its_place(limited: LimitedModels) -> None:
    """If it is shed then, it gives all of it back."""
    (replica,) = await limited.has(ANSWER)
    scheduler = limited.router.pools.of(limited.fleet.model("m")).scheduler
    full = Load(running=8, waiting=8, pending_tokens=9, free_tokens=0)
    scheduler.record_update(replica.id, Update(is_snapshot=True, load=full))
    waiting = asyncio.create_task(limited.ask(limits=(RateLimit(requests_per_minute=1),)))
    await limited.until_queued()
    assert [(meter.held_requests, meter.running) for meter in limited.meters] == [(1, 1)]
    with pytest.raises(RateLimited):
        await limited.ask(limits=(RateLimit(requests_per_minute=1),))
    with pytest.raises(Overloaded):
        await asyncio.wait_for(waiting, PATIENCE_S)
    assert limited.used == [(0, 0, 0)]


async def test_a_request_that_has_waited_is_refused_if_others_have_taken_its_place(
    limited: LimitedModels,
) -> None:
    """Another router's request has come to an engine meanwhile."""
    (replica,) = await limited.has(ANSWER)
    scheduler = limited.router.pools.of(limited.fleet.model("m")).scheduler
    full = Load(running=8, waiting=8, pending_tokens=9, free_tokens=0)
    scheduler.record_update(replica.id, Update(is_snapshot=True, load=full))
    waiting = asyncio.create_task(limited.ask(limits=(RateLimit(requests_per_minute=1),)))
    await limited.until_queued()
    foreign = Reservation(id=5, project="proj_a", key="k", model="m", tokens=9)
    idle = Load(running=0, waiting=0, pending_tokens=0, free_tokens=1024)
    scheduler.record_update(replica.id, Update(load=idle, reserved=[foreign]))
    with pytest.raises(RateLimited):
        await asyncio.wait_for(waiting, PATIENCE_S)
    assert limited.engines[0].requests == []
    assert limited.used == [(1, 9, 1)]


async def test_a_client_that_leaves_the_queue_gives_all_back(limited: LimitedModels) -> None:
    """Its task is cancelled."""
    (replica,) = await limited.has(ANSWER)
    scheduler = limited.router.pools.of(limited.fleet.model("m")).scheduler
    full = Load(running=8, waiting=8, pending_tokens=9, free_tokens=0)
    scheduler.record_update(replica.id, Update(is_snapshot=True, load=full))
    waiting = asyncio.create_task(limited.ask())
    await limited.until_queued()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limited.used == [(0, 0, 0)]


async def test_a_refused_request_counts_as_one_but_costs_no_tokens(limited: LimitedModels) -> None:
    """The engine has answered 400, and done nothing."""
    await limited.has(replying(answer(b"{}", status=b"400 Bad Request")))
    client = await limited.ask()
    assert client.status == 400
    assert client.headers[b"x-ratelimit-remaining-requests"] == b"9"
    assert limited.used == [(1, 0, 0)]


async def test_a_retry_counts_once_and_says_so(limited: LimitedModels) -> None:
    """The second attempt is no request of its own, at no router."""
    calls: list[int] = []

    async def fail_first(visit: Visit) -> None:
        calls.append(1)
        await (BROKEN if len(calls) == 1 else ANSWER)(visit)

    await limited.has(fail_first, fail_first)
    await limited.ask()
    attempts = sorted(
        origin.attempt
        for number in (0, 1)
        if (origin := limited.dispatch(number).origin) is not None
    )
    assert attempts == [1, 2]
    assert [used[0] for used in limited.used] == [1]


@pytest.mark.parametrize("is_reported", [True, False])
async def test_a_retry_counts_at_other_routers_if_they_have_not_heard_of_the_request(
    limited: LimitedModels, *, is_reported: bool
) -> None:
    """The engine that got it first hangs, or breaks off before it has told anybody."""

    async def fail_first(visit: Visit) -> None:
        number = next(i for i, each in enumerate(limited.engines) if each.requests)
        if sum(len(each.requests) for each in limited.engines) > 1:
            await ANSWER(visit)
            return
        if is_reported:
            limited.settle(number, 9)
        await BROKEN(visit)

    await limited.has(fail_first, fail_first)
    await limited.ask()
    origins = [limited.dispatch(number).origin for number in (0, 1)]
    counted = {each.attempt: each.is_counted for each in origins if each is not None}
    assert counted == {1: False, 2: is_reported}
    assert [used[0] for used in limited.used] == [1]


async def test_an_attempt_that_reaches_no_engine_is_none(limited: LimitedModels) -> None:
    """The one that does is the first, so that other routers count the request."""
    replicas = await limited.has(ANSWER, ANSWER)
    limited.engines[0].close()
    scheduler = limited.router.pools.of(limited.fleet.model("m")).scheduler
    busy = Load(running=7, waiting=0, pending_tokens=500, free_tokens=500)
    scheduler.record_update(replicas[1].id, Update(is_snapshot=True, load=busy))
    await limited.ask()
    assert limited.router.context.faults.counts
    origin = limited.dispatch(1).origin
    assert origin is not None
    assert origin.attempt == 1
    assert [used[0] for used in limited.used] == [1]


async def test_a_request_that_falls_back_gives_back_what_it_held(limited: LimitedModels) -> None:
    """Where no engine has had it, it counts for the model that answers alone."""
    await limited.has(ANSWER, model="spare")
    limits = (
        RateLimit(model="m", requests_per_minute=5),
        RateLimit(model="spare", requests_per_minute=5),
    )
    await limited.ask(models=("m", "spare"), limits=limits)
    used = {meter.scope[0]: meter.used_requests for meter in limited.meters}
    assert used == {"m": 0, "spare": 1}


async def test_a_fallback_is_no_further_request(limited: LimitedModels) -> None:
    """Other routers count the first attempt alone; so does this one, and its limit allows it."""
    await limited.has(replying(answer(b"{}", status=b"500 Internal Server Error")))
    await limited.has(ANSWER, model="spare")
    limits = (RateLimit(requests_per_minute=1, concurrent_requests=1),)
    await limited.ask(models=("m", "spare"), limits=limits)
    assert limited.client.status == 200
    assert [used[0] for used in limited.used] == [1]
    with pytest.raises(RateLimited):
        await limited.ask(models=("m", "spare"), limits=limits)


async def test_a_limit_is_no_reason_to_fall_back(limited: LimitedModels) -> None:
    """It is the project's limit for what it asked for."""
    await limited.has(ANSWER)
    await limited.has(ANSWER, model="spare")
    limits = (RateLimit(model="m", requests_per_minute=1),)
    await limited.ask(models=("m", "spare"), limits=limits)
    with pytest.raises(RateLimited):
        await limited.ask(models=("m", "spare"), limits=limits)
    assert limited.engines[1].requests == []


async def test_an_answer_that_may_be_long_is_expected_to_keep_the_limit(
    limited: LimitedModels,
) -> None:
    """What it was cut down to is what all routers are told, and nothing counts as excess."""
    await limited.has(ANSWER)
    await limited.ask(limits=(RateLimit(tokens_per_minute=100),), max_tokens=5000)
    origin = limited.dispatch(0).origin
    assert origin is not None
    assert origin.reserved_tokens == 100
    assert limited.used == [(1, 100, 0)]
    assert limited.meters[0].excess.take() == (0, 0)


async def test_no_engine_starts_for_a_request_above_a_limit(limited: LimitedModels) -> None:
    """It is refused before it would wait for a model that is scaled to zero."""
    with pytest.raises(RateLimited):
        await limited.ask(limits=(RateLimit(concurrent_requests=0),))
    assert limited.router.pools.of(limited.fleet.model("m")).cold_start.waiting == 0


async def test_no_engine_starts_for_a_project_that_has_spent_its_money(
    limited: LimitedModels,
) -> None:
    """Any request of it would be refused once the engine runs."""
    now_s = time.time()
    start_s = int(period_start_s("month", now_s))
    view = AccountsView(
        version="1",
        as_of_s=now_s,
        spend=(Spend(project="proj_a", interval="month", from_s=start_s, nano=10**9),),
        prices=(Price(model="m", from_s=0, input_nano=10**6),),
    )
    limited.router.limits.record_view(view)
    with pytest.raises(QuotaExceeded):
        async with asyncio.timeout(PATIENCE_S):
            await limited.ask(spend=(SpendLimit(amount_nano=10**9, interval="month"),))
    assert limited.router.pools.of(limited.fleet.model("m")).cold_start.waiting == 0


async def test_a_router_that_starts_counts_what_engines_that_have_gone_had_served(
    limited: LimitedModels,
) -> None:
    """The ledger knows, and it counts as soon as the other engines have told what they know."""
    await limited.has(ANSWER)
    now_s = time.time()
    served = MinuteUsage(
        minute_s=int(now_s // 60 * 60),
        project="proj_a",
        key="key_1",
        model="m",
        requests=3,
        prompt_tokens=9,
        cached_tokens=0,
        completion_tokens=9,
    )
    limits = limited.router.limits
    limits.replace([Project(id="proj_a", name="team-a", rate_limits=limited.limits)])
    limits.record_view(AccountsView(version="1", as_of_s=now_s, minutes=(served,)))
    limits.end_settling()
    client = await limited.ask()
    assert client.headers[b"x-ratelimit-remaining-requests"] == b"6"


@pytest.mark.parametrize(
    ("path", "fields", "least", "most"),
    [
        (CHAT, {"max_tokens": 10, "n": 5}, 50, 70),
        ("/v1/embeddings", {"input": ["x" * 400] * 10}, 900, 1100),
        ("/tokenize", {"prompt": "x" * 4000}, 0, 0),
    ],
)
async def test_all_answers_and_all_prompts_of_a_request_count(
    limited: LimitedModels, path: str, fields: dict[str, Any], least: int, most: int
) -> None:
    """An embedding has no answer, and routes that do not run the model have no tokens."""
    await limited.has(ANSWER)
    await limited.ask(path, **fields)
    ((requests, tokens, running),) = limited.used
    assert (requests, running) == (1, 0)
    assert least <= tokens <= most


async def test_without_limits_answers_have_no_such_headers(limited: LimitedModels) -> None:
    """A project without limits, and a gateway without projects, pay nothing for them."""
    await limited.has(ANSWER)
    client = await limited.ask(limits=(), path=CHAT)
    limited.limits = ()
    client = await limited.ask()
    assert not any(name.startswith(b"x-ratelimit") for name in client.headers)


async def test_copies_of_shadow_traffic_count_for_nobody(limited: LimitedModels) -> None:
    """They are the operator's."""
    await limited.has(ANSWER)
    project = Project(id="proj_a", rate_limits=(GENEROUS,))
    copy = InferenceRequest(
        head=parse_head(CHAT, b'{"model":"m","messages":[]}', b""),
        body=b'{"model":"m","messages":[]}',
        identity=ClientIdentity(project=project),
        is_copy=True,
        arrived_s=asyncio.get_running_loop().time(),
    )
    chain = FallbackChain(
        copy,
        ("m",),
        TargetResolver(limited.fleet),
        limited.router.context,
        Client().response,
    )
    await chain.run()
    assert limited.used == []


async def test_a_model_that_goes_settles_its_requests(limited: LimitedModels) -> None:
    """What nobody will report any more stays as it was expected, and nothing runs."""
    await limited.has(replying(STREAM))
    limited.router.limits.replace([Project(id="proj_a", rate_limits=(GENEROUS,))])
    model = limited.fleet.model("m")
    foreign = Reservation(id=5, project="proj_a", model="m", tokens=30)
    scheduler = limited.router.pools.of(model).scheduler
    scheduler.record_update(next(iter(model.replicas)), Update(reserved=[foreign]))
    assert limited.used == [(1, 30, 1)]
    limited.fleet.remove(model)
    assert limited.used == [(1, 30, 0)]
    assert limited.router.limits.rates.unsettled == 0


async def test_an_error_after_the_claim_gives_no_place_away(limited: LimitedModels) -> None:
    """All engines fail, so the client gets an error; the request has ended all the same."""
    await limited.has(BROKEN, BROKEN)
    with pytest.raises(GatewayError):
        await limited.ask()
    assert [used[2] for used in limited.used] == [0]
