"""Authenticator: finds out whose key a request has."""

import time
from collections.abc import Callable

from gateway.errors import InvalidKey
from gateway.identity.api_key import key_hash, key_hint
from gateway.identity.client import ClientIdentity
from gateway.identity.live_directory import LiveDirectory

NO_KEY = (
    "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`, or in the header"
    " X-Api-Key."
)


class Authenticator:
    """Verifies keys. `now`: Unix time in seconds."""

    def __init__(self, directory: LiveDirectory, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._now = now

    async def identify(self, key: bytes) -> ClientIdentity:
        """Whose key it is.

        Raises:
            InvalidKey: nobody's, or it is not valid any more.
        """
        if not key:
            raise InvalidKey(NO_KEY)
        hash_, now_s = key_hash(key), self._now()
        if known := self._directory.key(hash_, now_s):
            return known.identity
        if self._directory.has_expired(hash_, now_s):
            raise InvalidKey("The API key has expired.")
        raise InvalidKey(f"Incorrect API key provided{_shown(key)}.")


def _shown(key: bytes) -> str:
    hint = key_hint(key)
    return f": {hint}" if hint else ""
