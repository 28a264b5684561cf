"""The ledger equals what engines did: whatever is killed, restarted, aborted or repeated."""

import asyncio
import json
import random
from typing import Any

import pytest
from sqlalchemy import select

from deployments.engines import server
from gateway.store.database import Database
from gateway.store.tables import usage
from tests.unit.accounting import (
    WholeGateway,
    all_sums,
    engine_sums,
    ledger_sums,
)
from tests.unit.conftest import Client


async def _mixed_load(gateway: WholeGateway, requests: int, seed: int) -> None:
    """Requests of all sorts over all routers, some of which their clients abandon."""
    rng = random.Random(seed)  # noqa: S311 - the same load every time

    async def one(number: int) -> None:
        fields: dict[str, Any] = {"max_tokens": rng.randint(1, 30), "stream": number % 2 == 0}
        if number % 5 == 0:
            fields["n"] = 3
        if number % 7 == 0:
            fields["prompt"] = ["one prompt", "and another one"]
        if number % 11 == 0:
            fields["max_tokens"] = 10**6  # the engine refuses it
        asking = asyncio.create_task(gateway.ask(number % len(gateway.routers), fields))
        if number % 6 == 0:
            await asyncio.sleep(rng.uniform(0, 0.05))
            asking.cancel()
        await asyncio.wait([asking])

    async with asyncio.TaskGroup() as group:
        for number in range(requests):
            group.create_task(one(number))
            await asyncio.sleep(rng.expovariate(150))


async def test_the_ledger_equals_the_sums_of_the_engines(
    database: Database, database_url: str
) -> None:
    """Streams, several answers, several prompts, refusals and clients that leave."""
    async with WholeGateway(database_url) as gateway:
        await _mixed_load(gateway, 80, 1)
        await gateway.until_settled()
        expected = engine_sums(gateway.engines)

    assert expected.records >= 60
    assert expected.completion_tokens > 500
    assert await database.read(ledger_sums) == expected
    sums = await database.read(all_sums)
    assert sums[0][4] > 0
    assert len(set(sums)) == 1


async def test_accounts_killed_again_and_again_under_load_loses_and_doubles_nothing(
    database: Database, database_url: str
) -> None:
    """It dies between reading, writing and confirming; engines keep what is not confirmed."""
    rng = random.Random(2)  # noqa: S311 - the same kills every time
    async with WholeGateway(database_url) as gateway:
        load = asyncio.create_task(_mixed_load(gateway, 150, 2))
        kills = 0
        while not load.done():
            await asyncio.sleep(rng.uniform(0, 0.25))
            await gateway.kill_accounts()
            kills += 1
            await asyncio.sleep(rng.uniform(0, 0.1))
            await gateway.start_accounts()
        await load
        await gateway.until_settled()
        expected = engine_sums(gateway.engines)

    assert kills > 2
    assert expected.records > 100
    assert await database.read(ledger_sums) == expected
    assert len(set(await database.read(all_sums))) == 1


async def test_two_accounts_at_a_time_do_no_harm(database: Database, database_url: str) -> None:
    """While Serve replaces it, both read the same engines and write the same rows."""
    async with WholeGateway(database_url) as gateway:
        first = gateway.accounts.keeper
        assert first is not None
        await gateway.start_accounts()
        await _mixed_load(gateway, 60, 3)
        await gateway.until_settled()
        expected = engine_sums(gateway.engines)
        await first.close()

    assert await database.read(ledger_sums) == expected
    assert len(set(await database.read(all_sums))) == 1


async def test_what_an_engine_took_with_it_is_handed_over_by_the_router(
    database: Database, database_url: str
) -> None:
    """Accounts was down when the engine died: the router has its reports."""
    async with WholeGateway(database_url, engines=1) as gateway:
        await gateway.kill_accounts()
        engine = gateway.engines[0]
        for _ in range(5):
            await gateway.ask(0, {"max_tokens": 4})
        await asyncio.sleep(0.2)  # a frame of telemetry
        await gateway.kill_engine(engine)
        await gateway.start_accounts()
        await gateway.until_settled()
        expected = engine.totals

    assert expected.records == 5
    assert await database.read(ledger_sums) == expected


