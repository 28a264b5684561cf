"""Fairness among projects on running routers: who is served how much, whatever router they come to.

`python -m loadtests.fairness` assembles routers and simulated engines in this process, connected
over HTTP as in production, without Ray. Two projects flood them through one router or two, and the
engines' own usage records say what each one got. All compare with the same load of one project.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from deployments.engines.server import EngineServer
from deployments.engines.sim.engine import SimulatedEngine
from gateway.assembly import AssembledRouter, build_router
from gateway.config.auth import Auth
from gateway.config.gateway import GatewayConfig
from gateway.config.serving_options import ServingOptions
from gateway.config.sim import SimEntry
from gateway.identity.api_key import key_hash, new_key
from gateway.identity.live_directory import FILES
from gateway.identity.project import ApiKey, Directory, Project
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.reservations import Settled
from gateway.serving.live_config import LiveConfig
from gateway.telemetry.facts import ReplicaMetadata
from gateway.telemetry.usage import Reservation, UsageRecord
from loadtests.launch import HOST, MODEL
from loadtests.loadgen.client import CHAT_PATH, chat_body

ENGINES = 2
SLOTS = 16
CLIENTS = 4 * ENGINES * SLOTS
"""Of each project: either could fill all slots alone, and have others wait."""
SIMULATION = {"step_s": 0.02, "max_sequences": SLOTS, "kv_tokens": 65_536}
TOKEN_S = 0.02 / SLOTS + 0.0002
"""Seconds of an engine's time for a token of an answer, with all slots taken."""
PROMPT_TOKEN_S = 0.0001
PREFIXES = 16
"""Prompts of each project that many of its requests begin with."""
PREFIX_WORDS = 600
OUTPUT_TOKENS = (24, 72)
PATIENT = {"queue": {"max_wait_s": 600, "max_requests": 100_000}}
WEIGHTS = (4.0, 1.0)
WARMUP_SHARE = 0.45
"""Share of the time that is not measured: engines fill, caches are empty, costs are unknown."""


class FloodIngress(msgspec.Struct, frozen=True, kw_only=True):
    """How the clients of two projects reach the routers; numbers of routers by project."""

    name: str
    routers: int
    first: tuple[Sequence[int], Sequence[int]]
    later: tuple[Sequence[int], Sequence[int]] | None = None
    """From half of the time on, if that is different."""
    is_returning: bool = False
    """The projects weigh the same, and the second one is idle for half of the time."""


INGRESSES = (
    FloodIngress(name="one router", routers=1, first=([0], [0])),
    FloodIngress(name="two, even", routers=2, first=([0, 1], [0, 1])),
    FloodIngress(name="two, skewed", routers=2, first=([0], [1])),
    FloodIngress(name="two, swapped", routers=2, first=([0], [1]), later=([1], [0])),
    FloodIngress(name="returning, one router", routers=1, first=([0], [0]), is_returning=True),
    FloodIngress(name="returning, skewed", routers=2, first=([0], [1]), is_returning=True),
)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What the engines have served."""

    work_s: tuple[float, float]
    """Seconds of the engines' time by project."""
    tokens_per_s: float
    """Tokens of prompts and answers."""
    hit_rate: float

    @property
    def ratio(self) -> float:
        """Work of the first project, over that of the second."""
        return self.work_s[0] / max(1e-9, self.work_s[1])

    @property
    def second_share(self) -> float:
        """Share of the second project in all work."""
        return self.work_s[1] / max(1e-9, sum(self.work_s))


