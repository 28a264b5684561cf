"""The key or token that a client offers."""

from collections.abc import Iterable

from gateway.errors.access import InvalidKey
from gateway.header_names import API_KEY, AUTHORIZATION

BEARER = b"bearer"
USUAL = b"Bearer "
"""How clients write it."""
MAX_BYTES = 12 * 1024
"""Bytes of a key or token: identity providers put hundreds of groups into one."""


def offered_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in `authorization` or `x-api-key`; empty where there is none.

    A key may be in several headers, but not different ones: whatever lies in front may have looked
    at another than the gateway would.

    Raises:
        InvalidKey: there are different keys, or `authorization` has none.
    """
    found = b""
    for name, value in headers:
        if name == AUTHORIZATION:
            key = _bearer(value)
        elif name == API_KEY:
            key = value.strip()
        else:
            continue
        if found and key and key != found:
            raise InvalidKey(
                "The request has several different API keys, in its headers Authorization and"
                " X-Api-Key. Send one."
            )
        found = key or found
    if len(found) > MAX_BYTES:
        raise InvalidKey(f"The API key or token is longer than {MAX_BYTES} bytes.")
    return found


def _bearer(value: bytes) -> bytes:
    if value.startswith(USUAL):
        return value[len(USUAL) :].strip()
    scheme, _, key = value.strip().partition(b" ")
    if scheme and scheme.lower() != BEARER:
        raise InvalidKey(
            "The header Authorization must have the form `Bearer YOUR_KEY`. Other schemes are not"
            " supported."
        )
    return key.strip()
