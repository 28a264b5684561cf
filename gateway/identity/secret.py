"""Secrets of API keys: 256 random bits, of which only the SHA-256 is kept.

A slow hash would protect guessable passwords. A random secret of this size cannot be guessed.
"""

import secrets
from hashlib import sha256

KEY_PREFIX = "sk-"
ADMIN_KEY_PREFIX = "sk-admin-"
_RANDOM_BYTES = 32
_SHOWN = 4
"""Characters at a secret's end by which people tell keys apart."""


def new_secret(prefix: str = KEY_PREFIX) -> str:
    """Make the secret of a new key."""
    return prefix + secrets.token_urlsafe(_RANDOM_BYTES)


def secret_hash(secret: str) -> bytes:
    """SHA-256 of a secret, 32 bytes."""
    return sha256(secret.encode()).digest()


def redacted(secret: str) -> str:
    """A secret's beginning and end, by which its owner recognizes it."""
    prefix = ADMIN_KEY_PREFIX if secret.startswith(ADMIN_KEY_PREFIX) else KEY_PREFIX
    return f"{prefix}...{secret[-_SHOWN:]}"
