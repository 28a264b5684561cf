"""Tests of the prefix index, against a plain set of keys for each replica."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.kvcache.prefix_index import PrefixIndex, PrefixMatch

KEYS = st.lists(st.integers(0, 11), max_size=6, unique=True)
NAMES = st.sampled_from("abcde")


class IndexAgainstSets(RuleBasedStateMachine):
    """Replicas that come and go, and gain, lose and expect keys, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix_index = PrefixIndex()
        self.probe = [1]
        self.held: dict[str, set[int]] = {}
        self.expected: dict[str, list[list[int]]] = {}

    @rule(name=NAMES)
    def add_replica(self, name: str) -> None:
        """Add a replica, perhaps one that is there."""
        self.prefix_index.add_replica(name)
        self.held.setdefault(name, set())
        self.expected.setdefault(name, [])

    @rule(name=NAMES)
    def remove_replica(self, name: str) -> None:
        """Remove a replica, perhaps one that is not there."""
        self.prefix_index.remove_replica(name)
        self.held.pop(name, None)
        self.expected.pop(name, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def add(self, data: st.DataObject, keys: list[int]) -> None:
        """Add keys to a replica."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.add(name, keys, [key * 16 for key in keys])
        self.held[name] |= set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def remove(self, data: st.DataObject, keys: list[int]) -> None:
        """Remove keys from a replica, perhaps keys that it never held."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.remove(name, keys)
        self.held[name] -= set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def replace(self, data: st.DataObject, keys: list[int]) -> None:
        """Replace the keys of a replica."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.replace(name, keys, [key * 16 for key in keys])
        self.held[name] = set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def add_expected(self, data: st.DataObject, keys: list[int]) -> None:
        """Expect the keys of a request at a replica."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.add_expected(name, keys)
        self.expected[name].append(keys)

    @precondition(lambda self: any(self.expected.values()))
    @rule(data=st.data())
    def remove_expected(self, data: st.DataObject) -> None:
        """Stop expecting the keys of a request."""
        names = sorted(name for name, sent in self.expected.items() if sent)
        name = data.draw(st.sampled_from(names))
        place = data.draw(st.integers(0, len(self.expected[name]) - 1))
        self.prefix_index.remove_expected(name, self.expected[name].pop(place))

    def has(self, name: str) -> set[int]:
        """Return all keys that count as held by a replica."""
        return self.held[name].union(*self.expected[name])

    @invariant()
    def every_key_is_where_the_sets_say(self) -> None:
        """A prompt of one key matches exactly the replicas that have it; also when asked again."""
        assert self.prefix_index.match(self.probe).keys() == self.match_of_probe()
        for key in range(12):
            holders = {name for name in self.held if key in self.has(name)}
            assert self.prefix_index.match([key]).keys() == holders
        self.prefix_index.match(self.probe)

    def match_of_probe(self) -> set[str]:
        """Replicas that have the key that was matched last before the latest change."""
        return {name for name in self.held if self.probe[0] in self.has(name)}

    @invariant()
    def no_other_key_is_indexed(self) -> None:
        """The index has exactly the keys that some replica has."""
        assert len(self.prefix_index) == len(set().union(*map(self.has, self.held)))

    @invariant()
    def only_indexed_keys_have_token_counts(self) -> None:
        """Token counts are removed together with their key."""
        assert self.prefix_index._tokens.keys() <= self.prefix_index._masks.keys()

    @rule(keys=KEYS)
    def match(self, keys: list[int]) -> None:
        """A prompt matches a replica up to the first key that the replica lacks."""
        found = self.prefix_index.match(keys)
        assert {name: match.keys for name, match in found.items()} == {
            name: length for name in self.held if (length := _length(keys, self.has(name)))
        }


def _length(keys: Sequence[int], has: set[int]) -> int:
    return next((i for i, key in enumerate(keys) if key not in has), len(keys))


TestIndexAgainstSets = IndexAgainstSets.TestCase


def index_of(**held: Sequence[int]) -> PrefixIndex:
    """An index of replicas that hold these keys; key n ends after 16 n tokens."""
    prefix_index = PrefixIndex()
    for name, keys in held.items():
        prefix_index.add_replica(name)
        prefix_index.add(name, keys, [16 * key for key in keys])
    return prefix_index


@pytest.mark.parametrize(
    ("held", "prompt", "matches"),
    [
        ({}, [1], {}),
        ({"a": [1, 2]}, [], {}),
        ({"a": [1, 2]}, [3], {}),
        ({"a": [1, 2]}, [1, 2, 3], {"a": PrefixMatch(2, 32)}),
        ({"a": [1, 2], "b": [1]}, [1, 2], {"a": PrefixMatch(2, 32), "b": PrefixMatch(1, 16)}),
        ({"a": [1, 3], "b": [2, 3]}, [1, 2, 3], {"a": PrefixMatch(1, 16)}),
    ],
)
def test_a_match_ends_at_the_first_missing_key(
    held: dict[str, list[int]], prompt: list[int], matches: dict[str, PrefixMatch]
) -> None:
    """Keys after a gap do not count; the tokens are those up to the last key that counts."""
    assert index_of(**held).match(prompt) == matches


def test_expected_keys_have_no_token_counts() -> None:
    """Token counts are 0 until an engine reports them."""
    prefix_index = index_of(a=[])
    prefix_index.add_expected("a", [1, 2])
    assert prefix_index.match([1, 2]) == {"a": PrefixMatch(2, 0)}
    prefix_index.add("a", [1, 2], [10, 20])
    assert prefix_index.match([1, 2]) == {"a": PrefixMatch(2, 20)}


def test_a_key_expected_by_two_requests_stays_until_both_have_arrived() -> None:
    """If one of two requests with the same prefix fails, the other's keys stay expected."""
    prefix_index = index_of(a=[])
    prefix_index.add_expected("a", [1])
    prefix_index.add_expected("a", [1])
    prefix_index.remove_expected("a", [1])
    assert prefix_index.match([1])
    prefix_index.remove_expected("a", [1])
    assert not prefix_index.match([1])


def test_a_removed_replica_holds_nothing() -> None:
    """The end of a request may be recorded after its replica has been removed."""
    prefix_index = index_of(a=[1])
    prefix_index.add_expected("a", [2])
    prefix_index.remove_replica("a")
    prefix_index.remove_expected("a", [2])
    assert len(prefix_index) == 0
    with pytest.raises(KeyError):
        prefix_index.add("a", [1], [1])


def test_the_index_works_for_hundreds_of_replicas() -> None:
    """Masks grow beyond a machine word."""
    prefix_index = index_of(**{f"r{i}": [1, i] for i in range(2, 200)})
    found = prefix_index.match([1, 150])
    assert len(found) == 198
    assert [name for name, match in found.items() if match.keys == 2] == ["r150"]
    assert Counter(match.keys for match in found.values()) == {1: 197, 2: 1}


def test_a_prompt_is_walked_once_until_the_index_changes() -> None:
    """Limits and the policy ask for the same match."""
    prefix_index, prompt = index_of(a=[1, 2]), [1, 2]
    first = prefix_index.match(prompt)
    assert prefix_index.match(prompt) is first
    prefix_index.remove("a", [2])
    assert prefix_index.match(prompt) == {"a": PrefixMatch(1, 16)}
