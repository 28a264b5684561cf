"""Index from prefix key to the replicas whose KV cache holds it, as bit masks.

Method: every replica has one bit. A single walk along a prompt's keys gives the match of all
replicas: a replica's bit leaves the mask at the first key that the replica lacks. A key counts as
held where a replica's telemetry reports it, and is expected where this router has just sent a
request that will bring it.

Cost: O(keys) a walk, whatever the number of replicas; about 300 bytes a key and replica.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec


@dataclass(slots=True)
class _ReplicaKeys:
    """Keys of one replica, and the replica's bit in the masks."""

    bit: int
    held: set[int] = field(default_factory=set)
    expected: dict[int, int] = field(default_factory=dict)
    """Number of requests on their way to the replica that bring each key."""


class PrefixMatch(msgspec.Struct, frozen=True):
    """How much of the beginning of a prompt one replica holds."""

    keys: int
    """Number of the prompt's first keys that the replica holds."""
    tokens: int
    """Prompt tokens up to the end of the last of these keys; 0 if no engine has counted them."""


class PrefixIndex:
    """Prefix index of one model."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}
        """Key -> bits of the replicas that hold or expect it."""
        self._tokens: dict[int, int] = {}
        """Key -> prompt tokens up to its end."""
        self._replicas: dict[str, _ReplicaKeys] = {}
        self._names: dict[int, str] = {}
        """Bit -> replica."""
        self._last: tuple[Sequence[int], dict[str, PrefixMatch]] | None = None
        """Keys that were matched last, and the result; None: it has changed since."""

    def __len__(self) -> int:
        """Number of keys that at least one replica holds or expects."""
        return len(self._masks)

    def held_keys(self, replica: str) -> int:
        """Return the number of keys that a replica's telemetry reports; 0 if it is not there."""
        keys = self._replicas.get(replica)
        return 0 if keys is None else len(keys.held)

    def add_replica(self, replica: str) -> None:
        """Give a replica its bit; it holds nothing yet."""
        if replica in self._replicas:
            return
        bit = 1
        while bit in self._names:
            bit <<= 1
        self._names[bit] = replica
        self._replicas[replica] = _ReplicaKeys(bit)

    def remove_replica(self, replica: str) -> None:
        """Forget a replica and its keys."""
        keys = self._replicas.pop(replica, None)
        if keys is None:
            return
        self._last = None
        for key in keys.held | keys.expected.keys():
            self._clear_bit(key, keys.bit)
        del self._names[keys.bit]

    def replace(self, replica: str, keys: Sequence[int], tokens: Sequence[int]) -> None:
        """Set the keys that a replica holds; expected keys stay expected."""
        self.remove(replica, self._replicas[replica].held.difference(keys))
        self.add(replica, keys, tokens)

    def add(self, replica: str, keys: Sequence[int], tokens: Sequence[int]) -> None:
        """Add keys that a replica holds; `tokens`: the prompt tokens up to the end of each."""
        replica_keys = self._replicas[replica]
        masks, bit = self._masks, replica_keys.bit
        self._last = None
        for key in keys:
            masks[key] = masks.get(key, 0) | bit
        self._tokens.update(zip(keys, tokens, strict=True))
        replica_keys.held.update(keys)

    def remove(self, replica: str, keys: Iterable[int]) -> None:
        """Remove keys that a replica no longer holds."""
        replica_keys, self._last = self._replicas[replica], None
        for key in keys:
            replica_keys.held.discard(key)
            if key not in replica_keys.expected:
                self._clear_bit(key, replica_keys.bit)

    def add_expected(self, replica: str, keys: Sequence[int]) -> None:
        """Count these keys as held because a request on its way to the replica will bring them."""
        replica_keys = self._replicas[replica]
        masks, expected, bit = self._masks, replica_keys.expected, replica_keys.bit
        self._last = None
        for key in keys:
            expected[key] = expected.get(key, 0) + 1
            masks[key] = masks.get(key, 0) | bit

    def remove_expected(self, replica: str, keys: Sequence[int]) -> None:
        """Stop expecting the keys of one request, which has arrived or never will."""
        replica_keys = self._replicas.get(replica)
        if replica_keys is None:
            return
        expected, self._last = replica_keys.expected, None
        for key in keys:
            remaining = expected.get(key, 0) - 1
            if remaining > 0:
                expected[key] = remaining
                continue
            expected.pop(key, None)
            if key not in replica_keys.held:
                self._clear_bit(key, replica_keys.bit)

    def match(self, keys: Sequence[int]) -> dict[str, PrefixMatch]:
        """Match a prompt's keys against all replicas; replicas that hold none are left out.

        The result is kept for the same keys until the index changes: limits ask for it just before
        the policy does. Callers do not change it.
        """
        if self._last is None or self._last[0] is not keys:
            self._last = keys, self._walk(keys)
        return self._last[1]

    def _walk(self, keys: Sequence[int]) -> dict[str, PrefixMatch]:
        matches: dict[str, PrefixMatch] = {}
        holders = 0
        position = 0
        masks = self._masks
        for position, key in enumerate(keys):
            here = masks.get(key, 0)
            if position:
                if lost := holders & ~here:
                    self._add_match(matches, lost, keys, position)
                holders &= here
            else:
                holders = here
            if not holders:
                return matches
        if holders:
            self._add_match(matches, holders, keys, position + 1)
        return matches

    def _add_match(
        self, matches: dict[str, PrefixMatch], bits: int, keys: Sequence[int], count: int
    ) -> None:
        match = PrefixMatch(count, self._tokens.get(keys[count - 1], 0))
        while bits:
            bit = bits & -bits
            matches[self._names[bit]] = match
            bits ^= bit

    def _clear_bit(self, key: int, bit: int) -> None:
        remaining = self._masks.get(key, 0) & ~bit
        if remaining:
            self._masks[key] = remaining
        else:
            self._masks.pop(key, None)
            self._tokens.pop(key, None)
