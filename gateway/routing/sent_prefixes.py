"""Prompts that a router has sent to each replica, for policies that use no telemetry.

The keys of each replica are kept in the order of their last use, the deepest of a prompt first, so
that the least recently used ends of prompts are evicted first.

Cost: O(keys) a call; about 400 bytes a key and replica.
"""

from collections.abc import Iterable, Sequence

from gateway.kvcache.prefix_index import PrefixIndex


class SentPrefixes:
    """Prefix keys of the prompts sent to each replica."""

    def __init__(self) -> None:
        self._prefix_index = PrefixIndex()
        self._records: dict[str, dict[int, int]] = {}
        """Replica -> its keys, least recently used first, each with the time of its last use."""
        self._clock = 0

    def set_replicas(self, replicas: Iterable[str]) -> None:
        """Set the replicas: forget all others, and start an empty record for each new one."""
        names = set(replicas)
        for gone in self._records.keys() - names:
            self._prefix_index.remove_replica(gone)
            del self._records[gone]
        for new in names - self._records.keys():
            self._prefix_index.add_replica(new)
            self._records[new] = {}

    def size(self, replica: str) -> int:
        """Return the number of keys in a replica's record."""
        return len(self._records[replica])

    def match(self, keys: Sequence[int]) -> dict[str, int]:
        """Return how many of the first keys each replica was sent; only replicas with any."""
        return {name: match.keys for name, match in self._prefix_index.match(keys).items()}

    def last_used(self, replica: str, key: int) -> int:
        """Return when a key of a replica's record was last sent to it, counted in prompts."""
        return self._records[replica][key]

    def add(self, replica: str, keys: Sequence[int]) -> None:
        """Record a prompt sent to a replica."""
        self._clock += 1
        record = self._records[replica]
        for key in reversed(keys):
            record.pop(key, None)
            record[key] = self._clock
        self._prefix_index.add(replica, keys, [0] * len(keys))

    def shrink(self, replica: str, size: int) -> None:
        """Evict a replica's least recently used keys until at most `size` are left."""
        record = self._records[replica]
        oldest = iter(record)
        gone = [next(oldest) for _ in range(len(record) - size)]
        for key in gone:
            del record[key]
        self._prefix_index.remove(replica, gone)
