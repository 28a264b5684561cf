"""Tenants, among which a model's time is shared out."""

from typing import NamedTuple


class Tenant(NamedTuple):
    """An API key, if there is one, at a client's address.

    Fairness is between addresses first, then between the keys of an address: keys can be invented.
    """

    address: bytes = b""
    key: bytes = b""


ANONYMOUS = Tenant()
"""Tenant of all clients without an address or a key."""
