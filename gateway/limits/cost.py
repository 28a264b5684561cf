"""Cost of a request, by the prices that the ledger charges it by."""

from typing import NamedTuple

from gateway.ledger.price import PriceList
from gateway.ledger.view import BatchUsage, MinuteUsage
from gateway.telemetry.usage import UsageRecord


class Amounts(NamedTuple):
    """What a request takes of limits of a day or month."""

    nano: int
    """Billionths of the currency's unit."""
    tokens: int
    """Batch tokens; 0 for other requests."""


NOTHING = Amounts(0, 0)


def counted_tokens(usage: UsageRecord | MinuteUsage | BatchUsage, *, counts_cached: bool) -> int:
    """Tokens that count against limits: those of the prompt and of the answer."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    return tokens if counts_cached else tokens - usage.cached_tokens


def charge_of(prices: PriceList, usage: UsageRecord, *, counts_cached: bool) -> Amounts:
    """What a request has taken; a copy costs its project nothing, nor does what it went on from."""
    origin = usage.origin
    if origin.is_copy:
        return NOTHING
    prompt, cached = usage.prompt_tokens, usage.cached_tokens
    if origin.is_continuation:
        prompt = cached = 0
    price = prices.at(usage.model, usage.adapter, usage.ended_s)
    nano = price.cost_nano(prompt, cached, usage.completion_tokens, usage.device_s)
    tokens = 0
    if origin.tier == "flex":
        tokens = prompt + usage.completion_tokens - (0 if counts_cached else cached)
    return Amounts(nano, tokens)
