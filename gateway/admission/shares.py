"""Which tenants have had their share of a model lately, and leave what is kept free for others.

Method: the tokens started for each tenant, forgotten exponentially; a tenant has had its share when
these are no less than the mean over all tenants that had something started within `KEPT_S`. O(1).
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 30.0
"""What is this old counts for a third of what is new."""
KEPT_S = 30.0
"""How long a tenant counts that has nothing more started."""


@dataclass(slots=True)
class _Account:
    """Tokens, as they were worth at a time."""

    told_s: float
    tokens: float = 0.0

    def at(self, now_s: float) -> float:
        """What they are worth now."""
        return self.tokens * math.exp((self.told_s - now_s) / WINDOW_S)

    def add(self, tokens: float, now_s: float) -> None:
        """Count more, or less."""
        self.tokens, self.told_s = max(0.0, self.at(now_s) + tokens), now_s


class Shares:
    """One model's, in one router. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tenants: OrderedDict[bytes, _Account] = OrderedDict()
        """Those with the latest starts last."""
        self._all = _Account(now())

    def start(self, tenant: bytes, tokens: float) -> None:
        """A tenant's request is started, and costs that much."""
        now_s = self._now()
        self._tenants.setdefault(tenant, _Account(now_s)).add(tokens, now_s)
        self._tenants.move_to_end(tenant)
        self._all.add(tokens, now_s)
        self._forget(now_s)

    def has_had(self, tenant: bytes) -> bool:
        """Whether a tenant has had its share, and is not alone."""
        now_s = self._now()
        self._forget(now_s)
        account = self._tenants.get(tenant)
        if account is None or len(self._tenants) == 1:
            return False
        return account.at(now_s) * len(self._tenants) >= self._all.at(now_s)

    def _forget(self, now_s: float) -> None:
        while self._tenants:
            tenant, account = next(iter(self._tenants.items()))
            if account.told_s > now_s - KEPT_S:
                return
            self._all.add(-account.at(now_s), now_s)
            del self._tenants[tenant]
