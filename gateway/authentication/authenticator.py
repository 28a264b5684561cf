"""Authenticator: finds out whose key or token a request has."""

import time
from collections.abc import Callable

from gateway.authentication.compact_token import is_token
from gateway.authentication.tokens import Tokens, VerifiedToken
from gateway.config.auth import Auth
from gateway.errors.access import AuthUnavailable, InvalidKey
from gateway.identity.api_key import key_hash, key_hint
from gateway.identity.client import ClientIdentity
from gateway.identity.live_directory import LiveDirectory

NO_KEY = (
    "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`, or in the header"
    " X-Api-Key."
)
UNKNOWN_RETRY_S = 5.0


class Authenticator:
    """Verifies keys and tokens.

    `auth`: the config in force. `now`: Unix time in seconds; `clock`: seconds.
    """

    def __init__(
        self,
        directory: LiveDirectory,
        auth: Callable[[], Auth | None],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._auth = auth
        self._now = now
        self._clock = clock
        self._tokens = Tokens([], directory, now, clock)

    def known(self, hash_: bytes) -> ClientIdentity | None:
        """Whose key it is that has this hash; None if it is none of the directory's now."""
        found = self._directory.key(hash_, self._now())
        return None if found is None else found.identity

    async def identify(self, key: bytes) -> ClientIdentity:
        """Whose key it is.

        Raises:
            InvalidKey: nobody's, or it is not valid any more.
            AuthUnavailable: it is a token that cannot be verified now, or the keys of the database
                have not come yet.
        """
        if not key:
            raise InvalidKey(NO_KEY)
        hash_ = key_hash(key)
        if (known := self.known(hash_)) is not None:
            return known
        if (verified := await self._verified(key, hash_)) is not None:
            if verified.identity is None:
                check_complete(self._directory)
                raise InvalidKey("The token is valid, but leads to no project of this gateway.")
            return verified.identity
        if self._directory.has_expired(hash_, self._now()):
            raise InvalidKey("The API key has expired.")
        check_complete(self._directory)
        raise InvalidKey(f"Incorrect API key provided{_shown(key)}.")

    async def admin(self, token: bytes) -> str | None:
        """Id of the administrator whose token it is; None if it is none's.

        Raises:
            InvalidKey: it is a token that is not valid.
            AuthUnavailable: it is a token that cannot be verified now.
        """
        verified = await self._verified(token, key_hash(token))
        return verified.key if verified is not None and verified.is_admin else None

    async def refresh(self) -> None:
        """Follow the config, and fetch the keys of identity providers that are due."""
        auth = self._auth()
        issuers = [] if auth is None else auth.jwt
        earlier = self._tokens
        if issuers == earlier.issuers:
            earlier.issuers = issuers
        else:
            self._tokens = Tokens(issuers, self._directory, self._now, self._clock)
            await earlier.close()  # meanwhile the config may have changed again
        self._tokens.refresh()

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._tokens.close()

    async def _verified(self, key: bytes, hash_: bytes) -> VerifiedToken | None:
        """The token that a key is, verified; None if it is no token, or there is no provider."""
        auth = self._auth()
        if auth is None or not auth.jwt or not is_token(key):
            return None
        if auth.jwt is not self._tokens.issuers:
            await self.refresh()
        return self._tokens.known(hash_) or await self._tokens.verify(key, hash_)


def check_complete(directory: LiveDirectory) -> None:
    """Check that a key that is not known is wrong.

    Raises:
        AuthUnavailable: nobody knows: the keys of the database have not come yet.
    """
    if not directory.is_complete:
        raise AuthUnavailable(
            "API keys cannot be checked now: the gateway has not read them from its database yet.",
            UNKNOWN_RETRY_S,
        )


def _shown(key: bytes) -> str:
    hint = key_hint(key)
    return f": {hint}" if hint else ""
