"""API keys: how they are made, and how their hashes are written.

A key is 256 random bits, so that a plain SHA-256 keeps it secret: nobody can try all of them. The
gateway stores and compares hashes only, and looks them up in a table, whose time tells nothing of
the keys that are in it.
"""

import hashlib
import secrets
from dataclasses import dataclass

from gateway.config.projects import HASH_PREFIX

PREFIX = "sk-"
ADMIN_PREFIX = "sk-admin-"
"""Beginning of keys of administrators, by which people tell them from others."""
RANDOM_BYTES = 32
HINT_CHARS = 4
SHOWN_LENGTH = 20
"""Characters from which the end of a key may be shown: of shorter ones it would say too much."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that has just been made; its secret is shown once, and kept nowhere."""

    secret: str

    def __repr__(self) -> str:
        """Text without the secret."""
        return "NewKey(...)"

    @property
    def hash(self) -> str:
        """Its hash, as a projects file has it."""
        return HASH_PREFIX + key_hash(self.secret.encode()).hex()

    @property
    def hint(self) -> str:
        """Its end, by which people recognize it."""
        return self.secret[-HINT_CHARS:]


def new_key(prefix: str = PREFIX) -> NewKey:
    """A new key."""
    return NewKey(prefix + secrets.token_urlsafe(RANDOM_BYTES))


def key_hash(secret: bytes) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(secret).digest()


def parse_hash(text: str) -> bytes:
    """The hash that a projects file has as text.

    Raises:
        ValueError: it is none.
    """
    return bytes.fromhex(text.removeprefix(HASH_PREFIX))


def key_hint(secret: bytes) -> str:
    """A key as an error message may show it: its end, if it is long enough, and nothing else."""
    end = secret[-HINT_CHARS:]
    if len(secret) < SHOWN_LENGTH or not end.isalnum():
        return ""
    return f"...{end.decode('ascii', 'replace')}"
