"""Rows of the ledger: one for each attempt, made of a usage record, its settlement and a price."""

from collections.abc import Iterable

import msgspec

from gateway.ledger.price import Price, PriceList
from gateway.ledger.settlement import Settlement
from gateway.telemetry.usage import UsageRecord

MICRO = 1_000_000
MOST = 2**62
"""Largest number that a column holds."""
MAX_TEXT = 256
"""Characters of a text that are kept."""
MAX_ATTEMPT = 2**31 - 2
ROUTER = 2**31 - 1
"""Stands for the router itself, whose word counts more than that of any attempt."""


class ChargeLimit(msgspec.Struct, frozen=True):
    """What a router has said of an attempt: how much of it is charged."""

    is_wasted: bool = False
    completion_tokens: int | None = None
    """Most tokens of the answer that are charged; None: all."""


UNLIMITED = ChargeLimit()


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine did for an attempt, and what of it is charged; columns of `usage`."""

    engine: str
    epoch: int
    seq: int
    dispatch_id: int
    """Its 64 bits as a signed number: databases have no others. See `gateway.ledger.deliveries`."""
    request_id: str
    attempt: int
    project: str
    key: str
    user: str
    tier: str
    model: str
    adapter: str
    endpoint: str
    is_copy: bool
    is_continuation: bool
    is_estimated: bool
    is_aborted: bool
    is_wasted: bool
    arrived_us: int
    ended_us: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    charged_prompt_tokens: int
    charged_cached_tokens: int
    charged_completion_tokens: int
    queue_us: int
    prefill_us: int
    decode_us: int
    device_us: int
    price_from_s: int
    cost_nano: int
    device_cost_nano: int
    wasted_nano: int

    @property
    def primary_key(self) -> tuple[str, int, int]:
        """What it is unique by."""
        return self.engine, self.epoch, self.seq

    @property
    def is_charged(self) -> bool:
        """Whether a client pays for it, or for some of it."""
        return not (self.is_copy or self.is_wasted)

    @property
    def limit_without_word(self) -> ChargeLimit:
        """What is charged if its router says nothing: it was killed if the attempt was cut."""
        return ChargeLimit(is_wasted=self.is_aborted and not self.is_estimated)

    def settled(self, limit: ChargeLimit, price: Price) -> "UsageRow":
        """The same attempt, charged as a router has said."""
        is_charged = not (limit.is_wasted or self.is_copy)
        has_prompt = is_charged and not self.is_continuation
        prompt = self.prompt_tokens * has_prompt
        cached = self.cached_tokens * has_prompt
        completion = self.completion_tokens * is_charged
        if limit.completion_tokens is not None:
            completion = min(completion, max(0, limit.completion_tokens))
        has_tokens = price.has_tokens
        full = price.tokens_nano(self.prompt_tokens, self.cached_tokens, self.completion_tokens)
        device_nano = price.device_nano(self.device_us)
        cost = (
            price.tokens_nano(prompt, cached, completion)
            if has_tokens
            else device_nano * is_charged
        )
        return msgspec.structs.replace(
            self,
            is_wasted=limit.is_wasted,
            charged_prompt_tokens=prompt,
            charged_cached_tokens=cached,
            charged_completion_tokens=completion,
            price_from_s=price.from_s,
            cost_nano=cost,
            device_cost_nano=device_nano,
            wasted_nano=(full if has_tokens else device_nano) - cost,
        )


def make_row(
    engine: str,
    record: UsageRecord,
    limit: ChargeLimit | None,
    prices: PriceList,
    now_us: int,
    *,
    is_estimated: bool,
) -> UsageRow:
    """Make the row of a record; estimated ones have no number of their engine.

    No attempt ends after now: an engine's clock that is ahead moves no cost to a later period.
    """
    origin, id_ = record.origin, signed(record.id)
    ended_us = min(now_us, micros(record.ended_s))
    prompt = _whole(record.prompt_tokens)
    row = UsageRow(
        engine=_text(engine),
        epoch=0 if is_estimated else _whole(record.epoch),
        seq=id_ if is_estimated else _whole(record.seq),
        dispatch_id=id_,
        request_id=_text(origin.request_id),
        attempt=attempt_number(record),
        project=_text(origin.project),
        key=_text(origin.key),
        user=_text(origin.user),
        tier=_text(origin.tier),
        model=_text(record.model),
        adapter=_text(record.adapter),
        endpoint=_text(origin.endpoint),
        is_copy=origin.is_copy,
        is_continuation=origin.is_continuation,
        is_estimated=is_estimated,
        is_aborted=record.is_aborted,
        is_wasted=False,
        arrived_us=min(ended_us, micros(record.arrived_s)),
        ended_us=ended_us,
        prompt_tokens=prompt,
        cached_tokens=min(_whole(record.cached_tokens), prompt),
        completion_tokens=_whole(record.completion_tokens),
        charged_prompt_tokens=0,
        charged_cached_tokens=0,
        charged_completion_tokens=0,
        queue_us=micros(record.queue_s),
        prefill_us=micros(record.prefill_s),
        decode_us=micros(record.decode_s),
        device_us=micros(record.device_s),
        price_from_s=0,
        cost_nano=0,
        device_cost_nano=0,
        wasted_nano=0,
    )
    limit = row.limit_without_word if limit is None else limit
    return row.settled(limit, prices.at(row.model, row.adapter, ended_us / MICRO))


def charge_limit_of(settlement: Settlement) -> ChargeLimit | None:
    """What a settlement says of its attempt; None: nothing."""
    limit = ChargeLimit(settlement.is_wasted, settlement.completion_tokens)
    return None if limit == UNLIMITED and not settlement.is_charged else limit


def earlier_limits(records: Iterable[UsageRecord]) -> dict[int, tuple[int, ChargeLimit]]:
    """What attempts say of earlier ones: by their dispatches, the last attempt that says it."""
    found: dict[int, tuple[int, ChargeLimit]] = {}
    for record in records:
        for each in record.origin.earlier:
            id_ = signed(each.id)
            number, tokens = attempt_number(record), _whole(each.completion_tokens)
            if id_ not in found or found[id_][0] < number:
                limit = ChargeLimit(each.is_wasted, None if each.is_wasted else tokens)
                found[id_] = number, limit
    return found


def attempt_number(record: UsageRecord) -> int:
    """Number of an attempt, as a column holds it."""
    return min(_whole(record.origin.attempt), MAX_ATTEMPT)


def signed(id_: int) -> int:
    """The 64 bits of a number as a signed one."""
    id_ &= 2**64 - 1
    return id_ - 2**64 if id_ >= 2**63 else id_


def micros(seconds: float) -> int:
    """Whole microseconds; 0 for what is no length of time."""
    return _whole(round(seconds * MICRO)) if 0 < seconds < MOST / MICRO else 0


def _whole(number: int) -> int:
    return min(max(0, number), MOST)


def _text(text: str) -> str:
    """Text that every database takes; a client may have chosen it."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT]
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode(errors="replace").decode()
