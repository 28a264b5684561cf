"""Usage is written once, whatever is repeated, late, or comes in another order."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from gateway.ledger.price import Price, PriceList
from gateway.ledger.settlement import Settlement
from gateway.store.database import Database
from gateway.store.routers_view import read_batch, read_minutes, read_spend
from gateway.store.tables import idle_costs, usage
from gateway.store.upkeep import (
    KeptDays,
    ReplicaSeen,
    delete_old,
    record_presence,
    share_idle,
    share_idle_until,
)
from gateway.store.usage import (
    EngineBatch,
    Written,
    read_watermarks,
    write_settlements,
    write_usage,
)
from gateway.telemetry.dispatch import EarlierAttempt, Origin
from gateway.telemetry.usage import UsageRecord
from tests.unit.accounting import all_sums, charged_sums
from tests.unit.databases import empty

NOW_S = 1_800_000_030
NOW_US = NOW_S * 1_000_000
PRICES = PriceList(
    [
        Price(
            model="m",
            from_s=0,
            input_nano=1_000_000_000,
            cached_input_nano=0,
            output_nano=2_000_000_000,
            gpu_hour_nano=3_600_000_000_000,
        )
    ]
)


def record(seq: int, *, id_: int = 0, epoch: int = 1, **fields: object) -> UsageRecord:
    """A record of an engine."""
    made = UsageRecord(
        epoch=epoch,
        seq=seq,
        id=id_ or 2**63 + seq,
        origin=Origin(project="p", key="k", request_id="r\0\ud800", endpoint="/v1/completions"),
        model="m",
        arrived_s=NOW_S - 1,
        ended_s=NOW_S,
        prompt_tokens=100,
        cached_tokens=40,
        completion_tokens=10,
        device_s=0.5,
    )
    return msgspec.structs.replace(made, **fields)


def batch(*records: UsageRecord, engine: str = "e", epoch: int = 1) -> EngineBatch:
    """Records of one engine."""
    return EngineBatch(engine, epoch, records)


async def write(database: Database, *batches: EngineBatch) -> Written:
    """Write batches in one transaction."""
    return await database.write(lambda c: write_usage(c, batches, PRICES, NOW_US))


async def settle(database: Database, *settlements: Settlement) -> Written:
    """Write settlements in one transaction."""
    return await database.write(lambda c: write_settlements(c, settlements, PRICES, NOW_US))


async def charged(database: Database) -> tuple[int, ...]:
    """Charged tokens, device time and cost, which rows and all sums agree on."""
    sums = await database.read(all_sums)
    assert len(set(sums)) == 1
    return sums[0]


async def test_a_batch_that_is_written_again_changes_nothing(database: Database) -> None:
    """An answer that was lost, an engine that was not told: both are repeated."""
    page = batch(record(1), record(2))
    assert await write(database, page) == Written(2, 0)
    assert await write(database, page, page) == Written(0, 4)
    assert await charged(database) == (200, 80, 20, 1_000_000, 2 * (60_000 + 20_000))


async def test_an_engine_that_starts_again_counts_from_one(database: Database) -> None:
    """Its records are others, and the watermark follows; old pages do not set it back."""
    await write(database, batch(record(1), record(2)))
    await write(database, batch(record(1, id_=77, epoch=2), epoch=2))
    await write(database, batch(record(1), record(2)))

    (mark,) = await database.read(read_watermarks)
    assert (mark.engine, mark.epoch, mark.seq) == ("e", 2, 1)
    assert (await charged(database))[0] == 300


async def test_an_estimate_gives_way_to_the_engines_own_record(database: Database) -> None:
    """Whichever comes first; the sums are those of the engine's."""
    guess = record(0, id_=5, prompt_tokens=90, cached_tokens=0, completion_tokens=7, device_s=0.0)
    estimate = Settlement(id=5, engine="e", record=guess, is_estimated=True)
    assert await settle(database, estimate) == Written(1, 0, 1)
    assert (await charged(database))[:3] == (90, 0, 7)

    await write(database, batch(record(1, id_=5)))
    assert (await charged(database))[:3] == (100, 40, 10)

    assert await settle(database, estimate) == Written(0, 1)
    assert (await charged(database))[:3] == (100, 40, 10)