class UsageSums:
    """Sums the usage that engines report, once it `counts`."""

    def __init__(self) -> None:
        self.counts = False
        self._work_s = {"0": 0.0, "1": 0.0}
        self._tokens = self._prompt_tokens = self._cached_tokens = 0

    def record_reserved(self, reservation: Reservation) -> None:
        """Do nothing: only what was served counts."""

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Count requests that have ended."""
        if self.counts:
            for _, usage in settled:
                if usage is not None:
                    self._add(usage)

    def _add(self, usage: UsageRecord) -> None:
        new_tokens = usage.prompt_tokens - usage.cached_tokens
        work_s = new_tokens * PROMPT_TOKEN_S + usage.completion_tokens * TOKEN_S
        self._work_s[usage.origin.key] += work_s
        self._tokens += usage.prompt_tokens + usage.completion_tokens
        self._prompt_tokens += usage.prompt_tokens
        self._cached_tokens += usage.cached_tokens

    def served(self, seconds: float) -> Served:
        """Sums of so many seconds."""
        return Served(
            work_s=(self._work_s["0"], self._work_s["1"]),
            tokens_per_s=self._tokens / seconds,
            hit_rate=self._cached_tokens / max(1, self._prompt_tokens),
        )


class System:
    """Routers and simulated engines in this process; keys `0` and `1` are of two projects.

    `is_fair`: otherwise both keys are of one project, whose requests are served as they are due.
    """

    def __init__(self, routers: int, weights: Sequence[float], *, is_fair: bool) -> None:
        self._entry = SimEntry.model_validate(
            {"name": MODEL, "engine": "sim", "simulation": SIMULATION}
        )
        self._engines = [SimulatedEngine(self._entry) for _ in range(ENGINES)]
        self._servers = [EngineServer(engine, HOST) for engine in self._engines]
        self._count = routers
        self.secrets = [new_key().secret for _ in weights]
        projects = [Project(id=f"p{i}", weight=weight) for i, weight in enumerate(weights)]
        self._directory = Directory(
            projects=tuple(projects),
            keys=tuple(
                ApiKey(id=str(i), project=f"p{i * is_fair}", hash=key_hash(secret.encode()))
                for i, secret in enumerate(self.secrets)
            ),
        )
        self.routers: list[AssembledRouter] = []
        self.sums = UsageSums()

    async def start(self) -> None:
        """Start the engines, then the routers."""
        for server in self._servers:
            await server.start()
        self.routers = [self._router() for _ in range(self._count)]
        for pool in self.routers[0].pools:
            pool.scheduler.replicas.reservations.add_listener(self.sums)
        for router in self.routers:
            router.start()

    async def stop(self) -> None:
        """Stop everything."""
        for router in self.routers:
            await router.close()
            await router.context.engines.close()
        for server, engine in zip(self._servers, self._engines, strict=True):
            await server.stop()
            await engine.stop()

    def _router(self) -> AssembledRouter:
        fleet = Fleet()
        options = ServingOptions.model_validate(PATIENT)
        fleet.add(ServedModel(MODEL, created_s=0, options=options))
        fleet.model(MODEL).replace_replicas(
            Replica(str(i), self._metadata(i)) for i in range(ENGINES)
        )
        live_config = LiveConfig()
        live_config.apply(GatewayConfig(auth=Auth()))
        live_config.directory.replace(FILES, self._directory)
        return build_router(fleet, lambda *_: None, live_config=live_config)

    def _metadata(self, number: int) -> ReplicaMetadata:
        server, engine = self._servers[number], self._engines[number]
        return ReplicaMetadata(
            model=MODEL, host=HOST, port=server.port, key=server.key, facts=engine.facts
        )


async def flood(ingress: FloodIngress, seconds: float, *, is_fair: bool) -> Served:
    """Flood a system for so long, and return what it has served."""
    weights = (1.0, 1.0) if ingress.is_returning else WEIGHTS
    system = System(ingress.routers, weights, is_fair=is_fair)
    warmup_s = seconds * (0.5 + WARMUP_SHARE / 2 if ingress.is_returning else WARMUP_SHARE)
    await system.start()
    try:
        async with _clients(system, ingress, seconds):
            await asyncio.sleep(warmup_s)
            system.sums.counts = True
            await asyncio.sleep(seconds - warmup_s)
            system.sums.counts = False
    finally:
        await system.stop()
    return system.sums.served(seconds - warmup_s)


@asynccontextmanager
async def _clients(system: System, ingress: FloodIngress, seconds: float) -> AsyncIterator[None]:
    half_s = asyncio.get_running_loop().time() + seconds / 2
    clients = [
        asyncio.create_task(_client(system, ingress, project, number, half_s))
        for number in range(CLIENTS)
        for project in range(2)
    ]
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def _client(
    system: System, ingress: FloodIngress, project: int, number: int, half_s: float
) -> None:
    """Send one request after the other."""
    loop = asyncio.get_running_loop()
    rng = random.Random(f"{project} {number}")  # noqa: S311 - load, not secrets
    headers = {"authorization": f"Bearer {system.secrets[project]}"}
    if ingress.is_returning and project:
        await asyncio.sleep(half_s - loop.time())
    transports = [httpx.ASGITransport(router.app) for router in system.routers]
    for turn in itertools.count():
        is_later = ingress.later is not None and loop.time() >= half_s
        routers = (ingress.later if is_later and ingress.later else ingress.first)[project]
        prefix = f"{project} {rng.randrange(PREFIXES)} " + "lorem " * PREFIX_WORDS
        body = chat_body(MODEL, f"{prefix} {number} {turn}", rng.randint(*OUTPUT_TOKENS))
        body["stream"] = False
        body.pop("stream_options", None)
        async with httpx.AsyncClient(
            transport=transports[routers[number % len(routers)]], base_url="http://gateway"
        ) as http:
            response = await http.post(CHAT_PATH, json=body, headers=headers, timeout=None)
        response.raise_for_status()


def main(
    seconds: Annotated[float, typer.Option(min=2, help="Seconds of each load.")] = 45,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Flood routers in this process with the requests of two projects."""
    results = []
    for ingress in INGRESSES:
        fair = asyncio.run(flood(ingress, seconds, is_fair=True))
        unfair = asyncio.run(flood(ingress, seconds, is_fair=False))
        results.append((ingress, fair, unfair))
    if as_json:
        rows = [{"ingress": i.name, "fair": f, "unfair": u} for i, f, u in results]
        typer.echo(msgspec.json.format(msgspec.json.encode(rows)))
        return
    table = Table("ingress", "shares", "throughput", "hit rate", "hit rate, unfair")
    for ingress, fair, unfair in results:
        shares = (
            f"{100 * fair.second_share:.0f} % for the second"
            if ingress.is_returning
            else f"{fair.ratio:.2f} : 1"
        )
        throughput = f"{fair.tokens_per_s / unfair.tokens_per_s:.3f}"
        table.add_row(
            ingress.name, shares, throughput, f"{fair.hit_rate:.3f}", f"{unfair.hit_rate:.3f}"
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
