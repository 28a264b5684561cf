"""A router remembers its attempts until the ledger has them, and hands over what nobody reports."""

import asyncio
from collections.abc import Sequence

import msgspec

from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView, Watermark
from gateway.serving.accounts_client import AccountsUnavailable
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.serving.sent_attempt import SentAttempt
from gateway.serving.settlements import DEAD_S, MAX_SUBMITTED, SILENT_S, Settlements
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord
from tests.unit.recorder import KeptRecorder

ORIGIN = Origin(project="p", model="m")


class FakeAccounts:
    """Accounts that keeps what it is handed, while it answers."""

    def __init__(self) -> None:
        self.submitted: list[Settlement] = []
        self.is_down = False

    async def follow(self, known: str) -> AccountsView:
        """Nothing new."""
        raise AccountsUnavailable(known)

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Take what is handed over."""
        if self.is_down:
            raise AccountsUnavailable("down")
        assert len(settlements) <= MAX_SUBMITTED
        self.submitted.extend(settlements)

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """No admin API."""
        raise AccountsUnavailable(call.path)


class RouterBooks:
    """Settlements of a router under test."""

    def __init__(self) -> None:
        self.accounts = FakeAccounts()
        self.engines = {"e"}
        self.now_s = 1_000.0
        self.settlements = Settlements(
            self.accounts, lambda: self.engines, KeptRecorder(), lambda: self.now_s
        )

    def sent(self, number: int, **fields: object) -> SentAttempt:
        """An attempt that has been sent, and has ended."""
        attempt = SentAttempt(
            id=number,
            engine="e",
            model="m",
            origin=ORIGIN,
            sent_s=self.now_s,
            prompt_tokens=20.4,
            output_tokens=8,
            tokens_per_byte=0.25,
        )
        self.settlements.record_sent(attempt)
        attempt.ended_s, attempt.has_delivered, attempt.is_answered = self.now_s, True, True
        for name, value in fields.items():
            setattr(attempt, name, value)
        return attempt

    async def pass_s(self, seconds: float) -> None:
        """Let time pass; what is found is handed over, a second at a time at most."""
        await self.settlements.sweep()
        self.now_s += seconds
        await self.settlements.sweep()


def record(number: int, seq: int = 1, epoch: int = 5) -> UsageRecord:
    """An engine's report of an attempt."""
    return UsageRecord(
        epoch=epoch, seq=seq, id=number, origin=ORIGIN, model="m", arrived_s=1.0, ended_s=2.0
    )


async def test_a_reported_attempt_is_kept_until_the_ledger_has_it() -> None:
    """Then it is forgotten, and nothing is handed over."""
    books = RouterBooks()
    books.sent(1)
    books.settlements.record_usage("e", [record(1), record(99, 2)])
    assert len(books.settlements) == 2

    books.settlements.record_watermarks([Watermark(engine="e", epoch=5, seq=0)])
    assert len(books.settlements) == 2
    books.settlements.record_watermarks([Watermark(engine="e", epoch=5, seq=2)])

    assert len(books.settlements) == 0
    await books.pass_s(SILENT_S)
    assert books.accounts.submitted == []


async def test_a_report_that_comes_after_its_watermark_is_not_kept() -> None:
    """The connection to the engine was lost, and Accounts read the report first."""
    books = RouterBooks()
    books.sent(1)
    books.settlements.record_watermarks([Watermark(engine="e", epoch=5, seq=1)])
    books.settlements.record_usage("e", [record(1)])
    assert len(books.settlements) == 0

    books.settlements.record_usage("e", [record(2, seq=2)])
    assert len(books.settlements) == 1


async def test_reports_that_an_engine_has_dropped_are_handed_over() -> None:
    """The ledger's watermark is beyond them, and says that it may not have them."""
    books = RouterBooks()
    for number in (1, 2, 3, 4):
        books.sent(number)
    before = record(1, seq=9, epoch=4)
    books.settlements.record_usage("e", [before, *(record(i, seq=i) for i in (2, 3, 4))])
    mark = Watermark(engine="e", epoch=5, seq=3, first=3)
    books.settlements.record_watermarks([mark])
    await books.settlements.submit()
    assert [each.record for each in books.accounts.submitted] == [before, record(2, seq=2)]
    assert len(books.settlements) == 1


async def test_reports_of_a_dead_engine_are_handed_over() -> None:
    """The ledger may not have read them; it knows if it has."""
    books = RouterBooks()
    books.sent(1)
    books.settlements.record_usage("e", [record(1)])
    books.engines = set()
    await books.pass_s(DEAD_S)
    assert [(each.id, each.record, each.is_estimated) for each in books.accounts.submitted] == [
        (1, record(1), False)
    ]


async def test_reports_on_attempts_of_other_routers_are_handed_over() -> None:
    """A router may have died with the engine, while Accounts was down."""
    books = RouterBooks()
    books.settlements.record_usage("e", [record(7)])
    books.engines, books.accounts.is_down = set(), True
    await books.pass_s(DEAD_S)
    books.accounts.is_down = False
    await books.pass_s(1)
    assert [each.record for each in books.accounts.submitted] == [record(7)]


