"""Limits over two routers, two engines and the ledger, in one process with real connections."""

import asyncio
import random
from pathlib import Path

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.limits.meter import Meter
from tests.unit.accounting import WholeGateway, engine_sums
from tests.unit.conftest import PATIENCE_S

FRAMES_S = 0.3
"""Several frames of telemetry."""


def limit(
    gateway: WholeGateway, *rates: RateLimit, spend_nano: int | None = None
) -> ClientIdentity:
    """A client of a project that all routers know."""
    spend = () if spend_nano is None else (SpendLimit(amount_nano=spend_nano, interval="day"),)
    project = Project(id="proj_a", name="team", rate_limits=rates, spend_limits=spend)
    for router in gateway.routers:
        router.limits.replace([project])
    return ClientIdentity(project=project, key="key_1")


async def statuses(
    gateway: WholeGateway, client: ClientIdentity, count: int, gap_s: float
) -> list[int]:
    """Statuses of requests that come to all routers in turn; 0 for those that are refused."""

    async def ask(number: int) -> int:
        fields = {"max_tokens": 5, "prompt": f"{number} once upon a time"}
        answered = await gateway.ask(number % len(gateway.routers), fields, client)
        return answered.status if answered.messages else 0

    asking = []
    for number in range(count):
        asking.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(gap_s)
    return await asyncio.gather(*asking)


def meter_of(router: AssembledRouter) -> Meter:
    """The only meter of a router."""
    (meter,) = router.limits.rates.meters
    return meter


async def until_all_agree(gateway: WholeGateway) -> None:
    """Wait until no router expects anything."""
    async with asyncio.timeout(PATIENCE_S):
        while any(router.limits.rates.unsettled for router in gateway.routers):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_two_routers_share_one_limit_and_count_what_engines_found(tmp_path: Path) -> None:
    """Neither lets more through than came within a frame; both count the engines' own sums."""
    async with WholeGateway(f"sqlite:///{tmp_path}/accounts.db") as gateway:
        await asyncio.sleep(FRAMES_S)
        client = limit(gateway, RateLimit(requests_per_minute=12, tokens_per_minute=100_000))
        answered = (await statuses(gateway, client, 24, 0.1)).count(200)
        async with asyncio.timeout(PATIENCE_S):  # until both have heard of all of them
            while any(meter_of(r).used_requests < answered for r in gateway.routers):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await until_all_agree(gateway)
        sums = engine_sums(gateway.engines)
        tokens = sums.prompt_tokens - sums.cached_tokens + sums.completion_tokens
        counted = [
            (m.used_requests, m.used_tokens, m.running) for m in map(meter_of, gateway.routers)
        ]
    assert 12 <= answered < 20
    assert counted == [(answered, tokens, 0)] * 2


async def test_a_router_that_has_just_started_knows_the_last_minute(tmp_path: Path) -> None:
    """Engines tell it, without the ledger."""
    async with WholeGateway(f"sqlite:///{tmp_path}/accounts.db", routers=1) as gateway:
        await asyncio.sleep(FRAMES_S)
        client = limit(gateway, RateLimit(requests_per_minute=5))
        assert (await statuses(gateway, client, 8, 0.0)).count(200) == 5
        await gateway.kill_accounts()
        await asyncio.sleep(FRAMES_S)
        options = RouterOptions(accounts=gateway.accounts, rng=random.Random(9))  # noqa: S311
        router = build_router(gateway.fleet, lambda *_: None, options=options)
        router.limits.replace([client.project])
        await gateway.routers.pop().close()
        gateway.routers.append(router)
        router.start()
        await asyncio.sleep(FRAMES_S)
        assert meter_of(router).used_requests == 5
        assert await statuses(gateway, client, 3, 0.0) == [0, 0, 0]


async def test_money_is_counted_once_whatever_the_ledger_has(tmp_path: Path) -> None:
    """Before and after the ledger has the records, all routers know the same sum."""
    async with WholeGateway(f"sqlite:///{tmp_path}/accounts.db") as gateway:
        await asyncio.sleep(FRAMES_S)
        client = limit(gateway, spend_nano=10**9)
        async with asyncio.timeout(PATIENCE_S):  # until prices are known
            while not all(r.limits.budgets.prices.prices for r in gateway.routers):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert set(await statuses(gateway, client, 10, 0.02)) == {200}
        await asyncio.sleep(FRAMES_S)
        early = {sum(map(r.limits.budgets.used, r.limits.budgets.meters)) for r in gateway.routers}
        await gateway.until_settled()
        async with asyncio.timeout(PATIENCE_S):  # until all have read it from the ledger
            while any(meter._charges for r in gateway.routers for meter in r.limits.budgets.meters):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        late = {sum(map(r.limits.budgets.used, r.limits.budgets.meters)) for r in gateway.routers}
        assert len(early) == 1
        assert early == late
        assert early != {0}
        client = limit(gateway, spend_nano=early.pop() + 1000)
        assert (await statuses(gateway, client, 2, 0.1)).count(200) == 0
