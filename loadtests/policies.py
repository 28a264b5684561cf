"""Routing policies side by side on a running system: simulated replicas behind the whole gateway.

`python -m loadtests.policies --policies marginal,least-pending --workload hot` starts a gateway
with one model for each policy, sends each of them the same requests in turns, and prints what came
of it. The engines' step times are real; nothing is computed. Requests arrive at random (Poisson).
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deployments import processes
from loadtests.targets import HOST, ROUTE, local_gateway, serve_config

WORD = "lorem "
TENANTS = 40
PREFIX_TOKENS = 6000
BYTES_PER_TOKEN = 4
SIMULATION = {
    "step_s": 0.03,
    "step_s_per_prefill_token": 0.0001,
    "step_s_per_sequence": 0.0002,
    "kv_tokens": 65_536,
    "block_size": 64,
}


class Workload(StrEnum):
    """What prompts have in common."""

    NONE = "none"
    """Nothing."""
    HOT = "hot"
    """All begin alike, 6,000 tokens long."""
    TENANTS = "tenants"
    """Each begins as one of 40 tenants' does, 6,000 tokens long."""


class Ask(msgspec.Struct, frozen=True):
    """One request: when, what, and how long an answer."""

    at_s: float
    prompt: str
    max_tokens: int


class Outcome(msgspec.Struct, frozen=True):
    """What came of one request."""

    replica: str
    ttft_s: float
    e2e_s: float
    prompt_tokens: int
    cached_tokens: int


def asks(workload: Workload, count: int, rate: float, seed: int) -> list[Ask]:
    """`count` requests, `rate` a second on average; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - load, not secrets
    at_s, found = 0.0, []
    for number in range(count):
        at_s += rng.expovariate(rate)
        match workload:
            case Workload.NONE:
                prompt = _text(f"{seed}-{number} ", rng.randint(1000, 8000))
            case Workload.HOT:
                prompt = _text(f"{seed} ", PREFIX_TOKENS) + _text(f"{number} ", 200)
            case Workload.TENANTS:
                tenant = int(TENANTS * rng.random() ** 2)
                prompt = _text(f"{seed}-{tenant} ", PREFIX_TOKENS) + _text(f"{number} ", 200)
        found.append(Ask(at_s, prompt, rng.randint(16, 96)))
    return found


def _text(start: str, tokens: int) -> str:
    length = tokens * BYTES_PER_TOKEN
    return (start + WORD * (length // len(WORD) + 1))[:length]


async def send_all(port: int, model: str, requests: list[Ask]) -> list[Outcome]:
    """Send each request at its time; all must be answered."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://{HOST}:{port}", connector=connector) as session:
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for ask in requests:
                await asyncio.sleep(start_s + ask.at_s - time.monotonic())
                tasks.append(group.create_task(_send(session, model, ask)))
    return [task.result() for task in tasks]


async def _send(session: aiohttp.ClientSession, model: str, ask: Ask) -> Outcome:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": ask.prompt}],
        "max_tokens": ask.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start_s = time.monotonic()
    ttft_s, usage = 0.0, b""
    async with session.post(ROUTE, json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            ttft_s = ttft_s or time.monotonic() - start_s
            if b'"usage":{' in line:
                usage = line.removeprefix(b"data: ")
        replica = response.headers["x-gateway-replica"]
    counted = msgspec.json.decode(usage)["usage"]
    return Outcome(
        replica,
        ttft_s,
        time.monotonic() - start_s,
        counted["prompt_tokens"],
        counted["prompt_tokens_details"]["cached_tokens"],
    )


def main(
    policies: Annotated[str, typer.Option(help="By name, with commas.")] = "marginal,least-pending",
    workload: Annotated[Workload, typer.Option()] = Workload.TENANTS,
    replicas: Annotated[int, typer.Option(min=1, max=16)] = 8,
    requests: Annotated[int, typer.Option(min=10, max=2000, help="Per round and policy.")] = 200,
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="Requests a second.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, max=10)] = 2,
) -> None:
    """Compare routing policies on a running system."""
    names = policies.split(",")
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="policies-") as folder:
        config = Path(folder, "policies.yaml")
        document = serve_config(port, *(_entry(name, replicas) for name in names))
        config.write_text(yaml.safe_dump(document))
        with local_gateway(config, port, names[0]):
            for number in range(rounds):
                load = asks(workload, requests, rate, seed=number)
                for name in names if number % 2 == 0 else reversed(names):
                    outcomes[name] += asyncio.run(send_all(port, name, load))
    Console(width=110).print(_table(workload, outcomes, replicas))


def _entry(policy: str, replicas: int) -> dict[str, object]:
    return {
        "name": policy,
        "engine": "sim",
        "replicas": replicas,
        "cpus_per_worker": 0.05,
        "routing": {"policy": policy},
        "simulation": SIMULATION,
    }


def _table(workload: Workload, outcomes: dict[str, list[Outcome]], replicas: int) -> Table:
    table = Table(title=f"{workload} on {replicas} simulated replicas", show_lines=True)
    headings = ("hit rate", "TTFT mean, s", "TTFT p50", "TTFT p99", "end to end mean, s", "busiest")
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in outcomes.items():
        ttft = sorted(outcome.ttft_s for outcome in found)
        cached = sum(o.cached_tokens for o in found) / sum(o.prompt_tokens for o in found)
        busiest = max(Counter(o.replica for o in found).values()) * replicas / len(found)
        table.add_row(
            name,
            f"{cached:.3f}",
            f"{statistics.mean(ttft):.3f}",
            f"{statistics.median(ttft):.3f}",
            f"{ttft[int(0.99 * (len(ttft) - 1))]:.3f}",
            f"{statistics.mean(o.e2e_s for o in found):.3f}",
            f"{busiest:.2f}",
        )
    table.caption = "busiest: requests of the busiest replica over the mean of all"
    return table


if __name__ == "__main__":
    typer.run(main)
