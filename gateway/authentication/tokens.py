"""Tokens of identity providers: verified once, and remembered.

Method: what costs little comes first (form, issuer, algorithm, audience, time), and the signature
only then. A verified token is kept by its hash until it expires, at most for `KEPT_S`, so that a
key that its provider has withdrawn does not count for long; and only while config and directory
stay as they are. Cost: O(1) for a token that is known, else a signature check (25 to 300 us).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.authentication import claims as claims_of
from gateway.authentication.compact_token import CompactToken
from gateway.authentication.key_cache import MIN_INTERVAL_S, REFRESH_S, KeyCache
from gateway.authentication.key_fetch import fetch_keys
from gateway.authentication.key_set import is_signed_by, plain_algorithm
from gateway.config.jwt_issuer import JwtIssuer, is_url
from gateway.errors.access import InvalidKey
from gateway.identity.client import TOKEN_MARK, ClientIdentity
from gateway.identity.live_directory import LiveDirectory

KEPT_S = 300.0
"""How long a verified token counts without being verified again."""
MAX_KEPT = 10_000
"""Verified tokens that are kept: the latest used."""


class VerifiedToken(msgspec.Struct, frozen=True):
    """What a verified token stands for."""

    key: str
    """Id of the key that it counts as."""
    identity: ClientIdentity | None
    """Identity of its owner; None if it leads to no known project."""
    is_admin: bool
    until_s: float
    """When it has to be verified again, in Unix time."""
    version: int
    """Version of the directory."""


class Tokens:
    """Tokens of the providers of one config. `now`: Unix time in seconds; `clock`: seconds."""

    def __init__(
        self,
        issuers: list[JwtIssuer],
        directory: LiveDirectory,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuers = issuers
        self._directory = directory
        self._now = now
        self._caches = [
            KeyCache(
                each.issuer,
                partial(fetch_keys, each),
                clock,
                max_stale_s=each.max_stale_s,
                refresh_s=REFRESH_S if is_url(each.jwks) else MIN_INTERVAL_S,
            )
            for each in issuers
        ]
        self._kept: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def refresh(self) -> None:
        """Fetch keys that are due, so that no request has to wait for them."""
        for cache in self._caches:
            cache.refresh()

    async def close(self) -> None:
        """Stop fetching keys."""
        for cache in self._caches:
            await cache.close()

    def known(self, hash_: bytes) -> VerifiedToken | None:
        """The verified token with a hash, if it still counts."""
        found = self._kept.get(hash_)
        if found is None:
            return None
        if found.until_s <= self._now() or found.version != self._directory.version:
            del self._kept[hash_]
            return None
        self._kept.move_to_end(hash_)
        return found

    async def verify(self, token: bytes, hash_: bytes) -> VerifiedToken:
        """Verify a token.

        Raises:
            InvalidKey: it is not valid.
            AuthUnavailable: it cannot be verified now.
        """
        parsed = CompactToken.parse(token)
        position = self._position(parsed)
        issuer, now_s = self.issuers[position], self._now()
        expires_s = claims_of.check_claims(parsed.claims, issuer, now_s)
        alg = plain_algorithm(parsed.header.alg)
        if alg not in issuer.algorithms:
            raise InvalidKey("The token is not valid: its algorithm is not allowed.")
        key = await self._caches[position].find(parsed.header.kid, alg)
        if key is None:
            raise InvalidKey("The token is not valid: it is signed with an unknown key.")
        if not is_signed_by(key, alg, parsed.signed, parsed.signature):
            raise InvalidKey("The token is not valid: its signature is wrong.")
        until_s = min(expires_s + issuer.leeway_s, now_s + KEPT_S)
        return self._keep(hash_, self._verified(parsed, issuer, until_s))

    def _position(self, token: CompactToken) -> int:
        """Position of the provider that a token claims to come from."""
        audience = set(claims_of.texts(token.claims.get("aud")))
        found = [i for i, each in enumerate(self.issuers) if each.issuer == token.claims.get("iss")]
        if not found:
            raise InvalidKey("The token is not valid: its issuer is not known.")
        return next((i for i in found if audience & set(self.issuers[i].audience)), found[0])

    def _verified(self, token: CompactToken, issuer: JwtIssuer, until_s: float) -> VerifiedToken:
        key = f"{issuer.name}{TOKEN_MARK}{claims_of.subject_of(token.claims)}"
        names = claims_of.project_names(token.claims, issuer)
        project = next(filter(None, map(self._directory.project, names)), None)
        identity = (
            ClientIdentity(project=project, key=key, user=claims_of.user_of(token.claims, issuer))
            if project is not None
            else None
        )
        is_admin = claims_of.is_admin(token.claims, issuer)
        return VerifiedToken(key, identity, is_admin, until_s, self._directory.version)

    def _keep(self, hash_: bytes, verified: VerifiedToken) -> VerifiedToken:
        self._kept[hash_] = verified
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return verified
