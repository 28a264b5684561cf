"""Tenants, among which a model's time is shared out."""

from typing import NamedTuple


class Tenant(NamedTuple):
    """The owner of a request, and which of the owner's keys it came with.

    Fairness is between owners first, then between the keys of an owner: a client that nobody has
    verified can invent any number of keys, but not of addresses.
    """

    owner: bytes = b""
    """Id of a verified project; without authentication, the client's address."""
    key: bytes = b""
    """Id of a verified key; without authentication, a hash of the one that the client offers."""


ANONYMOUS = Tenant()
"""Tenant of all clients without an address or a key."""