async def test_a_settlement_counts_before_and_after_its_row(database: Database) -> None:
    """Routers and engines report in any order, and more than once."""
    limits = [
        Settlement(id=2**63 + 1, engine="e", is_wasted=True),
        Settlement(id=2**63 + 2, engine="e", completion_tokens=4),
    ]
    await settle(database, *limits)
    await write(database, batch(record(1), record(2)))
    first = await charged(database)
    await settle(database, *limits)
    assert await charged(database) == first

    await database.write(empty)
    await write(database, batch(record(1), record(2)))
    await settle(database, *limits)
    assert await charged(database) == first == (100, 40, 4, 1_000_000, 68_000)
    wasted = await database.read(lambda c: c.scalar(select(func.sum(usage.c.wasted_nano))))
    assert wasted == 80_000 + 12_000


async def test_attempts_tell_what_earlier_ones_cost_if_their_router_cannot(
    database: Database,
) -> None:
    """In any order, the last attempt counts; and the router's own word more than any."""
    first = record(1, is_aborted=True)
    origin = Origin(project="p", key="k", attempt=2, is_continuation=True)
    kept = (EarlierAttempt(first.id, completion_tokens=7),)
    second = record(2, origin=msgspec.structs.replace(origin, earlier=kept), is_aborted=True)
    none_kept = (
        EarlierAttempt(first.id, is_wasted=True),
        EarlierAttempt(second.id, is_wasted=True),
    )
    third = record(3, origin=Origin(project="p", key="k", attempt=3, earlier=none_kept))

    await write(database, batch(first))
    assert (await charged(database))[:3] == (0, 0, 0)
    await write(database, batch(second, engine="f"))
    assert (await charged(database))[:3] == (100, 40, 7)
    await write(database, batch(third, engine="g"))
    assert (await charged(database))[:3] == (100, 40, 10)

    await database.write(empty)
    for each, engine in ((third, "g"), (second, "f"), (first, "e")):
        await write(database, batch(each, engine=engine))
    assert (await charged(database))[:3] == (100, 40, 10)

    await settle(database, Settlement(id=first.id, engine="e", completion_tokens=3))
    await write(database, batch(third, engine="again"))
    assert (await charged(database))[2] == 10 + 3


async def test_routers_hand_over_what_a_dead_engine_has_reported(database: Database) -> None:
    """The engine's record is the same, whoever brings it."""
    late = Settlement(id=record(1).id, engine="e", record=record(1))
    assert await settle(database, late) == Written(1, 0)
    assert await write(database, batch(record(1))) == Written(0, 1)
    assert (await charged(database))[0] == 100


async def test_a_copy_of_a_request_costs_no_client_anything(database: Database) -> None:
    """Shadow traffic is waste."""
    copy = Origin(project="p", is_copy=True)
    await write(database, batch(record(1, origin=copy)))
    assert await charged(database) == (0, 0, 0, 500_000, 0)


