"""What a router that hears nothing from engines can know: the prompts it has sent to each replica.

The keys of each replica are kept in the order of their last use, a prompt's deepest first, so that
the least recently used ends of prompts are the first to be forgotten. O(keys) a call, about 400
bytes a key and replica.
"""

from collections.abc import Iterable, Sequence

from gateway.kvcache.prefix_index import PrefixIndex


class SentPrefixes:
    """The prompts sent to each replica, as prefix keys."""

    def __init__(self) -> None:
        self._prefix_index = PrefixIndex()
        self._records: dict[str, dict[int, int]] = {}
        """Of each replica: its keys, least recently used first, and when they were last used."""
        self._clock = 0

    def follow(self, replicas: Iterable[str]) -> None:
        """These are the replicas: forget the others, begin an empty record for new ones."""
        names = set(replicas)
        for gone in self._records.keys() - names:
            self._prefix_index.leave(gone)
            del self._records[gone]
        for new in names - self._records.keys():
            self._prefix_index.join(new)
            self._records[new] = {}

    def size(self, replica: str) -> int:
        """How many keys a replica's record has."""
        return len(self._records[replica])

    def match(self, keys: Sequence[int]) -> dict[str, int]:
        """How many of the first keys each replica has been sent; only replicas with any."""
        return {name: match.keys for name, match in self._prefix_index.match(keys).items()}

    def last_used(self, replica: str, key: int) -> int:
        """When a key of the replica's record was last sent there, counted in prompts."""
        return self._records[replica][key]

    def add(self, replica: str, keys: Sequence[int]) -> None:
        """A prompt has been sent to a replica."""
        self._clock += 1
        record = self._records[replica]
        for key in reversed(keys):
            record.pop(key, None)
            record[key] = self._clock
        self._prefix_index.add(replica, keys, [0] * len(keys))

    def shrink(self, replica: str, size: int) -> None:
        """Forget a replica's least recently used keys until no more than `size` are left."""
        record = self._records[replica]
        oldest = iter(record)
        gone = [next(oldest) for _ in range(len(record) - size)]
        for key in gone:
            del record[key]
        self._prefix_index.drop(replica, gone)
