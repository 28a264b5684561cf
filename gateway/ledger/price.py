"""Prices of models, and the cost of one request, in whole billionths (nano-units) of the currency.

Method: all factors are integers. A request's tokens are multiplied by the nano-units of a million
tokens, added up, and divided by a million once: a row is rounded once, half up. Sums of rows are
exact.
"""

import math
from collections.abc import Iterable

import msgspec

MILLION = 1_000_000
HALF_MILLION = MILLION // 2
HOUR_US = 3_600 * MILLION
"""Microseconds of an hour."""
MAX_FOUND = 4096
"""Models and adapters whose prices are remembered."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one model or adapter from a date on, in nano-units; None: it has no such price."""

    model: str
    from_s: int
    """From when on, in Unix time."""
    input_nano: int | None = None
    """Of a million prompt tokens that were not cached."""
    cached_input_nano: int | None = None
    """Of a million cached prompt tokens; None: they cost as much as others."""
    output_nano: int | None = None
    """Of a million tokens of answers."""
    gpu_hour_nano: int | None = None
    """Of one device for one hour."""

    @property
    def has_tokens(self) -> bool:
        """Whether tokens have a price."""
        return self.input_nano is not None or self.output_nano is not None

    def tokens_nano(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """Cost of tokens; `prompt_tokens` include the cached ones."""
        full, cached = self.input_nano or 0, self.cached_input_nano
        total = prompt_tokens * full + completion_tokens * (self.output_nano or 0)
        if cached_tokens and cached is not None:
            total += cached_tokens * (cached - full)
        return (total + HALF_MILLION) // MILLION  # as `rounded`

    def cost_nano(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, device_s: float
    ) -> int:
        """Cost by tokens, or by the time of devices where tokens have no price."""
        if self.input_nano is None and self.output_nano is None:
            return self.device_nano(round(device_s * MILLION))
        return self.tokens_nano(prompt_tokens, cached_tokens, completion_tokens)

    def device_nano(self, device_us: int) -> int:
        """Cost of microseconds of one device."""
        return rounded(device_us * (self.gpu_hour_nano or 0), HOUR_US)


class PriceList:
    """Prices of all models, each from its date on."""

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self.prices = tuple(sorted(prices, key=lambda each: (each.model, each.from_s)))
        self._by_model: dict[str, list[Price]] = {}
        for price in self.prices:
            self._by_model.setdefault(price.model, []).append(price)
        self._found: dict[tuple[str, str], tuple[float, float, Price]] = {}
        """By model and adapter, the price found last, and from when until when it is in force."""

    def at(self, model: str, adapter: str, time_s: float) -> Price:
        """Price in force for an adapter, or else for its model; free of charge without one."""
        found = self._found.get((model, adapter))
        if found is None or not found[0] <= time_s < found[1]:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            found = self._found[model, adapter] = self._find(model, adapter, time_s)
        return found[2]

    def _find(self, model: str, adapter: str, time_s: float) -> tuple[float, float, Price]:
        versions = [*self._by_model.get(model, ()), *(self._by_model.get(adapter, ()))]
        from_s = max((p.from_s for p in versions if p.from_s <= time_s), default=-math.inf)
        until_s = min((p.from_s for p in versions if p.from_s > time_s), default=math.inf)
        for name in (adapter, model):
            valid = [each for each in self._by_model.get(name, ()) if each.from_s <= time_s]
            if name and valid:
                return from_s, until_s, valid[-1]
        return from_s, until_s, Price(model=adapter or model, from_s=0)


def rounded(numerator: int, denominator: int) -> int:
    """Quotient of two integers that are not negative, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)
