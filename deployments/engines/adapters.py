"""The adapters of one replica: few are loaded at a time, the least recently used one makes room.

An adapter stays for as long as it is in use. Where all are, one more is loaded; the next one after
it waits for whichever becomes idle first. If for some seconds none does, the least recently used
one takes no new users until one has made room: whoever wants it then waits, and if it was the one
to go has it loaded once more, behind those who came before. So nobody waits for ever, however many
adapters are wanted at the same time.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import AdapterBroken
from gateway.telemetry import AdapterState

RETRY_S = 60.0
"""For how long an adapter that could not be loaded is not tried again."""
PATIENCE_S = 3.0
"""How long a newcomer waits for any adapter to become idle before one takes no new users."""
PROMISE_S = 1.0
"""How long an adapter that was made ready for somebody is kept for them."""
START_S = 60.0
"""How long a start waits for its adapters; the others are loaded when they are wanted."""
SMOOTHING = 0.3
"""How much the last load counts in what a load takes."""

logger = logging.getLogger("ray.serve")


class Loader(Protocol):
    """The engine's part; it has room for one adapter more than are to be loaded."""

    async def fetch(self, name: str) -> None:
        """Have an adapter's files at hand; others are loaded meanwhile.

        Raises:
            AdapterBroken: there are none.
        """

    async def load(self, name: str) -> None:
        """Load an adapter.

        Raises:
            AdapterBroken: it cannot be loaded.
        """

    async def unload(self, name: str) -> None:
        """Forget an adapter that nobody uses."""


@dataclass(slots=True, eq=False)
class _Stay:
    """An adapter from when it is wanted until it is unloaded."""

    name: str
    users: int = 0
    is_loaded: bool = False
    loading: asyncio.Task[None] | None = None
    closed: asyncio.Event | None = None
    """Where it takes no new users: set once it does again, or has gone."""
    promised_until_s: float = 0.0
    """It is kept for somebody who is about to use it."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an adapter could not be loaded, and until when it is not tried again."""

    reason: str
    until_s: float


class Adapters:
    """The adapters `names`, of which `most` are loaded at a time.

    `tell` is called with every change of what is loaded.
    """

    def __init__(
        self,
        names: Sequence[str],
        most: int,
        loader: Loader,
        tell: Callable[[AdapterState], None],
        now: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.names = tuple(names)
        self._most = most
        self._loader = loader
        self._tell = tell
        self._now = now
        self._patience_s = patience_s
        self._stays: dict[str, _Stay] = {}
        """Least recently used first."""
        self._is_freed = asyncio.Event()
        """One has become idle."""
        self._turn = asyncio.Lock()
        self._failures: dict[str, _Failure] = {}
        self._load_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        tell(self.state)

    @property
    def state(self) -> AdapterState:
        """Which are loaded, which cannot be, and what a load takes."""
        return AdapterState(
            loaded=[stay.name for stay in self._loaded if stay.closed is None],
            broken={name: failure.reason for name, failure in self._failures.items()},
            max_loaded=self._most,
            load_s=self._load_s,
        )

    @property
    def _loaded(self) -> list[_Stay]:
        """Least recently used first."""
        return [stay for stay in self._stays.values() if stay.is_loaded]

    async def load_first(self) -> None:
        """Load as many as there is room for, in their order; one that is broken does no harm."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                for name in self.names:
                    if len(self._stays) < self._most:
                        with contextlib.suppress(AdapterBroken):
                            async with self._held(name):
                                pass
        self._tell(self.state)

    async def prepare(self, name: str) -> None:
        """Have an adapter loaded that is about to be used.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        async with self._held(name) as stay:
            stay.promised_until_s = self._now() + PROMISE_S

    @contextlib.asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[None]:
        """Wait until an adapter is loaded, and keep it so.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        async with self._held(name) as stay:
            stay.promised_until_s = 0.0
            yield

    async def stop(self) -> None:
        """End what is being loaded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[_Stay]:
        while (stay := self._stays.get(name)) and stay.closed:
            await stay.closed.wait()
        stay = self._stay(name)
        stay.users += 1
        try:
            if stay.loading is not None:
                # Whoever leaves does not end the load: others may wait for it.
                await asyncio.shield(stay.loading)
            yield stay
        finally:
            stay.users -= 1
            if not stay.users:
                self._is_freed.set()

    def _stay(self, name: str) -> _Stay:
        """The adapter's stay, the last one to have been used; a new one begins with a load."""
        stay = self._stays.pop(name, None)
        if stay is None:
            failure = self._failures.get(name)
            if failure is not None and self._now() < failure.until_s:
                raise AdapterBroken(name, failure.reason)
            stay = _Stay(name)
            task = asyncio.create_task(self._load(stay), name=f"load-adapter-{name}")
            stay.loading = task
            self._tasks.add(task)
            task.add_done_callback(self._end)
        self._stays[name] = stay
        return stay

    async def _load(self, stay: _Stay) -> None:
        try:
            await self._loader.fetch(stay.name)
            async with self._turn:
                if stay.users:
                    await self._load_now(stay)
        except AdapterBroken as error:
            logger.error("%s", error)  # noqa: TRY400 - the loader has logged what there is to log
            self._failures[stay.name] = _Failure(error.reason, self._now() + RETRY_S)
            self._tell(self.state)
            raise
        finally:
            stay.loading = None
            if not stay.is_loaded:
                del self._stays[stay.name]

    async def _load_now(self, stay: _Stay) -> None:
        await self._make_room()
        began_s = self._now()
        await self._loader.load(stay.name)
        took_s = self._now() - began_s
        self._load_s += (took_s - self._load_s) * (SMOOTHING if self._load_s else 1.0)
        self._failures.pop(stay.name, None)
        stay.is_loaded = True
        await self._unload_idle()
        self._tell(self.state)

    async def _make_room(self) -> None:
        """Have no more loaded than may be, whoever has to be waited for."""
        closed: _Stay | None = None
        try:
            while not await self._unload_idle():
                self._is_freed.clear()
                try:
                    async with asyncio.timeout(None if closed else self._patience_s):
                        await self._is_freed.wait()
                except TimeoutError:
                    closed = self._loaded[0]
                    closed.closed = asyncio.Event()
                    self._tell(self.state)
        finally:
            if closed and closed.closed:
                closed.closed.set()
                closed.closed = None
        self._tell(self.state)

    async def _unload_idle(self) -> bool:
        """Unload the least recently used idle one, if one is loaded too many; whether none is."""
        if len(loaded := self._loaded) <= self._most:
            return True
        leaving = next(filter(self._is_idle, loaded), None)
        if leaving is None:
            return False
        del self._stays[leaving.name]
        try:
            await self._loader.unload(leaving.name)
        except Exception:
            # The request that makes room for its own adapter has nothing to do with it.
            logger.exception("the adapter %s could not be unloaded", leaving.name)
        return True

    def _is_idle(self, stay: _Stay) -> bool:
        return not stay.users and (bool(stay.closed) or stay.promised_until_s <= self._now())

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has got it
