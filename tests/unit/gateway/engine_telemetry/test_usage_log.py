"""The log keeps records until they are confirmed, and no more than its bound."""

from gateway.engine_telemetry.usage_log import PAGE_RECORDS, UsageLog
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord


def record(log: UsageLog, prompt_tokens: int = 5) -> UsageRecord:
    """The next record of a log."""
    return UsageRecord(
        epoch=log.epoch,
        seq=log.next_seq,
        id=log.next_seq,
        origin=Origin(project="p"),
        model="m",
        arrived_s=1.0,
        ended_s=2.0,
        prompt_tokens=prompt_tokens,
    )


def filled(count: int, limit: int = 10_000) -> UsageLog:
    """A log with that many records."""
    log = UsageLog(epoch=7, limit=limit)
    for _ in range(count):
        log.append(record(log))
    return log


def test_confirmed_records_are_forgotten_and_others_are_handed_out_again() -> None:
    """Until a confirmation comes, the same page is the answer."""
    log = filled(4)
    assert [each.seq for each in log.page().records] == [1, 2, 3, 4]

    log.confirm(7, 3)

    assert [each.seq for each in log.page().records] == [4]
    assert log.page().totals.prompt_tokens == 20


def test_a_confirmation_of_another_process_means_nothing() -> None:
    """An engine that has started again begins at 1, and nobody has that yet."""
    log = filled(2)
    log.confirm(6, 100)
    assert len(log) == 2
    assert log.is_followed


def test_a_full_log_drops_the_oldest_records_and_says_so() -> None:
    """The totals still count them."""
    log = filled(5, limit=3)
    page = log.page()
    assert [each.seq for each in page.records] == [3, 4, 5]
    assert (page.dropped, page.kept, page.totals.records) == (2, 3, 5)


def test_a_page_has_an_end() -> None:
    """The rest follows with the next confirmation."""
    page = filled(PAGE_RECORDS + 1).page()
    assert len(page.records) == PAGE_RECORDS
    assert page.kept == PAGE_RECORDS + 1
