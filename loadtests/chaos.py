"""Load on a gateway whose engines are killed, hung, slowed, reset and drained while it runs.

    python -m loadtests.chaos --seconds 120 --seed 7

starts a gateway with simulated engines, sends requests whose answers are known, makes trouble at
random, and ends with status 1 if any answer was lost: cut without an error event, wrong, or an
error that is none of OpenAI's. What was done about each fault is the gateway's own count.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import httpx
import msgspec
import psutil
import yaml

from deployments.local import processes
from loadtests.targets import local_gateway, serve_config
from loadtests.trouble import Document, Trouble
from loadtests.verified import Tally, VerifiedLoad

MODEL = "sim"
CLIENTS = 24
REPLICAS = 8
ERROR_RATE = 0.02
RESET_RATE = 0.05


class Gateway(Protocol):
    """A gateway on this machine."""

    @property
    def url(self) -> str:
        """Where clients find it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What `serve` needs to find its cluster."""

    def replica_processes(self, app: str) -> list[psutil.Process]:
        """The processes of a model's engines."""


class Outcome(msgspec.Struct):
    """What a run came to."""

    seconds: float
    requests: Tally
    trouble: Counter[str]
    faults: list[dict[str, object]]
    """The routers' own counts."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost."""
        return not self.requests.lost and self.requests.succeeded > 0


def config(port: int, replicas: int = REPLICAS) -> Document:
    """What is deployed."""
    entry = {
        "name": MODEL,
        "engine": "sim",
        "replicas": replicas,
        "drain_timeout_s": 10,
        "simulation": {"error_rate": ERROR_RATE, "reset_rate": RESET_RATE, "max_sequences": 16},
    }
    return serve_config(port, entry)


async def rehearse(gateway: Gateway, document: Document, seconds: float, seed: int) -> Outcome:
    """Load and trouble for `seconds`, and then the last answers without trouble."""
    rng = random.Random(seed)  # noqa: S311 - a seed makes it repeatable
    load = VerifiedLoad(gateway.url, MODEL, random.Random(seed + 1))  # noqa: S311 - likewise
    trouble = Trouble(
        lambda: gateway.replica_processes(MODEL), REPLICAS, document, gateway.environment, rng
    )
    end_s = time.monotonic() + seconds
    making = asyncio.create_task(trouble.run())
    await load.run(CLIENTS, lambda: time.monotonic() > end_s)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        faults = (await http.get("/gateway/faults")).json()["data"]
    return Outcome(seconds, load.tally, trouble.counts, faults)


def report(outcome: Outcome) -> str:
    """The outcome in words."""
    tally = outcome.requests
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.trouble.items()))
    done = Counter[str]()
    for fault in outcome.faults:
        done[str(fault["action"])] += int(str(fault["count"]))
    lines = [
        f"trouble    {made or 'none'}, beside {ERROR_RATE:.0%} errors and {RESET_RATE:.0%} resets",
        f"sent       {tally.sent}",
        f"succeeded  {tally.succeeded}",
        f"shed       {tally.shed}",
        f"told       {sum(tally.told.values())} {dict(tally.told) or ''}",
        f"lost       {sum(tally.lost.values())} {dict(tally.lost) or ''}",
        "the gateway " + ", ".join(f"{action} {count}" for action, count in done.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the outcome")
    args = parser.parse_args()
    port = processes.free_port()
    document = config(port)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        file = Path(folder, "chaos.yaml")
        file.write_text(yaml.safe_dump(document))
        with local_gateway(file, port) as gateway:
            outcome = asyncio.run(rehearse(gateway, document, args.seconds, args.seed))
    sys.stdout.write(report(outcome) + "\n")
    if args.json:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
    sys.exit(not outcome.is_good)


if __name__ == "__main__":
    main()
