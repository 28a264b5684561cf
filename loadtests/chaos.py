"""Load on a gateway whose engines, routers and HAProxy fail while it runs.

    python -m loadtests.chaos --seconds 120 --seed 7

starts a gateway with simulated engines, sends requests whose answers are known, injects faults at
random, and ends with status 1 if any answer was lost: cut without an error event, wrong, or an
error of another shape than OpenAI's. Engines are killed, hung, slowed, reset and drained; routers
and HAProxy are killed. Only the connections that such a kill breaks, and those refused in the
seconds after it, count as cut, not as lost. The report ends with the gateway's counts of faults.

With `--projects`, clients belong to two projects, one of which sends more than its limits allow,
and Accounts is killed, too. Afterwards the ledger is compared with what the engines have written.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

import httpx
import msgspec
import psutil
import typer

from deployments.local import processes
from loadtests.chaos_audit import ROUTERS, SENDERS, Audit, add_projects, settled_audit, usage_folder
from loadtests.checked_load import CheckedLoad, Counts, LoadSource, merged
from loadtests.fault_injection import FRONT_DOOR, KILL_ROUTER, FaultInjector, FrontDoor
from loadtests.targets import Document, local_gateway, serve_config

MODEL = "sim"
CLIENTS = 24
REPLICAS = 8
CUT_PER_KILL = 2 * CLIENTS
"""Most requests that the death of a router or HAProxy may cut off or refuse."""
ERROR_RATE = 0.02
RESET_RATE = 0.05


class Gateway(Protocol):
    """A gateway on this machine."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that `serve` needs to find its cluster."""

    def replica_processes(self, app: str, deployment: str = "Engine") -> list[psutil.Process]:
        """The processes of an application's replicas."""

    def haproxies(self) -> list[psutil.Process]:
        """The processes of HAProxy."""


class Result(msgspec.Struct, rename={"injected": "trouble"}):
    """Result of a run."""

    seconds: float
    requests: Counts
    injected: Counter[str]
    """Injected faults by kind."""
    faults: list[dict[str, object]]
    """The routers' own counts of how they handled faults."""
    audit: Audit | None = None
    """How the ledger compares with the engines, if there are projects."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, and no more was cut than the deaths of front doors explain."""
        kills = sum(self.injected[kind] for kind in FRONT_DOOR)
        requests = self.requests
        is_explained = requests.cut <= kills * CUT_PER_KILL
        is_true = self.audit is None or self.audit.is_good(self.injected[KILL_ROUTER])
        return not requests.lost and requests.succeeded > 0 and is_explained and is_true


def config(port: int, replicas: int = REPLICAS, folder: Path | None = None) -> Document:
    """The config of the gateway and its engines; with projects, whose files are in `folder`."""
    entry: Document = {
        "name": MODEL,
        "engine": "sim",
        "replicas": replicas,
        "drain_timeout_s": 10,
        "simulation": {"error_rate": ERROR_RATE, "reset_rate": RESET_RATE, "max_sequences": 16},
    }
    if folder is not None:
        entry["simulation"]["usage_folder"] = str(usage_folder(folder))
    document = serve_config(port, entry)
    document["applications"][0]["deployments"][0]["num_replicas"] = ROUTERS
    if folder is not None:
        add_projects(document, folder)
    return document


async def run(
    gateway: Gateway,
    document: Document,
    seconds: float,
    seed: int,
    *,
    front_door: bool = True,
    folder: Path | None = None,
) -> Result:
    """Load and faults for `seconds`, and then the last answers without faults.

    `front_door`: whether routers and HAProxy are killed, too. `folder`: with the projects, if there
    are any; then Accounts is killed, too.
    """
    rng = random.Random(seed)  # noqa: S311 - a seed makes it repeatable
    injector = FaultInjector(
        lambda: gateway.replica_processes(MODEL),
        REPLICAS,
        document,
        gateway.environment,
        rng,
        _front_door(gateway, with_accounts=folder is not None) if front_door else None,
    )
    senders = [LoadSource()] if folder is None else SENDERS
    loads = [
        CheckedLoad(
            gateway.url,
            MODEL,
            random.Random(seed + number),  # noqa: S311 - likewise
            injector.may_be_cut,
            sender,
        )
        for number, sender in enumerate(senders, 1)
    ]
    end_s = time.monotonic() + seconds
    injecting = asyncio.create_task(injector.run())
    clients = [each.clients or CLIENTS // len(senders) for each in senders]
    await asyncio.gather(
        *(
            load.run(count, lambda: time.monotonic() > end_s)
            for load, count in zip(loads, clients, strict=True)
        )
    )
    injecting.cancel()
    await asyncio.gather(injecting, return_exceptions=True)
    counts = merged(load.counts for load in loads)
    audit = None if folder is None else await settled_audit(folder, counts, injector.killed_s)
    return Result(seconds, counts, injector.counts, await _faults(gateway.url), audit)


async def _faults(url: str) -> list[dict[str, object]]:
    """Most faults of each kind that a router tells of; killed ones have taken theirs along."""
    most: dict[tuple[str, ...], dict[str, object]] = {}
    async with httpx.AsyncClient(base_url=url) as http:
        for fault in (await http.get("/gateway/faults")).json()["data"]:
            key = (fault["model"], fault["reason"], fault["action"])
            most[key] = max(most.get(key, fault), fault, key=_count)
    return list(most.values())


def _count(fault: Mapping[str, object]) -> int:
    return int(str(fault["count"]))


def _front_door(gateway: Gateway, *, with_accounts: bool) -> FrontDoor:
    def replicas(deployment: str) -> list[psutil.Process]:
        return gateway.replica_processes("gateway", deployment)

    accounts = partial(replicas, "Accounts") if with_accounts else None
    return FrontDoor(partial(replicas, "Router"), gateway.haproxies, accounts)


def report(result: Result) -> str:
    """The result in words."""
    counts = result.requests
    injected = ", ".join(f"{count} {kind}" for kind, count in sorted(result.injected.items()))
    handled = Counter[str]()
    for fault in result.faults:
        handled[str(fault["action"])] += _count(fault)
    return "\n".join(
        [
            f"injected   {injected or 'none'}; {ERROR_RATE:.0%} errors, {RESET_RATE:.0%} resets",
            f"sent       {counts.sent}",
            f"succeeded  {counts.succeeded}",
            f"shed       {counts.shed}",
            f"errors     {counts.errors.total()} {dict(counts.errors) or ''}",
            f"cut        {counts.cut}",
            f"lost       {counts.lost.total()} {dict(counts.lost) or ''}",
            "gateway    " + ", ".join(f"{action} {count}" for action, count in handled.items()),
            *([] if result.audit is None else result.audit.lines()),
        ]
    )


def main(
    seconds: float = 120,
    seed: int = 1,
    front_door: Annotated[
        bool, typer.Option(help="Whether routers and HAProxy are killed, too.")
    ] = True,
    projects: Annotated[
        bool, typer.Option("--projects", help="Whether clients have keys, limits and a ledger.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it.")] = None,
) -> None:
    """Load a gateway while its processes fail; status 1 if an answer was lost."""
    with tempfile.TemporaryDirectory(prefix="chaos-projects-") as name:
        folder = Path(name) if projects else None
        document = config(processes.free_port(), folder=folder)
        key = SENDERS[0].api_key if projects else ""
        with local_gateway(document, key) as gateway:
            running = run(gateway, document, seconds, seed, front_door=front_door, folder=folder)
            result = asyncio.run(running)
    typer.echo(report(result))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    raise typer.Exit(0 if result.is_good else 1)


if __name__ == "__main__":
    typer.run(main)
