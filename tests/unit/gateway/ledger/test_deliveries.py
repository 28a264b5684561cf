"""Rows of one dispatch that an engine has got more than once."""

from gateway.ledger.deliveries import charged, merged
from gateway.ledger.price import PriceList
from gateway.ledger.row import ChargeLimit, UsageRow, make_row
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord

PRICES = PriceList([])
NOW_US = 10_000_000


def delivery(seq: int, tokens: int = 8, *, is_estimated: bool = False) -> UsageRow:
    """The row of a delivery; later ones have higher numbers."""
    record = UsageRecord(
        epoch=1,
        seq=seq,
        id=5,
        origin=Origin(project="p"),
        model="m",
        arrived_s=float(seq),
        ended_s=9.0 - seq,
        completion_tokens=tokens,
    )
    return make_row("e", record, ChargeLimit(), PRICES, NOW_US, is_estimated=is_estimated)


def test_all_reports_stay_in_the_order_in_which_they_arrived_at_the_engine() -> None:
    """Not in that of their ends; one that is there is not replaced by itself."""
    first, last = delivery(1), delivery(2)
    assert merged([last], [first]) == [first, last]
    assert merged([first], [last, first]) == [first, last]
    kept = merged([first], [delivery(1, 99)])
    assert [row.completion_tokens for row in kept] == [8]


def test_an_estimate_stays_until_there_is_a_report() -> None:
    """One is enough, and the first one stays."""
    guess, other = delivery(1, 7, is_estimated=True), delivery(2, 6, is_estimated=True)
    assert merged([guess], [other]) == [guess]
    assert merged([], [guess, other]) == [guess]
    assert merged([guess], [delivery(2)]) == [delivery(2)]
    assert merged([delivery(2)], [guess]) == [delivery(2)]


def test_the_last_delivery_is_charged_as_was_said() -> None:
    """The others are wasted."""
    rows = charged([delivery(1), delivery(2)], ChargeLimit(completion_tokens=3), PRICES)
    assert [(row.is_wasted, row.charged_completion_tokens) for row in rows] == [
        (True, 0),
        (False, 3),
    ]
