"""The index of who holds what, against a plain set for each replica."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.kvcache.prefix_index import (
    PrefixIndex,
    PrefixMatch,
    packed,
    packed_tokens,
    unpacked,
    unpacked_tokens,
)

KEYS = st.lists(st.integers(0, 11), max_size=6, unique=True)
NAMES = st.sampled_from("abcde")


class HoldingsAgainstSets(RuleBasedStateMachine):
    """Replicas that come, go, hold, lose and expect keys in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix_index = PrefixIndex()
        self.held: dict[str, set[int]] = {}
        self.expected: dict[str, list[list[int]]] = {}

    @rule(name=NAMES)
    def join(self, name: str) -> None:
        """A replica comes, perhaps one that is there."""
        self.prefix_index.join(name)
        self.held.setdefault(name, set())
        self.expected.setdefault(name, [])

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        """A replica goes, perhaps one that is not there."""
        self.prefix_index.leave(name)
        self.held.pop(name, None)
        self.expected.pop(name, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def add(self, data: st.DataObject, keys: list[int]) -> None:
        """One holds more."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.add(name, keys, [key * 16 for key in keys])
        self.held[name] |= set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def drop(self, data: st.DataObject, keys: list[int]) -> None:
        """One holds less, perhaps of what it never had."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.drop(name, keys)
        self.held[name] -= set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def replace(self, data: st.DataObject, keys: list[int]) -> None:
        """One holds something else."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.replace(name, keys, [key * 16 for key in keys])
        self.held[name] = set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), keys=KEYS)
    def expect(self, data: st.DataObject, keys: list[int]) -> None:
        """A request is sent to one."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.prefix_index.expect(name, keys)
        self.expected[name].append(keys)

    @precondition(lambda self: any(self.expected.values()))
    @rule(data=st.data())
    def expect_no_more(self, data: st.DataObject) -> None:
        """A request has arrived there."""
        names = sorted(name for name, sent in self.expected.items() if sent)
        name = data.draw(st.sampled_from(names))
        place = data.draw(st.integers(0, len(self.expected[name]) - 1))
        self.prefix_index.expect_no_more(name, self.expected[name].pop(place))

    def has(self, name: str) -> set[int]:
        """All that counts as held by a replica."""
        return self.held[name].union(*self.expected[name])

    @invariant()
    def every_key_is_where_the_sets_say(self) -> None:
        """A prompt of one key matches exactly at those that have it."""
        for key in range(12):
            holders = {name for name in self.held if key in self.has(name)}
            assert self.prefix_index.match([key]).keys() == holders

    @invariant()
    def nothing_is_left_of_what_nobody_has(self) -> None:
        """The index is as large as what is held."""
        assert len(self.prefix_index) == len(set().union(*map(self.has, self.held)))

    @invariant()
    def tokens_are_known_of_held_keys_only(self) -> None:
        """Counts go with the last that holds their key."""
        assert self.prefix_index._tokens.keys() <= self.prefix_index._index.keys()

    @rule(keys=KEYS)
    def match(self, keys: list[int]) -> None:
        """A longer prompt matches as far as each replica has all of its first keys."""
        found = self.prefix_index.match(keys)
        assert {name: match.keys for name, match in found.items()} == {
            name: length for name in self.held if (length := _length(keys, self.has(name)))
        }


def _length(keys: Sequence[int], has: set[int]) -> int:
    return next((i for i, key in enumerate(keys) if key not in has), len(keys))


TestHoldingsAgainstSets = HoldingsAgainstSets.TestCase


def holdings_of(**held: Sequence[int]) -> PrefixIndex:
    """Replicas that hold these keys; key n ends after 16 n tokens."""
    prefix_index = PrefixIndex()
    for name, keys in held.items():
        prefix_index.join(name)
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
def test_match_is_the_length_of_the_held_beginning(
    held: dict[str, list[int]], prompt: list[int], matches: dict[str, PrefixMatch]
) -> None:
    """Keys behind a gap do not count; tokens are those up to the last key that does."""
    assert holdings_of(**held).match(prompt) == matches


def test_tokens_of_keys_that_are_only_expected_are_not_known() -> None:
    """No engine has counted them yet, until one says so."""
    prefix_index = holdings_of(a=[])
    prefix_index.expect("a", [1, 2])
    assert prefix_index.match([1, 2]) == {"a": PrefixMatch(2, 0)}
    prefix_index.add("a", [1, 2], [10, 20])
    assert prefix_index.match([1, 2]) == {"a": PrefixMatch(2, 20)}


def test_a_key_expected_twice_stays_until_both_have_arrived() -> None:
    """Of two requests on their way with one prefix, one that fails takes nothing from the other."""
    prefix_index = holdings_of(a=[])
    prefix_index.expect("a", [1])
    prefix_index.expect("a", [1])
    prefix_index.expect_no_more("a", [1])
    assert prefix_index.match([1])
    prefix_index.expect_no_more("a", [1])
    assert not prefix_index.match([1])


def test_nothing_can_be_held_by_a_replica_that_is_not_there() -> None:
    """That a request has ended may be noticed after its replica has left."""
    prefix_index = holdings_of(a=[1])
    prefix_index.expect("a", [2])
    prefix_index.leave("a")
    prefix_index.expect_no_more("a", [2])
    assert len(prefix_index) == 0
    with pytest.raises(KeyError):
        prefix_index.add("a", [1], [1])


def test_many_replicas_have_a_bit_each() -> None:
    """Masks grow beyond a machine word."""
    prefix_index = holdings_of(**{f"r{i}": [1, i] for i in range(2, 200)})
    found = prefix_index.match([1, 150])
    assert len(found) == 198
    assert [name for name, match in found.items() if match.keys == 2] == ["r150"]
    assert Counter(match.keys for match in found.values()) == {1: 197, 2: 1}


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**32 - 1)))
def test_keys_and_tokens_survive_their_travel(keys: list[int], tokens: list[int]) -> None:
    """What is packed comes out again."""
    assert list(unpacked(packed(keys))) == keys
    assert list(unpacked_tokens(packed_tokens(tokens))) == tokens


def test_parts_of_keys_are_refused() -> None:
    """A frame that was cut is no whole number of keys."""
    with pytest.raises(ValueError, match="multiple"):
        unpacked(b"1234567")
    with pytest.raises(ValueError, match="multiple"):
        unpacked_tokens(b"123")
