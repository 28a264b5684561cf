"""Recent usage of a model by tenant, and which tenants are over their fair share.

Method: the tokens started for each address, and for each key of it, decay exponentially. A part is
over its share when its tokens are no less than the mean over all parts that had something started
within `KEPT_S`: addresses among addresses, keys among the keys of their address. New tokens are
scaled up rather than old ones down, so that nothing has to be computed to compare. O(1), amortised.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.request.tenant import Tenant

WINDOW_S = 30.0
"""Age at which tokens count for a third of new ones."""
KEPT_S = 30.0
"""How long a part counts that has nothing more started."""
MAX_PARTS = 1024
"""Addresses, and keys of an address, that count at the same time: invented ones fill no memory."""
MAX_EXPONENT = 100.0
"""Exponent of the scale of new tokens above which all is scaled down; a float has room for 700."""


@dataclass(slots=True)
class UsageShare:
    """Tokens started for one address or key, and for its parts."""

    started_s: float
    """When the last request was started."""
    tokens: float = 0.0
    parts: "OrderedDict[bytes, UsageShare]" = field(default_factory=OrderedDict)
    """By name, those with the latest starts last."""
    all_tokens: float = 0.0
    """Tokens of all parts."""

    def record(self, name: bytes, tokens: float, now_s: float) -> "UsageShare":
        """Count tokens started for a part, and return that part."""
        share = self.parts.get(name)
        if share is None:
            share = self.parts[name] = UsageShare(now_s)
        share.tokens += tokens
        share.started_s = now_s
        self.all_tokens += tokens
        self.parts.move_to_end(name)
        return share

    def is_over_fair_share(self, name: bytes) -> bool:
        """Whether a part has no less than the mean of all parts, and is not the only one."""
        count = len(self.parts)
        if count == 1:
            return False
        share = self.parts.get(name)
        return share is not None and share.tokens * count >= self.all_tokens

    def expire(self, until_s: float) -> None:
        """Drop the parts that have started nothing since then, and the oldest of too many."""
        while self.parts:
            name = next(iter(self.parts))
            share = self.parts[name]
            if share.started_s > until_s and len(self.parts) <= MAX_PARTS:
                return
            self.all_tokens = max(0.0, self.all_tokens - share.tokens)
            del self.parts[name]

    def scale(self, factor: float) -> None:
        """Multiply all counts by a factor."""
        self.tokens *= factor
        self.all_tokens *= factor
        for share in self.parts.values():
            share.scale(factor)


class RecentUsage:
    """Recent usage of one model in one router. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since_s = now()
        """When the scale of new tokens was 1."""
        self._addresses = UsageShare(self._since_s)

    def record(self, tenant: Tenant, tokens: float) -> None:
        """Count a request of a tenant that is started."""
        now_s = self._now()
        exponent = (now_s - self._since_s) / WINDOW_S
        if exponent > MAX_EXPONENT:
            self._addresses.scale(math.exp(-exponent))
            self._since_s, exponent = now_s, 0.0
        scaled = tokens * math.exp(exponent)
        address = self._addresses.record(tenant.owner, scaled, now_s)
        address.record(tenant.key, scaled, now_s)
        address.expire(now_s - KEPT_S)
        self._addresses.expire(now_s - KEPT_S)

    def is_over_fair_share(self, tenant: Tenant) -> bool:
        """Whether a tenant's address is over its share, or its key over that of the address.

        A tenant that is alone never is.
        """
        addresses = self._addresses
        address = addresses.parts.get(tenant.owner)
        if address is None or len(addresses.parts) == len(address.parts) == 1:
            return False
        until_s = self._now() - KEPT_S
        addresses.expire(until_s)
        address.expire(until_s)
        if addresses.is_over_fair_share(tenant.owner):
            return True
        return address.is_over_fair_share(tenant.key)

    def is_key_over_fair_share(self, tenant: Tenant) -> bool:
        """Whether a tenant's key is over its share of what its address or project uses."""
        address = self._addresses.parts.get(tenant.owner)
        if address is None or len(address.parts) == 1:
            return False
        address.expire(self._now() - KEPT_S)
        return address.is_over_fair_share(tenant.key)
