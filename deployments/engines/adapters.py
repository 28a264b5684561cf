"""LRU cache of the adapters of one replica, of which a few are loaded at a time.

An adapter in use stays loaded. Where all are in use, one more is loaded; the next one after it
waits for whichever becomes idle first. If none does for some seconds, the least recently used one
is closed to new requests until one has been unloaded: requests for it then wait, and if it was the
one unloaded they have it loaded again, behind requests that came before. So no request waits for
ever, however many adapters are requested at the same time.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors.request import AdapterBroken
from gateway.telemetry.update import AdapterState

RETRY_S = 60.0
"""Time before an adapter that could not be loaded is tried again."""
CLOSE_AFTER_S = 3.0
"""Time that a load waits for an idle adapter before one is closed to new requests."""
RESERVATION_S = 1.0
"""Time that an adapter is kept for the request that it was prepared for."""
START_TIMEOUT_S = 60.0
"""Time that a start waits for its adapters; the others are loaded with their first request."""
SMOOTHING = 0.3
"""Weight of the last load in the mean duration of a load."""

logger = logging.getLogger("ray.serve")


class AdapterLoader(Protocol):
    """The engine's part; it has room for one adapter more than the cache holds."""

    async def fetch(self, name: str) -> None:
        """Fetch an adapter's files to this node; others are loaded meanwhile.

        Raises:
            AdapterBroken: they do not exist.
        """

    async def load(self, name: str) -> None:
        """Load an adapter.

        Raises:
            AdapterBroken: it cannot be loaded.
        """

    async def unload(self, name: str) -> None:
        """Unload an adapter that no request uses."""


@dataclass(slots=True, eq=False)
class _CachedAdapter:
    """An adapter from its first request until it is unloaded."""

    name: str
    users: int = 0
    is_loaded: bool = False
    loading: asyncio.Task[None] | None = None
    closed: asyncio.Event | None = None
    """While it is closed to new requests: set once it is open again, or unloaded."""
    reserved_until_s: float = 0.0
    """It is kept until then for a request that is about to use it."""


@dataclass(frozen=True, slots=True)
class _FailedLoad:
    """Reason why an adapter could not be loaded, and the time before which it is not retried."""

    reason: str
    retry_s: float