async def test_an_engine_that_drains_while_accounts_is_down_is_charged_to_the_token(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left the fleet before its last requests end: routers hear it out, and hand over."""
    monkeypatch.setattr(server, "CONFIRMATION_TIMEOUT_S", 0.1)
    async with WholeGateway(database_url, engines=0) as gateway:
        engine = await gateway.start_engine(step_s=0.02)
        await gateway.until_settled()
        await gateway.kill_accounts()
        asking = [
            asyncio.create_task(gateway.ask(i % 2, {"max_tokens": 20, "stream": i < 2}))
            for i in range(4)
        ]
        while len(engine.engine.tracker.usage.running) < len(asking):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await gateway.drain_engine(engine)
        await asyncio.gather(*asking)
        await gateway.start_accounts()
        await gateway.until_settled()
        expected = engine.totals

    assert expected.records == 4
    assert await database.read(ledger_sums) == expected
    estimates = select(usage.c.seq).where(usage.c.is_estimated)
    assert await database.read(lambda c: c.scalars(estimates).all()) == []


async def test_a_dispatch_that_is_delivered_twice_is_charged_once(
    database: Database, database_url: str
) -> None:
    """Its engine closes the connection before it answers; the ledger has both reports."""
    async with WholeGateway(database_url, engines=0, routers=1) as gateway:
        engine = await gateway.start_engine(step_s=0.02)
        await gateway.ask(0, {"max_tokens": 1})  # leaves a connection
        asking = asyncio.create_task(gateway.ask(0, {"max_tokens": 20}))
        while not engine.engine.tracker.usage.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        relayed = gateway.routers[0]._telemetry_client._relayed
        for connection in relayed._connections:
            connection._transport.abort()  # as if the engine had closed it
        client = await asking
        await gateway.until_settled()
        expected = engine.totals

    assert expected.records == 3
    assert await database.read(ledger_sums) == expected
    told = json.loads(client.body)["usage"]
    columns = usage.c
    query = select(columns.charged_prompt_tokens, columns.charged_completion_tokens)
    rows = await database.read(lambda c: c.execute(query.order_by(columns.arrived_us)).all())
    assert [tuple(row) for row in rows[1:]] == [
        (0, 0),
        (told["prompt_tokens"], told["completion_tokens"]),
    ]


async def test_an_answer_that_no_engine_reports_is_estimated(
    database: Database, database_url: str
) -> None:
    """The engine dies with its report: the router charges what it relayed, and says so."""
    async with WholeGateway(database_url, engines=1, routers=1) as gateway:
        await gateway.kill_accounts()
        engine = gateway.engines[0]
        gateway.routers[0]._telemetry_client._end(engine.replica)
        await gateway.ask(0, {"max_tokens": 9, "stream": True})
        await gateway.kill_engine(engine)
        await gateway.start_accounts()
        await gateway.until_settled()

    rows = await database.read(lambda c: c.execute(select(usage)).mappings().all())
    assert [row["is_estimated"] for row in rows] == [True]
    assert rows[0]["prompt_tokens"] > 10
    assert rows[0]["charged_completion_tokens"] == 9
    assert len(set(await database.read(all_sums))) == 1


async def _cut_stream(gateway: WholeGateway, cuts: int, **asked: object) -> list[dict[str, Any]]:
    """Events of a stream whose connections are cut that often, each time after some tokens."""
    for _ in range(3):
        await gateway.start_engine(step_s=0.02)
    relayed = gateway.routers[0]._telemetry_client._relayed
    fields = {"max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}, **asked}
    client = Client()
    asking = asyncio.create_task(gateway.ask(0, fields, client=client))
    for _ in range(cuts):
        parts = len(client.messages)
        while len(client.messages) < parts + 6 and not asking.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for each in gateway.engines:
            relayed.abort_connections(each.replica.address)
    await asking
    await gateway.until_settled()
    events = client.body.decode().split("\n\n")
    return [json.loads(each[6:]) for each in events if each.startswith("data: {")]


@pytest.mark.parametrize("asked", [{}, {"temperature": 0}])
async def test_a_stream_that_is_cut_and_resumed_is_charged_once(
    database: Database, database_url: str, asked: dict[str, object]
) -> None:
    """Its prompt once, and the tokens that its client has, whatever the engines generated."""
    async with WholeGateway(database_url, engines=0, routers=1) as gateway:
        told = (await _cut_stream(gateway, cuts=1, **asked))[-1]["usage"]
        expected = engine_sums(gateway.engines)

    assert expected.records == 2
    assert await database.read(ledger_sums) == expected
    sums = await database.read(all_sums)
    assert sums[0][0] == told["prompt_tokens"] < expected.prompt_tokens
    assert sums[0][2] == told["completion_tokens"] == 40
    assert len(set(sums)) == 1


async def test_engines_alone_tell_what_a_resumed_stream_costs(
    database: Database, database_url: str
) -> None:
    """Its router was killed before it could say how much of the first attempt its client has."""
    async with WholeGateway(database_url, engines=0, routers=1) as gateway:
        gateway.accounts.loses_settlements = True
        told = (await _cut_stream(gateway, cuts=1))[-1]["usage"]
        expected = engine_sums(gateway.engines)

    assert expected.records == 2
    sums = await database.read(all_sums)
    assert (sums[0][0], sums[0][2]) == (told["prompt_tokens"], told["completion_tokens"])
    assert len(set(sums)) == 1


async def test_what_a_killed_router_did_not_answer_costs_nothing(
    database: Database, database_url: str
) -> None:
    """HAProxy may send the request to another router; a client that leaves pays what it caused."""
    async with WholeGateway(database_url, engines=0, routers=2) as gateway:
        await gateway.start_engine(step_s=0.02)
        for router, is_killed in ((0, True), (1, False)):
            gateway.accounts.loses_settlements = is_killed
            client = Client()
            fields = {"max_tokens": 1000, "stream": True}
            asking = asyncio.create_task(gateway.ask(router, fields, client=client))
            while len(client.messages) < 4:  # noqa: ASYNC110 - until it has a part of the answer
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await gateway.until_settled()

    columns = usage.c
    query = select(columns.prompt_tokens, columns.charged_prompt_tokens, columns.is_aborted)
    rows = await database.read(lambda c: c.execute(query.order_by(columns.arrived_us)).all())
    prompt = rows[0].prompt_tokens
    assert [tuple(row) for row in rows] == [(prompt, 0, True), (prompt, prompt, True)]
    assert len(set(await database.read(all_sums))) == 1


async def test_a_stream_that_ends_with_an_error_is_charged_for_what_came(
    database: Database, database_url: str
) -> None:
    """The client has the beginning of an answer, and pays for that."""
    async with WholeGateway(database_url, engines=0, routers=1) as gateway:
        events = await _cut_stream(gateway, cuts=4)
        expected = engine_sums(gateway.engines)

    assert "error" in events[-1]
    tokens = sum(bool(c["text"]) for e in events for c in e.get("choices", []))
    assert await database.read(ledger_sums) == expected
    sums = await database.read(all_sums)
    assert sums[0][2] == pytest.approx(tokens, abs=2)
    assert 0 < sums[0][0] < expected.prompt_tokens
    assert len(set(sums)) == 1
