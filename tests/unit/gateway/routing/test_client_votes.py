"""Votes of clients on a replica: one client has one, whatever it sends."""

import pytest

from gateway.request.tenant import Tenant
from gateway.routing.client_votes import ADAPTERS, MAX_CLIENTS, VOTE_S, ClientVotes

A, B, C = Tenant(b"a"), Tenant(b"b"), Tenant(b"c")
A1, A2, A3 = Tenant(b"a", b"1"), Tenant(b"a", b"2"), Tenant(b"a", b"3")
X, Y = Tenant(ADAPTERS, b"1"), Tenant(ADAPTERS, b"2")


@pytest.mark.parametrize(
    ("results", "is_condemned"),
    [
        ([], True),
        ([(A, False)], True),
        ([(A, False), (B, True)], False),
        ([(B, True), *[(A, False)] * 50], False),
        ([(A, False), (B, False), (C, True)], True),
        ([(A, True), (B, False), (A, False)], True),
        ([(A, False), (B, False), (A, True), (B, True)], False),
        # invented keys are no more than their address
        ([(A1, False), (A2, False), (A3, False), (B, True)], False),
        ([(A1, False), (A2, True), (A3, False), (B, False)], False),
        # behind one address, keys are all there is
        ([(A1, False), (A2, False), (A3, True)], True),
        ([(A1, False), (A2, True)], False),
        # an adapter has a vote like a key, and leaves the keys behind one address theirs
        ([(A1, False), (A2, False), (A3, True), (X, False)], True),
        ([(A1, True), (A2, True), (A3, False), (X, False)], False),
        ([(X, False), (Y, False), (A1, True)], True),
        ([(X, False), (Y, True)], False),
        # beside many addresses, adapters are one more
        ([(X, False), (Y, False), (A, True), (B, True), (C, False)], False),
        ([(X, False), (Y, True), (A, True), (B, False)], False),
    ],
)
def test_a_replica_is_condemned_by_a_majority_of_its_clients(
    results: list[tuple[Tenant, bool]], is_condemned: bool
) -> None:
    """The last result of each counts, by address or, where there is one only, by key."""
    votes = ClientVotes()
    for client, is_success in results:
        votes.record(client, 100.0, is_success=is_success)
    assert votes.condemn(100.0) is is_condemned


def test_old_votes_do_not_count() -> None:
    """A client that was answered long ago says nothing of the replica as it is now."""
    votes = ClientVotes()
    votes.record(A, 100.0, is_success=True)
    votes.record(B, 100.0 + VOTE_S, is_success=False)
    assert votes.condemn(100.0 + VOTE_S)


def test_votes_are_few() -> None:
    """Those of the clients that were answered last are kept, however many invent themselves."""
    votes = ClientVotes()
    votes.record(A, 100.0, is_success=True)
    for number in range(MAX_CLIENTS):
        votes.record(Tenant(b"%d" % number), 100.0, is_success=False)
    assert votes.condemn(100.0)


def test_invented_keys_push_out_no_other_client() -> None:
    """However many keys one address has, it makes room for them among its own votes."""
    votes = ClientVotes()
    votes.record(B, 100.0, is_success=True)
    for number in range(2 * MAX_CLIENTS):
        votes.record(Tenant(b"a", b"%d" % number), 100.0, is_success=False)
    assert not votes.condemn(100.0)