class AdapterCache:
    """Cache of the adapters `names`, of which `most` are loaded at a time.

    `on_change` is called with every change of what is loaded.
    """

    def __init__(
        self,
        names: Sequence[str],
        most: int,
        loader: AdapterLoader,
        on_change: Callable[[AdapterState], None],
        now: Callable[[], float] = time.monotonic,
        close_after_s: float = CLOSE_AFTER_S,
    ) -> None:
        self.names = tuple(names)
        self._most = most
        self._loader = loader
        self._on_change = on_change
        self._now = now
        self._close_after_s = close_after_s
        self._cached: dict[str, _CachedAdapter] = {}
        """Least recently used first."""
        self._is_freed = asyncio.Event()
        """Set when one has become idle."""
        self._load_lock = asyncio.Lock()
        self._failures: dict[str, _FailedLoad] = {}
        self._load_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        on_change(self.state)

    @property
    def is_loading(self) -> bool:
        """Whether the engine is loading an adapter, and may do nothing else meanwhile."""
        return self._load_lock.locked()

    @property
    def state(self) -> AdapterState:
        """Adapters that are loaded, those that cannot be, and the duration of a load."""
        return AdapterState(
            loaded=[cached.name for cached in self._loaded if cached.closed is None],
            broken={name: failure.reason for name, failure in self._failures.items()},
            max_loaded=self._most,
            load_s=self._load_s,
        )

    @property
    def _loaded(self) -> list[_CachedAdapter]:
        """Loaded adapters, least recently used first."""
        return [cached for cached in self._cached.values() if cached.is_loaded]

    async def load_first(self) -> None:
        """Load as many as fit, in their order; broken ones are skipped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                for name in self.names:
                    if len(self._cached) < self._most:
                        with contextlib.suppress(AdapterBroken):
                            async with self._in_use(name):
                                pass
        self._on_change(self.state)

    async def prepare(self, name: str) -> None:
        """Load an adapter that is about to be used.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        async with self._in_use(name) as cached:
            cached.reserved_until_s = self._now() + RESERVATION_S

    @contextlib.asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[None]:
        """Wait until an adapter is loaded, and keep it loaded.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        async with self._in_use(name) as cached:
            cached.reserved_until_s = 0.0
            yield

    async def stop(self) -> None:
        """Cancel all loads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _in_use(self, name: str) -> AsyncIterator[_CachedAdapter]:
        while (cached := self._cached.get(name)) and cached.closed:
            await cached.closed.wait()
        cached = self._touch(name)
        cached.users += 1
        try:
            if cached.loading is not None:
                # A request that is cancelled does not cancel the load: others may wait for it.
                await asyncio.shield(cached.loading)
            yield cached
        finally:
            cached.users -= 1
            if not cached.users:
                self._is_freed.set()

    def _touch(self, name: str) -> _CachedAdapter:
        """The cached adapter, now the most recently used; a new one starts to load."""
        cached = self._cached.pop(name, None)
        if cached is None:
            failure = self._failures.get(name)
            if failure is not None and self._now() < failure.retry_s:
                raise AdapterBroken(name, failure.reason)
            cached = _CachedAdapter(name)
            task = asyncio.create_task(self._load(cached), name=f"load-adapter-{name}")
            cached.loading = task
            self._tasks.add(task)
            task.add_done_callback(self._discard_task)
        self._cached[name] = cached
        return cached

    async def _load(self, cached: _CachedAdapter) -> None:
        try:
            await self._loader.fetch(cached.name)
            async with self._load_lock:
                if cached.users:
                    await self._load_now(cached)
        except AdapterBroken as error:
            logger.error("%s", error)  # noqa: TRY400 - the loader has logged the cause
            self._failures[cached.name] = _FailedLoad(error.reason, self._now() + RETRY_S)
            self._on_change(self.state)
            raise
        finally:
            cached.loading = None
            if not cached.is_loaded:
                del self._cached[cached.name]

    async def _load_now(self, cached: _CachedAdapter) -> None:
        await self._evict()
        began_s = self._now()
        await self._loader.load(cached.name)
        took_s = self._now() - began_s
        self._load_s += (took_s - self._load_s) * (SMOOTHING if self._load_s else 1.0)
        self._failures.pop(cached.name, None)
        cached.is_loaded = True
        await self._unload_idle()
        self._on_change(self.state)

    async def _evict(self) -> None:
        """Unload until one more fits, waiting for one to become idle if necessary."""
        closed: _CachedAdapter | None = None
        try:
            while not await self._unload_idle():
                self._is_freed.clear()
                try:
                    async with asyncio.timeout(None if closed else self._close_after_s):
                        await self._is_freed.wait()
                except TimeoutError:
                    closed = self._loaded[0]
                    closed.closed = asyncio.Event()
                    self._on_change(self.state)
        finally:
            if closed and closed.closed:
                closed.closed.set()
                closed.closed = None
        self._on_change(self.state)

    async def _unload_idle(self) -> bool:
        """Unload the least recently used idle one if too many are loaded; False if none is idle."""
        if len(loaded := self._loaded) <= self._most:
            return True
        leaving = next(filter(self._is_idle, loaded), None)
        if leaving is None:
            return False
        del self._cached[leaving.name]
        try:
            await self._loader.unload(leaving.name)
        except Exception:
            # It must not fail the request that needs room for another adapter.
            logger.exception("adapter %s could not be unloaded; going on without it", leaving.name)
        return True

    def _is_idle(self, cached: _CachedAdapter) -> bool:
        return not cached.users and (bool(cached.closed) or cached.reserved_until_s <= self._now())

    def _discard_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the requests that waited for it have it
