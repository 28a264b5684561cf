"""The adapters of one replica: few are loaded at a time, the least recently used one makes room.

An adapter stays for as long as it is in use. One that has to go while it is takes no new users:
whoever wants it then has it loaded once more, behind those who came before. So nobody waits for
ever, however many adapters are wanted at the same time.
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
SMOOTHING = 0.3
"""How much the last load counts in what a load takes."""

logger = logging.getLogger("ray.serve")


class Loader(Protocol):
    """The engine's part; it has room for one adapter more than are to be loaded."""

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
    ) -> None:
        self.names = tuple(names)
        self._most = most
        self._loader = loader
        self._tell = tell
        self._now = now
        self._stays: dict[str, _Stay] = {}
        """Least recently used first."""
        self._leaving: _Stay | None = None
        """The one that had to make room, until it is unloaded."""
        self._is_idle = asyncio.Event()
        """Nobody uses it any more."""
        self._turn = asyncio.Lock()
        self._failures: dict[str, _Failure] = {}
        self._load_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        tell(self.state)

    @property
    def state(self) -> AdapterState:
        """Which are loaded, which cannot be, and what a load takes."""
        return AdapterState(
            loaded=[stay.name for stay in self._stays.values() if stay.is_loaded],
            broken={name: failure.reason for name, failure in self._failures.items()},
            most=self._most,
            load_s=self._load_s,
        )

    async def load_first(self) -> None:
        """Load as many as there is room for, in their order; one that is broken does no harm."""
        for name in self.names:
            if len(self._stays) < self._most:
                with contextlib.suppress(AdapterBroken):
                    await self.prepare(name)
        self._tell(self.state)

    async def prepare(self, name: str) -> None:
        """Have an adapter loaded that is about to be used.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        async with self.using(name):
            pass

    @contextlib.asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[None]:
        """Wait until an adapter is loaded, and keep it so.

        Raises:
            AdapterBroken: it cannot be loaded.
        """
        stay = self._stay(name)
        stay.users += 1
        try:
            if stay.loading is not None:
                # Whoever leaves does not end the load: others may wait for it.
                await asyncio.shield(stay.loading)
            yield
        finally:
            stay.users -= 1
            if stay is self._leaving and not stay.users:
                self._is_idle.set()

    async def stop(self) -> None:
        """End what is being loaded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
            async with self._turn:
                if stay.users:
                    await self._load_now(stay)
        finally:
            stay.loading = None
            if not stay.is_loaded:
                del self._stays[stay.name]

    async def _load_now(self, stay: _Stay) -> None:
        await self._see_off()
        began_s = self._now()
        try:
            await self._loader.load(stay.name)
        except AdapterBroken as error:
            logger.error("%s", error)  # noqa: TRY400 - the loader has logged what there is to log
            self._failures[stay.name] = _Failure(error.reason, self._now() + RETRY_S)
            self._tell(self.state)
            raise
        took_s = self._now() - began_s
        self._load_s += (took_s - self._load_s) * (SMOOTHING if self._load_s else 1.0)
        self._failures.pop(stay.name, None)
        stay.is_loaded = True
        self._make_room(stay)
        self._tell(self.state)
        if self._is_idle.is_set():
            await self._see_off()

    def _make_room(self, newcomer: _Stay) -> None:
        """Choose who has to go, if there are too many: the least recently used, at best idle."""
        loaded = [stay for stay in self._stays.values() if stay.is_loaded]
        if len(loaded) <= self._most:
            return
        others = [stay for stay in loaded if stay is not newcomer]
        leaving = next((stay for stay in others if not stay.users), others[0])
        del self._stays[leaving.name]
        self._leaving = leaving
        if leaving.users:
            self._is_idle.clear()
        else:
            self._is_idle.set()

    async def _see_off(self) -> None:
        """Unload the one that had to go, once nobody uses it."""
        if self._leaving is not None:
            await self._is_idle.wait()
            await self._loader.unload(self._leaving.name)
            self._leaving = None

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has got it
