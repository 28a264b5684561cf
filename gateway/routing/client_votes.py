"""Votes of clients on one replica: whether it fails for most of them, or for one of them only.

Method: the last result of each client counts as its vote, however many requests it sends. Votes
are grouped by address, because keys can be invented; where all come from one address, as behind a
load balancer, each key has one. Where clients are authenticated, their project stands for the
address. An address votes against the replica if all of its keys do. All requests to one adapter
have one vote, like those of one key; the adapters count as one more address, which does not decide
how votes are grouped. The replica is condemned if more vote against it than for it, or if nobody
votes for it. So neither one client, whose requests fail by their own fault, nor one broken adapter
takes a replica from others.

Source: Envoy's outlier detection counts requests; here clients are counted, as quorum protocols do,
because one client can send any number of requests. Cost: O(1) a result, O(clients) a question.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from gateway.request.tenant import Tenant

MAX_CLIENTS = 64
"""Clients whose votes are kept: the latest. One address takes no more than half from the others."""
VOTE_S = 30.0
"""How long a vote counts."""
ADAPTERS = b"adapter"
"""Stands for the address of clients whose requests an adapter answers."""


@dataclass(slots=True, eq=False)
class ClientVotes:
    """Last result of each client at one replica; times are seconds."""

    _votes: OrderedDict[Tenant, tuple[float, bool]] = field(default_factory=OrderedDict)
    """When, and whether the request succeeded; the latest last."""
    _sizes: Counter[bytes] = field(default_factory=Counter)
    """Number of votes from each address."""

    def record(self, client: Tenant, now_s: float, *, is_success: bool) -> None:
        """Record the result of a client's request, which takes the place of its last one."""
        votes = self._votes
        if client not in votes:
            self._sizes[client.owner] += 1
        votes[client] = now_s, is_success
        votes.move_to_end(client)
        if len(votes) > MAX_CLIENTS:
            self._drop_one(client.owner)

    def _drop_one(self, latest: bytes) -> None:
        """Drop the oldest vote; that of the latest voter's address, if most are from there."""
        is_large = 2 * self._sizes[latest] > MAX_CLIENTS
        dropped = next(each for each in self._votes if not is_large or each.owner == latest)
        del self._votes[dropped]
        self._sizes[dropped.owner] -= 1
        if not self._sizes[dropped.owner]:
            del self._sizes[dropped.owner]

    def condemn(self, now_s: float) -> bool:
        """Whether the replica fails for more clients than it answers, or answers none."""
        recent = {
            client: is_success
            for client, (voted_s, is_success) in self._votes.items()
            if voted_s > now_s - VOTE_S
        }
        is_one_address = len({client.owner for client in recent} - {ADAPTERS}) <= 1
        ballots: dict[Tenant, bool] = {}
        for client, is_success in recent.items():
            name = client if is_one_address else Tenant(client.owner)
            ballots[name] = ballots.get(name, False) or is_success
        in_favour = sum(ballots.values())
        return not in_favour or 2 * in_favour < len(ballots)