async def test_what_a_dead_engine_did_not_report_is_estimated() -> None:
    """What a client got nothing of costs nothing."""
    books = RouterBooks()
    books.sent(1)
    books.sent(2, has_delivered=False, is_answered=False)
    books.engines = set()
    await books.pass_s(DEAD_S)
    (estimate,) = books.accounts.submitted
    assert estimate.record is not None
    assert (estimate.id, estimate.is_estimated) == (1, True)
    assert (estimate.record.prompt_tokens, estimate.record.completion_tokens) == (20, 8)
    assert len(books.settlements) == 0


async def test_an_estimated_continuation_charges_no_prompt() -> None:
    """The attempt that it went on from has the prompt."""
    books = RouterBooks()
    books.sent(1)
    books.sent(2, kept_tokens=5)
    books.engines = set()
    await books.pass_s(DEAD_S)
    records = [each.record for each in books.accounts.submitted if each.record is not None]
    assert [each.origin.is_continuation for each in records] == [False, True]
    assert [each.completion_tokens for each in records] == [8, 3]


async def test_a_running_attempt_is_waited_for_although_its_engine_has_left() -> None:
    """A draining engine finishes what it has."""
    books = RouterBooks()
    attempt = books.sent(1, ended_s=None)
    books.engines = set()
    await books.pass_s(100 * SILENT_S)
    assert books.accounts.submitted == []
    attempt.ended_s = books.now_s
    await books.pass_s(DEAD_S)
    assert len(books.accounts.submitted) == 1


async def test_a_living_engine_that_stays_silent_is_given_a_minute() -> None:
    """Its report may have been missed: the ledger has it, and ignores the estimate."""
    books = RouterBooks()
    books.sent(1)
    await books.pass_s(SILENT_S - 1)
    assert books.accounts.submitted == []
    await books.pass_s(1)
    assert len(books.accounts.submitted) == 1


async def test_verdicts_wait_while_accounts_is_down() -> None:
    """They are handed over in their order, once it answers."""
    books = RouterBooks()
    books.accounts.is_down = True
    attempts = [books.sent(number, has_delivered=False) for number in range(1, MAX_SUBMITTED + 5)]
    books.settlements.settle(attempts, is_complete=True)
    await books.settlements.submit()
    assert books.accounts.submitted == []

    books.accounts.is_down = False
    await books.settlements.submit()

    ids = [each.id for each in books.accounts.submitted]
    assert ids == list(range(1, MAX_SUBMITTED + 4))
    assert all(each.is_wasted for each in books.accounts.submitted)


async def test_an_answer_at_the_first_attempt_needs_no_word() -> None:
    """The engine says it all; nor does a copy of a request."""
    books = RouterBooks()
    books.settlements.settle([books.sent(1)], is_complete=True)
    copy = books.sent(2, origin=Origin(project="p", is_copy=True))
    books.settlements.settle([copy, copy], is_complete=False)
    await books.settlements.submit()
    assert books.accounts.submitted == []


async def test_an_answer_that_its_engine_takes_for_aborted_is_said_to_be_charged() -> None:
    """Whichever comes first; the client that left pays, too, and nobody for a killed router's."""
    books = RouterBooks()
    early, late, left = books.sent(1), books.sent(2), books.sent(3, is_answered=False)
    aborted = [msgspec.structs.replace(record(i, seq=i), is_aborted=True) for i in (1, 2)]
    books.settlements.record_usage("e", aborted[:1])
    for attempt in (early, late, left):
        books.settlements.settle([attempt], is_complete=True)
    books.settlements.record_usage("e", aborted[1:])
    await books.settlements.submit()
    assert [(each.id, each.is_charged) for each in books.accounts.submitted] == [
        (1, True),
        (3, True),
        (2, True),
    ]


async def test_a_router_that_stops_hands_over_what_it_alone_knows_of_dead_engines() -> None:
    """At once: their reports, and its own estimates; engines that are there tell it themselves."""
    books = RouterBooks()
    books.sent(1, engine="gone")
    books.sent(2, engine="gone")
    books.sent(3)
    books.settlements.record_usage("gone", [record(2)])
    books.settlements.record_usage("e", [record(4)])
    await books.settlements.close()
    handed = {each.id: each.record for each in books.accounts.submitted}
    assert handed.keys() == {1, 2}
    assert handed[2] == record(2)


async def test_what_is_wasted_is_handed_over_at_once() -> None:
    """A router that is killed a moment later has told it; what comes meanwhile is told once."""
    books = RouterBooks()
    for number in (1, 3):
        attempts = [books.sent(number, has_delivered=False), books.sent(number + 1)]
        books.settlements.settle(attempts, is_complete=True)
    sweeping = asyncio.create_task(books.settlements.sweep())
    await asyncio.sleep(0.01)
    await sweeping
    assert [(each.id, each.is_wasted) for each in books.accounts.submitted] == [
        (1, True),
        (3, True),
    ]
