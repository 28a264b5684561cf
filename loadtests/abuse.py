"""A hostile client beside an honest one: what one client can do to the others.

    python -m loadtests.abuse --seconds 120

starts two small engines, and has a bystander ask twice a second, first alone and then while a
hostile client with another key sends every attack of `loadtests.attacks` in turn. It ends with
status 1 if anything of the bystander's failed, his TTFT grew by more than `MAX_SLOWDOWN`, an
engine was ejected or replaced, or an engine fetched the attacker's address.
"""

import asyncio
import contextlib
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import httpx
import msgspec
import psutil
import typer
from rich.console import Console
from rich.table import Table

from deployments.local import processes
from loadtests.hostile_client import TIMEOUT_S, send_attacks
from loadtests.launch import HOST
from loadtests.loadgen.outcome import RequestOutcome
from loadtests.loadgen.summary import NO_VALUES, Summary
from loadtests.sender import Identity, Sender
from loadtests.targets import Document, local_gateway, serve_config

MODEL = "small"
REPLICAS = 2
BYSTANDER_RATE = 2.0
"""Requests a second."""
WARM_UP_S = 4.0
MAX_SLOWDOWN = 2.0
"""Times that the bystander's p99 TTFT may grow."""

BYSTANDER = Identity(name="bystander")


class Engine(StrEnum):
    """Kind of the two small engines."""

    VLLM = "vllm"
    """The demo model on the CPU."""
    SIM = "sim"


ENTRIES: Mapping[Engine, Mapping[str, object]] = {
    Engine.VLLM: {
        "engine": "vllm",
        "source": "models/demo",
        "accelerator": "cpu",
        "cpus_per_worker": 0.25,
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
        "engine_args": {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 16},
    },
    Engine.SIM: {"engine": "sim", "simulation": {"max_sequences": 16, "step_s": 0.02}},
}


class AttackedGateway(Protocol):
    """A gateway on this machine."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def port(self) -> int:
        """Its port on loopback."""

    def replica_processes(self, app: str) -> list[psutil.Process]:
        """The processes of a model's engines."""


class AbuseResult(msgspec.Struct, kw_only=True):
    """Result of a run; times are seconds."""

    answers: dict[str, Counter[str]]
    """Answers that each attack got, by status and code."""
    longest_s: dict[str, float]
    """Longest time until an attack was answered."""
    slowest_s: dict[str, float]
    """The bystander's longest TTFT during each attack."""
    bystander: dict[str, Summary]
    """The bystander's requests, `alone` and `beside` the hostile client."""
    replaced: int
    """Engines that ended."""
    faults: list[dict[str, object]]
    """The router's own counts of faults."""
    fetches: int
    """Connections to the attacker's address."""

    @property
    def slowdown(self) -> float:
        """Growth of the bystander's p99 TTFT; infinite if nothing of his was answered."""
        alone, beside = (self.bystander[when].ttft_s for when in ("alone", "beside"))
        return beside.p99 / alone.p99 if alone and beside else math.inf

    @property
    def flaws(self) -> list[str]:
        """What the hostile client achieved, but for delays."""
        beside = self.bystander["beside"]
        ejected = sum(int(str(f["count"])) for f in self.faults if f["action"] == "ejected")
        broken = [name for name, found in self.answers.items() if any(map(_is_5xx, found))]
        found = {
            f"{beside.requests - beside.answered} of the bystander's requests failed": (
                beside.answered < beside.requests
            ),
            f"{self.replaced} engines ended": self.replaced > 0,
            f"engines were ejected {ejected} times": ejected > 0,
            f"an engine fetched the attacker's address {self.fetches} times": self.fetches > 0,
            f"answered with a server error: {', '.join(broken)}": bool(broken),
        }
        return [flaw for flaw, is_true in found.items() if is_true]


def config(port: int, engine: Engine = Engine.VLLM) -> Document:
    """The config of the gateway and its engines."""
    return serve_config(port, {"name": MODEL, "replicas": REPLICAS, **ENTRIES[engine]})


async def run(
    gateway: AttackedGateway,
    seconds: float,
    seed: int,
    model: str = MODEL,
    timeout_s: float = TIMEOUT_S,
) -> AbuseResult:
    """Ask alone for `seconds`, then beside the hostile client until it has tried everything.

    `timeout_s`: how long the hostile client waits for an answer before it leaves.

    The hostile client is a process of its own: its own work delays no request of the bystander's.
    """
    before = {process.pid for process in gateway.replica_processes(model)}
    async with (
        _tarpit() as (image_url, fetches),
        Sender(BYSTANDER, gateway.port, seed, model) as bystander,
    ):
        await bystander.send_at_random(BYSTANDER_RATE, WARM_UP_S)
        alone = await bystander.send_at_random(BYSTANDER_RATE, seconds)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            attacking = asyncio.get_running_loop().run_in_executor(
                process, send_attacks, gateway.port, model, image_url, seconds, timeout_s
            )
            asked = list[RequestOutcome]()
            while not attacking.done():
                asked += await bystander.send_at_random(BYSTANDER_RATE, WARM_UP_S)
            attacked = await attacking
    after = {process.pid for process in gateway.replica_processes(model)}
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        faults = (await http.get("/gateway/faults")).json()["data"]
    beside = [each for each in asked if each.due_s >= attacked.began_s]
    return AbuseResult(
        answers=attacked.answers,
        longest_s=attacked.longest_s,
        slowest_s=attacked.slowest_s(beside),
        bystander={"alone": Summary.of(alone), "beside": Summary.of(beside)},
        replaced=len(before - after),
        faults=faults,
        fetches=len(fetches),
    )


@contextlib.asynccontextmanager
async def _tarpit() -> AsyncIterator[tuple[str, list[float]]]:
    """An address that answers a byte a second, and the times at which it was connected to."""
    fetches: list[float] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fetches.append(time.monotonic())
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1)

    port = processes.free_port()
    async with await asyncio.start_server(answer, HOST, port):
        yield f"http://{HOST}:{port}/image.png", fetches


def _is_5xx(answer: str) -> bool:
    return answer.startswith("5")


def _report(result: AbuseResult) -> Table:
    table = Table(title="What each attack got")
    for heading in ("attack", "answers", "longest, s", "bystander's slowest TTFT, ms"):
        table.add_column(heading, justify="right" if "," in heading else "left")
    for name, found in result.answers.items():
        words = "\n".join(f"{count} x {answer}" for answer, count in found.items())
        table.add_row(
            name, words, f"{result.longest_s[name]:.2f}", f"{1000 * result.slowest_s[name]:.0f}"
        )
    times_ms = [1000 * (each.ttft_s or NO_VALUES).p99 for each in result.bystander.values()]
    beside = result.bystander["beside"]
    table.caption = (
        f"the bystander: {beside.answered} of {beside.requests} answered, p99 TTFT"
        f" {times_ms[0]:.0f} ms alone, {times_ms[1]:.0f} ms beside ({result.slowdown:.2f}x)"
    )
    return table


def main(
    seconds: float = 60,
    seed: int = 1,
    engine: Engine = Engine.VLLM,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it.")] = None,
) -> None:
    """Attack a gateway of this machine's own; status 1 if another client was harmed."""
    with local_gateway(config(processes.free_port(), engine)) as gateway:
        result = asyncio.run(run(gateway, seconds, seed))
    console = Console(width=140)
    console.print(_report(result))
    for flaw in result.flaws:
        console.print(f"[red]{flaw}")
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    raise typer.Exit(1 if result.flaws or result.slowdown > MAX_SLOWDOWN else 0)


if __name__ == "__main__":
    typer.run(main)
