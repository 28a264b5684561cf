"""Fault injection: kills, hangs, slows and drains engines of a local cluster at random.

Faults are injected from outside, by signals and `serve deploy`; the engines' own errors and resets
are configured by `simulation.error_rate` and `reset_rate`.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from loadtests.targets import Document

PAUSE_S = (1.0, 3.0)
"""Range of the time between two faults."""
HANG_S = (3.0, 12.0)
SLOW_S = (2.0, 6.0)
SLICE_S = 0.05
"""Time slice of a slowed engine, which is stopped for every other one."""
DRAIN_S = (3.0, 8.0)
REPLACED_S = 30.0
"""Time until Serve has replaced a killed engine."""
FAULTY_SHARE = 0.5
"""Share of the engines that may be killed, hung or slowed at the same time."""
FRONT_DOOR_S = 3.0
"""Time in which connections may break or be refused after a router or HAProxy was killed."""
FRONT_DOOR_PAUSE_S = 10.0
"""Least time between two such kills."""
KILL_ROUTER, KILL_HAPROXY = "kill router", "kill HAProxy"
FRONT_DOOR = (KILL_ROUTER, KILL_HAPROXY)
KILL_ACCOUNTS = "kill Accounts"


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """What carries requests to engines; the only router is never killed."""

    routers: Callable[[], Sequence[psutil.Process]]
    haproxies: Callable[[], Sequence[psutil.Process]]
    accounts: Callable[[], Sequence[psutil.Process]] | None = None
    """Processes of Accounts, which carry no requests, where there are any."""


class FaultInjector:
    """Injects faults until cancelled: the same for the same seed and the same fleet.

    `engines` returns the processes of the running engines; at most half of `replicas` are faulty at
    the same time. `document` is the deployed config, `environment` what `serve` needs to find the
    cluster. `front_door`: spared if not given.
    """

    def __init__(
        self,
        engines: Callable[[], Sequence[psutil.Process]],
        replicas: int,
        document: Document,
        environment: Mapping[str, str],
        rng: random.Random,
        front_door: FrontDoor | None = None,
    ) -> None:
        self._front_door = front_door
        self._cuts_s: list[float] = []
        """Times at which a router or HAProxy was killed."""
        self._engines = engines
        self._replicas = replicas
        self._document = document
        self._environment = dict(environment)
        self._rng = rng
        self._faulty: dict[int, asyncio.Task[None]] = {}
        self._drain: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        """Injected faults by kind."""
        self.killed_s: dict[int, float] = {}
        """When engines were killed, by process id, in Unix time."""

    async def run(self) -> None:
        """Inject faults; those that last are undone on cancellation."""
        try:
            while True:
                await asyncio.sleep(self._rng.uniform(*PAUSE_S))
                self._inject()
        finally:
            tasks = [*self._faulty.values(), *([self._drain] if self._drain else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def may_be_cut(self, began_s: float, ended_s: float) -> bool:
        """Whether a router or HAProxy was killed during a request, or a moment before it."""
        return any(began_s - FRONT_DOOR_S <= cut_s <= ended_s for cut_s in self._cuts_s)

    def _kill_front_door(self, front_door: FrontDoor, kind: str) -> None:
        is_router = kind == KILL_ROUTER
        found = front_door.routers() if is_router else front_door.haproxies()
        now_s = asyncio.get_running_loop().time()
        is_early = bool(self._cuts_s) and now_s - self._cuts_s[-1] < FRONT_DOOR_PAUSE_S
        if is_early or len(found) < (2 if is_router else 1):
            return
        victim = self._rng.choice(sorted(found, key=lambda process: process.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            self._cuts_s.append(now_s)
            victim.kill()
            self.counts[kind] += 1

    def _kill_accounts(self, found: Sequence[psutil.Process]) -> None:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                self.counts[KILL_ACCOUNTS] += 1

    def _inject(self) -> None:
        self._faulty = {pid: task for pid, task in self._faulty.items() if not task.done()}
        kinds: dict[str, Callable[[psutil.Process], Awaitable[None]]] = {
            "kill": self._kill,
            "hang": self._hang,
            "slow": self._slow,
        }
        front_door = self._front_door
        accounts = front_door.accounts if front_door else None
        outside = [*(FRONT_DOOR if front_door else ()), *([KILL_ACCOUNTS] if accounts else ())]
        kind = self._rng.choice([*kinds, "drain", *outside])
        if accounts and kind == KILL_ACCOUNTS:
            self._kill_accounts(accounts())
            return
        if front_door and kind in FRONT_DOOR:
            self._kill_front_door(front_door, kind)
            return
        if kind == "drain":
            if self._drain is None or self._drain.done():
                self._drain = asyncio.create_task(self._scale_in_and_out())
                self.counts[kind] += 1
            return
        healthy = [process for process in self._engines() if process.pid not in self._faulty]
        if len(healthy) <= self._replicas * (1 - FAULTY_SHARE):
            return
        engine = self._rng.choice(sorted(healthy, key=lambda process: process.pid))
        self._faulty[engine.pid] = asyncio.ensure_future(kinds[kind](engine))
        self.counts[kind] += 1

    async def _kill(self, engine: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.killed_s[engine.pid] = time.time()
            engine.kill()
        await asyncio.sleep(REPLACED_S)

    async def _hang(self, engine: psutil.Process) -> None:
        with self._stopped(engine):
            await asyncio.sleep(self._rng.uniform(*HANG_S))

    async def _slow(self, engine: psutil.Process) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._rng.uniform(*SLOW_S)
        while loop.time() < end_s and engine.is_running():
            with self._stopped(engine):
                await asyncio.sleep(SLICE_S)
            await asyncio.sleep(SLICE_S)

    @contextlib.contextmanager
    def _stopped(self, engine: psutil.Process) -> Iterator[None]:
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.send_signal(signal.SIGCONT)

    async def _scale_in_and_out(self) -> None:
        """Make Serve drain one engine, and then start another."""
        try:
            await self._deploy(self._replicas - 1)
            await asyncio.sleep(self._rng.uniform(*DRAIN_S))
        finally:
            await asyncio.shield(self._deploy(self._replicas))

    async def _deploy(self, replicas: int) -> None:
        for application in self._document["applications"]:
            if application["import_path"] == "deployments.app:model":
                # Only the number: changed `args` would replace all engines.
                application["deployments"] = [{"name": "Engine", "num_replicas": replicas}]
        await asyncio.to_thread(_serve_deploy, self._document, self._environment)


def _serve_deploy(document: Document, environment: Mapping[str, str]) -> None:
    serve = Path(sys.executable).with_name("serve")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump(document))
        subprocess.run(
            [str(serve), "deploy", str(config)],
            env=os.environ | environment,
            check=False,
            capture_output=True,
        )
