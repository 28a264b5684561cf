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
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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


class FaultInjector:
    """Injects faults until cancelled: the same for the same seed and the same fleet.

    `engines` returns the processes of the running engines; at most half of `replicas` are faulty at
    the same time. `document` is the deployed config, `environment` what `serve` needs to find the
    cluster.
    """

    def __init__(
        self,
        engines: Callable[[], Sequence[psutil.Process]],
        replicas: int,
        document: Document,
        environment: Mapping[str, str],
        rng: random.Random,
    ) -> None:
        self._engines = engines
        self._replicas = replicas
        self._document = document
        self._environment = dict(environment)
        self._rng = rng
        self._faulty: dict[int, asyncio.Task[None]] = {}
        self._drain: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        """Injected faults by kind."""

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

    def _inject(self) -> None:
        self._faulty = {pid: task for pid, task in self._faulty.items() if not task.done()}
        kinds: dict[str, Callable[[psutil.Process], Awaitable[None]]] = {
            "kill": self._kill,
            "hang": self._hang,
            "slow": self._slow,
        }
        kind = self._rng.choice([*kinds, "drain"])
        if kind == "drain":
            if self._drain is None or self._drain.done():
                self._drain = asyncio.create_task(self._scale_in_and_out())
                self.counts[kind] += 1
            return
        healthy = [process for process in self._engines() if process.pid not in self._faulty]
        if len(healthy) <= self._replicas / 2:
            return
        engine = self._rng.choice(sorted(healthy, key=lambda process: process.pid))
        self._faulty[engine.pid] = asyncio.ensure_future(kinds[kind](engine))
        self.counts[kind] += 1

    async def _kill(self, engine: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
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
