"""Rows of one dispatch: which of them the ledger keeps, and which one is charged.

A router whose connection turns out to be closed sends the same dispatch again, over another one.
Its engine may have got both deliveries, and reports each of them. The client got nothing of the
first: it pays for the last one, and the others are wasted. A router's estimate stands in for an
engine's report, so it goes as soon as there is one.
"""

from collections.abc import Sequence

from gateway.ledger.price import PriceList
from gateway.ledger.row import ChargeLimit, UsageRow

REPEATED = ChargeLimit(is_wasted=True)


def merged(known: Sequence[UsageRow], new: Sequence[UsageRow]) -> list[UsageRow]:
    """The rows to keep of one dispatch, the last delivery last; rows that are known stay."""
    rows = {row.primary_key: row for row in (*reversed(new), *known)}
    reported = [row for row in rows.values() if not row.is_estimated]
    if reported:
        return sorted(reported, key=lambda row: (row.arrived_us, row.epoch, row.seq, row.engine))
    estimates = [*known, *new]
    return estimates[:1]


def charged(
    rows: Sequence[UsageRow], limit: ChargeLimit | None, prices: PriceList
) -> list[UsageRow]:
    """The same rows; the last one is charged as its router has said, the others are wasted."""
    return [
        row.settled(
            REPEATED if row is not rows[-1] else limit or row.limit_without_word,
            prices.at(row.model, row.adapter, row.ended_us / 1e6),
        )
        for row in rows
    ]
