"""Hashes of API keys, as routers see them.

A key is 256 random bits, so that a plain SHA-256 keeps it secret: nobody can try all of them. The
gateway stores and compares hashes only, and looks them up in a table, whose time tells nothing of
the keys that are in it.
"""

import hashlib

HASH_PREFIX = "sha256:"
HINT_CHARS = 4
SHOWN_LENGTH = 20
"""Characters from which the end of a key may be shown: of shorter ones it would say too much."""


def key_hash(secret: bytes) -> bytes:
    """SHA-256 of a key as it was sent."""
    return hashlib.sha256(secret).digest()


def written_hash(secret: str) -> str:
    """Hash of a key, as a projects file has it."""
    return HASH_PREFIX + key_hash(secret.encode()).hex()


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