async def test_routers_learn_of_spend_and_the_last_minutes(database: Database) -> None:
    """By project and by key, in UTC's day and month."""
    await write(database, batch(record(1), record(2, ended_s=NOW_S - 60.0)))
    spend = await database.read(lambda c: read_spend(c, NOW_S))
    assert {(each.project, each.key, each.interval, each.nano) for each in spend} == {
        ("p", key, interval, 160_000) for key in ("", "k") for interval in ("day", "month")
    }
    minutes = await database.read(lambda c: read_minutes(c, NOW_S))
    assert [(each.requests, each.prompt_tokens) for each in minutes] == [(1, 100), (1, 100)]
    assert [each.minute_s for each in minutes] == [NOW_S // 60 * 60 - 60, NOW_S // 60 * 60]


async def test_idle_time_of_an_hour_is_shared_out_once(database: Database) -> None:
    """To do it again changes nothing."""
    hour_s = NOW_S // 3600 * 3600
    seen = [ReplicaSeen("e", "m", 1)]

    def keep_up(connection: Connection) -> list[tuple[str, int, int]]:
        for at_s in (hour_s, hour_s + 60):
            record_presence(connection, seen, at_s * 1_000_000)
        for _ in range(2):
            share_idle(connection, hour_s, {}, PRICES)
        rows = connection.exec_driver_sql("SELECT project, device_us, cost_nano FROM idle_costs")
        return [(row[0], int(row[1]), int(row[2])) for row in rows]

    await write(database, batch(record(1)))
    assert await database.write(keep_up) == [("p", 59_500_000, 59_500_000_000)]


async def test_idle_time_of_a_long_outage_is_shared_out_afterwards(database: Database) -> None:
    """Accounts was away for eight hours, in which a replica held its device."""
    hour_s = NOW_S // 3600 * 3600
    seen = [ReplicaSeen("e", "m", 1)]

    def keep_up(connection: Connection, at_s: int) -> list[int]:
        record_presence(connection, seen, at_s * 1_000_000)
        share_idle_until(connection, at_s // 3600 * 3600, 3, {}, PRICES)
        rows = connection.execute(select(idle_costs.c.at_s).order_by(idle_costs.c.at_s))
        return [(row.at_s - hour_s) // 3600 for row in rows]

    assert await database.write(lambda c: keep_up(c, hour_s)) == []
    later_s = hour_s + 8 * 3600 + 60
    assert await database.write(lambda c: keep_up(c, later_s)) == list(range(9))


async def test_old_rows_are_deleted_and_sums_stay_longer(database: Database) -> None:
    """Each kind has its own time."""
    await write(database, batch(record(1)))
    kept = KeptDays(requests=1, minutes=1, hours=10, days=10)
    later_s = NOW_S + 2 * 86_400
    assert not await database.write(lambda c: delete_old(c, kept, later_s))
    rows, minutes, hours, days = await database.read(all_sums)
    assert rows[0] == minutes[0] == 0
    assert hours[0] == days[0] == 100


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.sampled_from(["engine", "router", "guess", "waste", "cap"])
        ),
        max_size=25,
    )
)
async def test_any_order_and_repetition_leads_to_the_same_ledger(
    database: Database, events: list[tuple[int, str]]
) -> None:
    """The rows are those of the engines, charged as was said last; sums equal rows."""
    await database.write(empty)
    wasted, capped, own, guessed = set(), set(), set(), set()
    for seq, kind in events:
        id_ = record(seq).id
        if kind == "engine":
            await write(database, batch(record(seq)))
            own.add(seq)
        elif kind == "router":
            await settle(database, Settlement(id=id_, engine="e", record=record(seq)))
            own.add(seq)
        elif kind == "guess":
            guess = record(seq, completion_tokens=8)
            await settle(database, Settlement(id=id_, engine="e", record=guess, is_estimated=True))
            guessed.add(seq)
        elif kind == "waste":
            await settle(database, Settlement(id=id_, engine="e", is_wasted=True))
            wasted.add(seq)
            capped.discard(seq)
        else:
            await settle(database, Settlement(id=id_, engine="e", completion_tokens=3))
            capped.add(seq)
            wasted.discard(seq)

    expected = 0
    for seq in own | guessed:
        generated = 10 if seq in own else 8
        expected += 0 if seq in wasted else 3 if seq in capped else generated
    sums = await database.read(all_sums)
    assert len(set(sums)) == 1
    assert (await database.read(charged_sums))[2] == expected


async def test_an_engine_whose_clock_is_ahead_spends_in_this_period(database: Database) -> None:
    """Nothing ends after now, so its cost is part of today's and of no later day's."""
    ahead_s = NOW_S + 40 * 86_400
    await write(database, batch(record(1, arrived_s=ahead_s - 1, ended_s=ahead_s)))
    (today, *_) = await database.read(lambda c: read_spend(c, NOW_S))
    assert today.nano == (await charged(database))[-1] > 0
    assert await database.read(lambda c: read_spend(c, ahead_s)) == ()


async def test_a_record_does_not_undo_the_verdict_that_comes_with_it(database: Database) -> None:
    """A router hands over both at once after Accounts was away: the client pays for neither."""
    wasted = Settlement(id=5, engine="e", is_wasted=True)
    reported = Settlement(id=5, engine="e", record=record(1, id_=5))
    guessed = Settlement(id=6, engine="e", record=record(0, id_=6), is_estimated=True)
    await settle(database, wasted, reported, guessed, Settlement(id=6, engine="e", is_wasted=True))
    assert (await charged(database))[-1] == 0


async def test_a_watermark_says_from_where_on_nothing_is_missing(database: Database) -> None:
    """An engine that drops records leaves a gap, which the next page shows."""
    found = []
    for page in (
        batch(record(1), record(2)),
        batch(record(3)),
        batch(record(7)),
        batch(record(7), record(8)),
        batch(record(2, id_=99, epoch=2), epoch=2),
    ):
        await write(database, page)
        (mark,) = await database.read(read_watermarks)
        found.append((mark.epoch, mark.first, mark.seq))
    assert found == [(1, 1, 2), (1, 1, 3), (1, 7, 7), (1, 7, 8), (2, 2, 2)]


