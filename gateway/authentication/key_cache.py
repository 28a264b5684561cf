"""Cache of an identity provider's public keys, which are fetched again from time to time.

Keys are used while new ones are fetched, and for a bounded time while that fails. A key that is not
known makes them be fetched at once, but no more often than a client with made-up keys should cause.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.authentication.key_fetch import KeysUnreachable
from gateway.authentication.key_set import KeySet, PublicKey
from gateway.errors.access import AuthUnavailable

REFRESH_S = 300.0
"""Age at which keys are fetched again."""
MIN_INTERVAL_S = 10.0
"""Least time between two fetches."""

logger = logging.getLogger(__name__)


class KeyCache:
    """Keys of one provider. `clock`: seconds; `name`: for the log."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[KeySet]],
        clock: Callable[[], float],
        *,
        max_stale_s: float,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._clock = clock
        self._max_stale_s = max_stale_s
        self._refresh_s = refresh_s
        self._keys = KeySet()
        self._fetched_s = float("-inf")
        self._tried_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._is_failing = False

    def refresh(self) -> None:
        """Begin to fetch the keys, if they are due."""
        now_s = self._clock()
        if now_s - self._fetched_s >= self._refresh_s and self._may_fetch(now_s):
            self._begin(now_s)

    async def find(self, kid: str | None, alg: str) -> PublicKey | None:
        """The key of that name for an algorithm.

        Raises:
            AuthUnavailable: there are no keys, or only old ones.
        """
        self.refresh()
        key = self._keys.find(kid, alg) if self._is_usable else None
        if key is None:
            if self._may_fetch(self._clock()):
                self._begin(self._clock())
            await self._wait()
            key = self._keys.find(kid, alg)
        if not self._is_usable:
            raise AuthUnavailable(
                "Tokens cannot be checked now: the keys of their issuer cannot be fetched.",
                MIN_INTERVAL_S,
            )
        return key

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    @property
    def _is_usable(self) -> bool:
        age_s = self._clock() - self._fetched_s
        return bool(self._keys) and age_s <= self._refresh_s + self._max_stale_s

    def _may_fetch(self, now_s: float) -> bool:
        return self._fetching is None and now_s - self._tried_s >= MIN_INTERVAL_S

    def _begin(self, now_s: float) -> None:
        self._tried_s = now_s
        self._fetching = asyncio.create_task(self._run(), name=f"keys of {self._name}")

    async def _wait(self) -> None:
        if self._fetching is not None:
            # Neither ends the other: not a request that is cancelled, nor `close`.
            await asyncio.wait([self._fetching])

    async def _run(self) -> None:
        try:
            self._keys = await self._fetch()
        except KeysUnreachable as error:
            if not self._is_failing:
                logger.error("the keys of %s cannot be fetched: %s", self._name, error)  # noqa: TRY400 - the message says why
            self._is_failing = True
        else:
            self._fetched_s = self._clock()
            if self._is_failing:
                logger.info("the keys of %s can be fetched again", self._name)
            self._is_failing = False
        finally:
            self._fetching = None
