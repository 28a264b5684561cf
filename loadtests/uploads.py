"""What large files cost State and a router: memory, CPU time, and how long they take.

    python -m loadtests.uploads --megabytes 512 --files 2

starts a gateway with a simulated model, sends files to it at the same time, reads them back, and
compares the resident memory of both processes with that before. It ends with status 1 if memory
grew by more than `MAX_GROWTH_MB`, or if a file came back changed.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import typer
from rich.console import Console
from rich.table import Table

from deployments.local import processes
from loadtests.cpu_time import CpuTime
from loadtests.launch import HOST
from loadtests.targets import LocalGateway, local_gateway, serve_config

MIB = 1 << 20
MAX_GROWTH_MB = 48.0
"""Memory that a process may need more than before: some blocks for each file, and Python's own."""
SAMPLE_S = 0.05
BLOCK = bytes(range(256)) * (MIB // 256)
WARM_UP_MB = 8
MODEL = "sim"
DEPLOYMENTS = ("Router", "State")


@dataclass
class MemoryPeak:
    """Resident memory of a process, in megabytes: before, and at most since."""

    process: psutil.Process
    before_mb: float = 0.0
    peak_mb: float = 0.0

    def begin(self) -> None:
        """Begin anew."""
        self.before_mb = self.peak_mb = self._now_mb()

    def sample(self) -> None:
        """Look now."""
        self.peak_mb = max(self.peak_mb, self._now_mb())

    def cpu_time(self) -> CpuTime:
        """CPU time of the process from now on."""
        return CpuTime(lambda: [self.process])

    @property
    def growth_mb(self) -> float:
        """How much more than before."""
        return self.peak_mb - self.before_mb

    def _now_mb(self) -> float:
        return float(self.process.memory_info().rss / MIB)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a transfer of all files took."""

    what: str
    seconds: float
    growth_mb: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)


class UploadLoad:
    """Files that are sent to a gateway at the same time, and read back."""

    def __init__(self, gateway: LocalGateway, megabytes: int, files: int) -> None:
        self._url = f"http://{HOST}:{gateway.port}/v1/files"
        self._megabytes = megabytes
        self._files = files
        self._peaks = {
            name: MemoryPeak(gateway.replica_processes("gateway", name)[0]) for name in DEPLOYMENTS
        }
        self._sha256 = _sha256_of(megabytes)

    async def run(self) -> tuple[list[Transfer], bool]:
        """All transfers; and whether every file came back as it was sent."""
        async with aiohttp.ClientSession() as session:
            warm_up = await self._send(session, WARM_UP_MB)
            await self._read(session, warm_up)
            ids: list[str] = []
            digests: list[str] = []
            async with self._measured("to the gateway") as sent:
                sends = (self._send(session, self._megabytes) for _ in range(self._files))
                ids += await asyncio.gather(*sends)
            async with self._measured("from the gateway") as read:
                digests += await asyncio.gather(*(self._read(session, each) for each in ids))
        return [*sent, *read], set(digests) == {self._sha256}

    @asynccontextmanager
    async def _measured(self, what: str) -> AsyncIterator[list[Transfer]]:
        found: list[Transfer] = []
        times = {name: peak.cpu_time() for name, peak in self._peaks.items()}
        for peak in self._peaks.values():
            peak.begin()
        sampling = asyncio.create_task(self._sample())
        began_s = time.monotonic()
        yield found
        seconds = time.monotonic() - began_s
        sampling.cancel()
        growth = {name: peak.growth_mb for name, peak in self._peaks.items()}
        cpu_s = {name: each.spent_s for name, each in times.items()}
        found.append(Transfer(what, seconds, growth, cpu_s))

    async def _sample(self) -> None:
        while True:
            for peak in self._peaks.values():
                peak.sample()
            await asyncio.sleep(SAMPLE_S)

    async def _send(self, session: aiohttp.ClientSession, megabytes: int) -> str:
        form = aiohttp.FormData()
        form.add_field("purpose", "user_data")
        form.add_field("file", _content(megabytes), filename="a.bin")
        async with session.post(self._url, data=form) as answer:
            answer.raise_for_status()
            return str((await answer.json())["id"])

    async def _read(self, session: aiohttp.ClientSession, file_id: str) -> str:
        digest = hashlib.sha256()
        async with session.get(f"{self._url}/{file_id}/content") as answer:
            answer.raise_for_status()
            async for part in answer.content.iter_any():
                digest.update(part)
        return digest.hexdigest()


async def _content(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield BLOCK


def _sha256_of(megabytes: int) -> str:
    digest = hashlib.sha256()
    for _ in range(megabytes):
        digest.update(BLOCK)
    return digest.hexdigest()


def _report(transfers: Sequence[Transfer], megabytes: int) -> Table:
    table = Table("files", "MB/s")
    for name in DEPLOYMENTS:
        table.add_column(f"memory of {name}")
        table.add_column(f"CPU of {name}")
    for each in transfers:
        cells = []
        for name in DEPLOYMENTS:
            cells += [f"+{each.growth_mb[name]:.0f} MB", f"{each.cpu_s[name]:.1f} s"]
        table.add_row(each.what, f"{megabytes / each.seconds:.0f}", *cells)
    return table


def main(megabytes: int = 512, files: int = 2) -> None:
    """Send files to a gateway of this machine's own, and read them back."""
    document = serve_config(processes.free_port(), {"name": MODEL, "engine": "sim"})
    with tempfile.TemporaryDirectory(prefix="uploads-") as folder:
        places = {"database": f"sqlite:///{folder}/state.db", "files": str(Path(folder, "files"))}
        document["applications"][0]["args"] = {"state": places}
        with local_gateway(document) as gateway:
            transfers, is_same = asyncio.run(UploadLoad(gateway, megabytes, files).run())
    console = Console(width=140)
    console.print(_report(transfers, megabytes * files))
    growth_mb = max(max(each.growth_mb.values()) for each in transfers)
    if not is_same:
        console.print("[red]a file came back changed")
    raise typer.Exit(0 if is_same and growth_mb <= MAX_GROWTH_MB else 1)


if __name__ == "__main__":
    typer.run(main)