async def test_people_with_tokens_count_for_their_project_alone(database: Database) -> None:
    """They have no limits of their own, and there may be tens of thousands."""
    people = [
        record(seq, origin=Origin(project="p", key=f"idp:{seq}", tier="flex"))
        for seq in range(1, 9)
    ]
    await write(database, batch(*people, record(9)))
    spend = await database.read(lambda c: read_spend(c, NOW_S))
    assert [(each.key, each.interval) for each in spend] == [
        *(("", "day"), ("k", "day")),
        *(("", "month"), ("k", "month")),
    ]
    assert spend[0].nano == 9 * spend[1].nano
    minutes = await database.read(lambda c: read_minutes(c, NOW_S))
    assert [(each.key, each.requests) for each in minutes] == [("", 8), ("k", 1)]
    assert [each.key for each in await database.read(lambda c: read_batch(c, NOW_S))] == [""]


async def rows_of(database: Database) -> list[tuple[int, bool, bool, int]]:
    """Number, estimated, wasted and charged tokens of the answer of all rows."""
    columns = usage.c
    query = select(
        columns.seq, columns.is_estimated, columns.is_wasted, columns.charged_completion_tokens
    ).order_by(columns.seq)
    return [tuple(row) for row in (await database.read(lambda c: c.execute(query).all()))]


async def test_of_two_deliveries_of_one_dispatch_the_last_one_is_charged(
    database: Database,
) -> None:
    """In either order of their reports, together or apart, and both rows stay."""
    first = record(1, id_=5, arrived_s=NOW_S - 3, completion_tokens=4)
    last = record(2, id_=5, arrived_s=NOW_S - 2)
    for writes in ([[first, last]], [[last, first]], [[first], [last]], [[last], [first]]):
        await database.write(empty)
        for records in writes:
            await write(database, batch(*records))
        assert await rows_of(database) == [(1, False, True, 0), (2, False, False, 10)]
        assert (await charged(database))[:4] == (100, 40, 10, 1_000_000)

    await settle(database, Settlement(id=5, engine="e", completion_tokens=3))
    assert [row[3] for row in await rows_of(database)] == [0, 3]
    await settle(database, Settlement(id=5, engine="e", is_wasted=True))
    assert [row[3] for row in await rows_of(database)] == [0, 0]


async def test_a_delivery_that_did_nothing_costs_nothing(database: Database) -> None:
    """Also if it alone has been reported so far; an estimate never joins what was reported."""
    nothing = UsageRecord(
        epoch=1,
        seq=1,
        id=5,
        origin=record(1).origin,
        model="m",
        arrived_s=NOW_S - 3,
        ended_s=NOW_S - 2,
    )
    await write(database, batch(nothing))
    assert (await charged(database))[-1] == 0
    guess = record(0, id_=5, completion_tokens=8)
    await settle(database, Settlement(id=5, engine="e", record=guess, is_estimated=True))
    assert await rows_of(database) == [(1, False, False, 0)]
    await write(database, batch(record(2, id_=5)))
    assert await rows_of(database) == [(1, False, True, 0), (2, False, False, 10)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(["first", "second", "both", "handed over", "guess"])
        ),
        max_size=20,
    )
)
async def test_every_report_of_an_engine_is_a_row_in_any_order(
    database: Database, events: list[tuple[int, str]]
) -> None:
    """Whoever brings it; each dispatch is charged once, and estimates go when a report comes."""
    await database.write(empty)
    reported: dict[int, set[int]] = {}
    guessed = set()
    for number, kind in events:
        id_ = 70 + number
        first = record(2 * number + 1, id_=id_, arrived_s=NOW_S - 3, completion_tokens=4)
        second = record(2 * number + 2, id_=id_, arrived_s=NOW_S - 2, completion_tokens=10)
        seen = reported.setdefault(number, set())
        if kind == "guess":
            guess = record(0, id_=id_, completion_tokens=8)
            await settle(database, Settlement(id=id_, engine="e", record=guess, is_estimated=True))
            guessed.add(number)
        elif kind == "handed over":
            await settle(database, Settlement(id=id_, engine="e", record=second))
            seen.add(10)
        else:
            brought = {"first": [first], "second": [second], "both": [second, first]}[kind]
            await write(database, batch(*brought))
            seen |= {each.completion_tokens for each in brought}

    only_guessed = {number for number in guessed if not reported[number]}
    rows = await rows_of(database)
    assert len(rows) == sum(map(len, reported.values())) + len(only_guessed)
    assert sum(row[1] for row in rows) == len(only_guessed)
    expected = sum(max(seen) for seen in reported.values() if seen) + 8 * len(only_guessed)
    sums = await database.read(all_sums)
    assert len(set(sums)) == 1
    assert (await database.read(charged_sums))[2] == expected
