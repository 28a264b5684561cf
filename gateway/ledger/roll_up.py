"""Sums of the ledger's rows by period, project, key, user, model, adapter, tier and endpoint."""

from collections.abc import Iterable

from gateway.ledger.row import MICRO, UsageRow

SumKey = tuple[int, str, str, str, str, str, str, str]
"""Beginning of the period in Unix time, project, key, user, model, adapter, tier, endpoint."""
Sums = list[int]
"""In the order of `SUMS` in `gateway.store.tables`."""


def sums_of(row: UsageRow) -> Sums:
    """What one row adds. A continuation is no request of its own, nor is a wasted attempt."""
    is_charged, is_copy = row.is_charged, row.is_copy
    return [
        int(is_charged and not row.is_continuation),
        row.charged_prompt_tokens,
        row.charged_cached_tokens,
        row.charged_completion_tokens,
        int(not is_copy),
        int(row.is_estimated),
        row.prompt_tokens - row.charged_prompt_tokens,
        row.completion_tokens - row.charged_completion_tokens,
        row.device_us,
        row.cost_nano,
        row.device_cost_nano,
        row.wasted_nano,
    ]


def changes(
    added: Iterable[UsageRow], removed: Iterable[UsageRow], period_s: int
) -> dict[SumKey, Sums]:
    """What rows that have come and gone change of the sums by period."""
    totals: dict[SumKey, Sums] = {}
    for sign, rows in ((1, added), (-1, removed)):
        for row in rows:
            key = _key(row, period_s)
            sums = [sign * value for value in sums_of(row)]
            known = totals.get(key)
            totals[key] = (
                sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]
            )
    return {key: sums for key, sums in totals.items() if any(sums)}


def _key(row: UsageRow, period_s: int) -> SumKey:
    at_s = row.ended_us // MICRO // period_s * period_s
    return (
        at_s,
        row.project,
        row.key,
        row.user,
        row.model,
        row.adapter,
        row.tier,
        row.endpoint,
    )
