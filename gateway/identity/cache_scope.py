"""Scope of a request's caches: who shares cached prefixes, and what keeps the scopes apart.

Method: an engine gives each block of its KV cache a hash that begins with a salt. The salt of a
request is `HMAC-SHA256(key, len(scope) || scope || len(client) || client)`, `client` being the salt
that its body asks for: so a client can divide its own scope further, but name no other scope, nor a
salt that belongs to one. Lengths are eight bytes each, which keeps `("ab", "c")` and `("a", "bc")`
apart. Prefix keys, by which routers choose replicas, begin with a hash of the same scope.

Cost: about 2 µs a salt, and one look-up a seed.
"""

import hashlib
import hmac

SALTS = b"ray-llm-gateway: salts of KV caches"
"""Purpose of the cluster's key from which engines derive salts."""
SEEDS = b"ray-llm-gateway: seeds of prefix keys"
"""Purpose of the cluster's key from which routers derive seeds."""
REMEMBERED_SEEDS = 4096
_LENGTH_BYTES = 8


class CacheSalts:
    """Salts of an engine's caches; engines with the same `key` share what they exchange."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def salt(self, scope: str, client_salt: str = "") -> str:
        """Salt for a scope and the client's own salt, if it has one."""
        message = _with_length(scope) + _with_length(client_salt)
        return hmac.digest(self._key, message, hashlib.sha256).hex()


class ScopeSeeds:
    """Seeds of prefix keys; routers with the same `key` know each other's keys."""

    def __init__(self, key: bytes = b"") -> None:
        self._key = key
        self._seeds: dict[str, int] = {"": 0}

    def seed(self, scope: str) -> int:
        """Seed for a scope, 64 bits; 0 for what is shared by all."""
        seed = self._seeds.get(scope)
        if seed is None:
            if len(self._seeds) > REMEMBERED_SEEDS:
                self._seeds = {"": 0}
            digest = hmac.digest(self._key, _with_length(scope), hashlib.sha256)
            seed = self._seeds[scope] = int.from_bytes(digest[:8]) or 1
        return seed


def _with_length(text: str) -> bytes:
    data = text.encode(errors="surrogatepass")
    return len(data).to_bytes(_LENGTH_BYTES) + data
