"""Who has had their share of a model lately, and leaves what is kept free for others.

Method: the tokens started for each address, and for each key of it, forgotten exponentially. One
has had its share when these are no less than the mean over all that had something started within
`KEPT_S`, addresses among addresses, keys among the keys of their address. What has just been
started is counted for more than one token each, rather than what is old for less, so that nothing
has to be computed to compare. O(1), amortised.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.request.tenant import Tenant

WINDOW_S = 30.0
"""What is this old counts for a third of what is new."""
KEPT_S = 30.0
"""How long one counts that has nothing more started."""
REMEMBERED = 1024
"""Addresses, and keys of an address, that count at the same time: invented ones fill no memory."""
LARGEST_EXPONENT = 100.0
"""Of what a token counts for, before all is counted anew; a float has room for 700."""


@dataclass(slots=True)
class UsageShare:
    """What was started for one, and for its parts."""

    started_s: float
    """When the last was."""
    tokens: float = 0.0
    parts: "OrderedDict[bytes, UsageShare]" = field(default_factory=OrderedDict)
    """Those with the latest starts last."""
    all: float = 0.0
    """Tokens of all parts."""

    def part(self, name: bytes, tokens: float, now_s: float) -> "UsageShare":
        """One of its parts, for which so much more is started."""
        share = self.parts.get(name)
        if share is None:
            share = self.parts[name] = UsageShare(now_s)
        share.tokens += tokens
        share.started_s = now_s
        self.all += tokens
        self.parts.move_to_end(name)
        return share

    def has_had(self, name: bytes) -> bool:
        """Whether a part has had as much as the mean of all, and is not alone."""
        count = len(self.parts)
        if count == 1:
            return False
        share = self.parts.get(name)
        return share is not None and share.tokens * count >= self.all

    def forget(self, until_s: float) -> None:
        """Count no more the parts that have started nothing since, and those that are too many."""
        while self.parts:
            name = next(iter(self.parts))
            share = self.parts[name]
            if share.started_s > until_s and len(self.parts) <= REMEMBERED:
                return
            self.all = max(0.0, self.all - share.tokens)
            del self.parts[name]

    def scale(self, factor: float) -> None:
        """Count everything for so much."""
        self.tokens *= factor
        self.all *= factor
        for share in self.parts.values():
            share.scale(factor)


class RecentUsage:
    """One model's, in one router. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since_s = now()
        """When a token counted for one."""
        self._addresses = UsageShare(self._since_s)

    def start(self, tenant: Tenant, tokens: float) -> None:
        """A tenant's request is started, and costs that much."""
        now_s = self._now()
        exponent = (now_s - self._since_s) / WINDOW_S
        if exponent > LARGEST_EXPONENT:
            self._addresses.scale(math.exp(-exponent))
            self._since_s, exponent = now_s, 0.0
        worth = tokens * math.exp(exponent)
        address = self._addresses.part(tenant.address, worth, now_s)
        address.part(tenant.key, worth, now_s)
        address.forget(now_s - KEPT_S)
        self._addresses.forget(now_s - KEPT_S)

    def has_had(self, tenant: Tenant) -> bool:
        """Whether a tenant's address has had its share, or its key has had that of the address.

        Neither has who is alone.
        """
        addresses = self._addresses
        address = addresses.parts.get(tenant.address)
        if address is None or len(addresses.parts) == len(address.parts) == 1:
            return False
        until_s = self._now() - KEPT_S
        addresses.forget(until_s)
        address.forget(until_s)
        return addresses.has_had(tenant.address) or address.has_had(tenant.key)
