"""Scopes of caches: who has which, and salts and seeds that tell them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.cache_scope import REMEMBERED_SEEDS, CacheSalts, ScopeSeeds
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.identity.project import Project

KEY = bytes(range(32))
VECTORS = [
    ("project:p", "", "d6d0a9b2949991163b43bbc8e0df63b79c8e0b022fd193a415b2db8bb2b686db"),
    ("project:p", "mine", "0fc06e22611b5114c62ceb8c29981bb7bdaac5f03ad93211ba406ef7d342629f"),
    ("", "mine", "1a4a0cbcc0dfc908f4cecd718a86ca03f69bee8ee7b8bbe4dc120f5eaa7be972"),
    ("ab", "c", "17eca1f3cf4e1f92cd415f54de5121e367cbc209edff96da287c5cd432cf9a46"),
    ("a", "bc", "3bddf4bc854ae05364f6353a7ec018de74fb1fe6bb599207f172368d9490b9dd"),
]
"""Scope, client's salt, salt; made with OpenSSL."""


def scope(kind: str, project: str = "p", key: str = "k") -> str:
    """The scope of a project's key, where the project has this kind of `cache_scope`."""
    found = Project(id=project, cache_scope=kind)
    return ClientIdentity(project=found, key=key).cache_scope


def test_a_scope_is_that_of_the_project_unless_it_says_otherwise() -> None:
    """Its own, its key's, its group's, or that of all."""
    assert scope("project") == "project:p"
    assert scope("key") == "key:p/k"
    assert scope("group:science") == "group:science"
    assert scope("all") == ""
    assert ClientIdentity(project=Project(id="p"), key="k").cache_scope == "project:p"
    assert ANONYMOUS_IDENTITY.cache_scope == ""


def test_a_kind_of_scope_that_is_not_known_stays_in_the_project() -> None:
    """A newer config shares no more than an older router knows of."""
    assert scope("planet") == "project:p"


def test_no_two_kinds_of_scope_meet() -> None:
    """No project, key or group can be named so that it has another's scope."""
    scopes = [
        scope("project", "p"),
        scope("project", "p/k"),
        scope("key", "p", "k"),
        scope("key", "p/k", "x"),
        scope("key", "p", "k/x"),
        scope("group:p"),
        scope("group:project:p"),
        scope("all"),
    ]
    assert len(set(scopes)) == len(scopes)


@pytest.mark.parametrize(("of_scope", "client", "salt"), VECTORS)
def test_salts_are_pinned(of_scope: str, client: str, salt: str) -> None:
    """Engines that exchange cached blocks, old and new ones, must agree.

    The last two are one message where fields are joined without their lengths.
    """
    assert CacheSalts(KEY).salt(of_scope, client) == salt


@given(st.lists(st.tuples(st.text(), st.text()), unique=True))
def test_salts_differ_where_scope_or_client_s_salt_do(pairs: list[tuple[str, str]]) -> None:
    """However both are chosen."""
    salts = [CacheSalts(KEY).salt(*pair) for pair in pairs]
    assert len(set(salts)) == len(salts)


def test_a_client_that_sends_another_s_salt_is_not_in_its_scope() -> None:
    """Nor can it be computed without the key."""
    salts = CacheSalts(KEY)
    victims = salts.salt("project:victim")

    assert salts.salt("project:attacker", victims) != victims
    assert salts.salt("", victims) != victims
    assert CacheSalts(KEY[::-1]).salt("project:victim") != victims


def test_salts_of_text_that_is_no_unicode_exist() -> None:
    """JSON may hold half a surrogate pair."""
    assert CacheSalts(KEY).salt("project:p", "\ud800") != CacheSalts(KEY).salt("project:p", "?")


def test_seeds_are_the_same_in_all_routers() -> None:
    """Of one cluster; what is shared by all has none."""
    seeds, others = ScopeSeeds(KEY), ScopeSeeds(KEY)

    assert seeds.seed("project:p") == others.seed("project:p") == seeds.seed("project:p") > 0
    assert seeds.seed("project:p") != seeds.seed("project:q")
    assert seeds.seed("project:p") != ScopeSeeds(b"").seed("project:p")
    assert seeds.seed("") == 0


def test_remembered_seeds_are_bounded() -> None:
    """Keys come and go, and each may have a scope of its own."""
    seeds = ScopeSeeds(KEY)
    first = seeds.seed("key:p/0")
    for number in range(2 * REMEMBERED_SEEDS):
        seeds.seed(f"key:p/{number}")

    assert len(seeds._seeds) <= REMEMBERED_SEEDS + 2
    assert seeds.seed("key:p/0") == first
    assert seeds.seed("") == 0
