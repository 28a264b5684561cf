"""Overload and fairness on a running system: more load than two simulated replicas can take.

`python -m loadtests.overload` starts a gateway, measures what it can do and then

- *surge*: sends five times as much at random times (Poisson), and watches how it recovers;
- *flood*: has one client send fifty times as much as another, told apart by key and by address;
- *batch*: fills the model with batch requests for as long as interactive ones come.

All compare with the same light load alone, within the run.
"""

import asyncio
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deployments import processes
from gateway.config.serving_options import QueueOptions
from loadtests.launch import HOST, MODEL
from loadtests.open_loop import Client, Outcome, Sender, answered, quantile
from loadtests.targets import local_gateway, serve_config

REPLICAS = 2
SLOTS = 16
STEP_S = 0.03
CAPACITY_S = 8.0
SURGE = 5
SURGE_S = 10.0
AFTER_S = 10.0
FLOOD = 50
LIGHT_RATE = 2.0
"""Requests a second of a light load."""
LIGHT_S = 15.0
FILL_S = 3.0
"""From the beginning of others' load until a light one begins beside it."""
PROBE_RATE = 2.0
"""Requests a second, of either client, from which the way back to normal is read."""
WINDOW = 5
"""Probes in a row of which a median is taken."""
NORMAL = 2.0
"""A time is normal up to as many times its median alone."""
LOOK_S = 0.2
"""Between one look at the queue and the next."""

SURGING = Client(name="surging")
PROBING = Client(name="probing")
SMALL = Client(name="small")
FLOODING = Client(name="flooding")
SMALL_ADDRESS = Client(name="small", address="127.0.0.2", has_key=False)
FLOODING_ADDRESS = Client(name="flooding", address="127.0.0.3", has_key=False)
BATCH = Client(name="batch", is_batch=True)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How a light load fared; all times are seconds."""

    sent: int
    answered: int
    ttft_p50_s: float
    ttft_p90_s: float
    e2e_p50_s: float
    e2e_p90_s: float
    engine_p50_s: float
    """To the first token from when the engine had the request, by its own word."""


class Surge(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a surge; all times are seconds."""

    capacity_per_s: float
    sent: int
    answered: int
    late: int
    """Turned away only after half of the longest wait, or more."""
    flaws: list[str]
    """Of answers and rejections."""
    ttft_p99_s: float
    limit_s: float
    """What the 99th percentile is to stay under: the longest wait and the normal one."""
    most_waiting: int
    others: Latency
    """Of another client meanwhile."""
    others_back_s: float
    """From the end of the surge until another client's TTFT is normal."""
    own_back_s: float
    """Likewise for the client whose surge it was."""
    others_after: list[tuple[float, float]]
    """When the other client sent from the end of the surge on, and the times to first token."""
    own_after: list[tuple[float, float]]
    """Likewise; infinite where it was turned away."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round of all."""

    surge: Surge
    lights: dict[str, Latency]
    """The light load alone, and beside others."""


async def play(port: int, seed: int) -> Round:
    """One round."""
    capacity_per_s, alone = await _capacity(port, seed), await _light(port, seed, SMALL)
    lights = {"alone": alone}
    for name, small, flooding in (
        ("flood by key", SMALL, FLOODING),
        ("flood by address", SMALL_ADDRESS, FLOODING_ADDRESS),
    ):
        async with Sender.open(flooding, port, seed) as sender:
            rate, seconds = FLOOD * LIGHT_RATE, FILL_S + LIGHT_S
            others = asyncio.create_task(sender.at_random(rate, seconds))
            await asyncio.sleep(FILL_S)
            lights[name] = await _light(port, seed, small)
            await others
    lights["batch"] = await _beside_batch(port, seed)
    return Round(surge=await _surge(port, seed, capacity_per_s, alone), lights=lights)


async def _capacity(port: int, seed: int) -> float:
    """Answers a second with all slots taken, by Little's law."""
    end_s = time.monotonic() + CAPACITY_S
    async with Sender.open(Client(name="capacity"), port, seed) as sender:
        outcomes = await sender.in_turn(REPLICAS * SLOTS, lambda: time.monotonic() > end_s)
    return REPLICAS * SLOTS / statistics.mean(o.e2e_s for o in answered(outcomes))


async def _light(port: int, seed: int, client: Client) -> Latency:
    async with Sender.open(client, port, seed) as sender:
        outcomes = await sender.at_random(LIGHT_RATE, LIGHT_S)
    return latency(outcomes, await _engine_ttft_s(port))


async def _beside_batch(port: int, seed: int) -> Latency:
    is_over = asyncio.Event()
    async with Sender.open(BATCH, port, seed) as sender:
        filling = asyncio.create_task(sender.in_turn(3 * REPLICAS * SLOTS, is_over.is_set))
        await asyncio.sleep(FILL_S)
        found = await _light(port, seed, SMALL)
        is_over.set()
        await filling
    return found


async def _surge(port: int, seed: int, capacity_per_s: float, alone: Latency) -> Surge:
    looking = asyncio.create_task(_most_waiting(port))
    async with Sender.open(SURGING, port, seed) as own, Sender.open(PROBING, port, seed) as other:
        probing = asyncio.create_task(other.at_random(PROBE_RATE, SURGE_S + AFTER_S))
        surging = asyncio.create_task(own.at_random(SURGE * capacity_per_s, SURGE_S))
        await asyncio.sleep(SURGE_S)
        end_s = time.monotonic()
        after = await own.at_random(PROBE_RATE, AFTER_S)
        outcomes, probes = await surging, await probing
    limit_s = QueueOptions().max_wait_s
    return Surge(
        capacity_per_s=capacity_per_s,
        sent=len(outcomes),
        answered=len(answered(outcomes)),
        late=sum(o.status == 429 and o.e2e_s > limit_s / 2 for o in outcomes),
        flaws=[o.flaw for o in (*outcomes, *probes, *after) if o.flaw],
        ttft_p99_s=quantile([o.ttft_s for o in answered(outcomes)], 0.99),
        limit_s=limit_s + alone.ttft_p90_s,
        most_waiting=await looking,
        others=latency([o for o in probes if o.sent_s < end_s], await _engine_ttft_s(port)),
        others_back_s=back_s(ttfts_s(probes, end_s), alone.ttft_p50_s),
        own_back_s=back_s(ttfts_s(after, end_s), alone.ttft_p50_s),
        others_after=ttfts_s(probes, end_s),
        own_after=ttfts_s(after, end_s),
    )


async def _most_waiting(port: int) -> int:
    """The most requests that waited at the same time, in the router and in the engines."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    end_s, most = time.monotonic() + SURGE_S + AFTER_S, 0
    async with aiohttp.ClientSession(f"http://{HOST}:{port}") as http:
        while time.monotonic() < end_s:
            async with http.post("/gateway/route", json=body) as response:
                decision = json.loads(await response.read())
            most = max(most, sum(c["waiting"] for c in decision["candidates"]))
            await asyncio.sleep(LOOK_S)
    return most


async def _engine_ttft_s(port: int) -> dict[str, float]:
    """By request id, of the latest requests."""
    async with (
        aiohttp.ClientSession(f"http://{HOST}:{port}") as http,
        http.get("/gateway/decisions") as response,
    ):
        found = json.loads(await response.read())["data"]
    return {d["request_id"]: d["actual"]["ttft_s"] for d in found if d["actual"]}


def latency(outcomes: Sequence[Outcome], engine_ttft_s: dict[str, float]) -> Latency:
    """What the outcomes come to."""
    good = answered(outcomes)
    in_engines = [engine_ttft_s[o.request_id] for o in good if o.request_id in engine_ttft_s]
    return Latency(
        sent=len(outcomes),
        answered=len(good),
        ttft_p50_s=quantile([o.ttft_s for o in good], 0.5),
        ttft_p90_s=quantile([o.ttft_s for o in good], 0.9),
        e2e_p50_s=quantile([o.e2e_s for o in good], 0.5),
        e2e_p90_s=quantile([o.e2e_s for o in good], 0.9),
        engine_p50_s=quantile(in_engines, 0.5),
    )


def ttfts_s(probes: Sequence[Outcome], end_s: float) -> list[tuple[float, float]]:
    """When probes were sent from `end_s` on, and what they waited; for ever if turned away."""
    return [
        (probe.sent_s - end_s, probe.ttft_s if probe.status == 200 else math.inf)
        for probe in probes
        if probe.sent_s >= end_s
    ]


def back_s(after: Sequence[tuple[float, float]], normal_s: float) -> float:
    """When several probes in a row begin to have a normal median; infinite if none do."""
    for first in range(len(after) - WINDOW + 1):
        window = after[first : first + WINDOW]
        if statistics.median(ttft_s for _, ttft_s in window) <= NORMAL * normal_s:
            return window[0][0]
    return math.inf


def main(
    rounds: Annotated[int, typer.Option(min=1, max=10)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it all.")] = None,
) -> None:
    """Overload a gateway of this machine's own."""
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        config = Path(folder, "overload.yaml")
        simulation = {"max_sequences": SLOTS, "step_s": STEP_S}
        entry = {"name": MODEL, "engine": "sim", "replicas": REPLICAS, "simulation": simulation}
        config.write_text(yaml.safe_dump(serve_config(port, entry)))
        with local_gateway(config, port):
            found = [asyncio.run(play(port, seed)) for seed in range(rounds)]
    console = Console(width=110)
    for one in found:
        console.print(_lights(one.lights))
        console.print(_surge_table(one.surge))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


def _lights(lights: dict[str, Latency]) -> Table:
    table = Table(title=f"{LIGHT_RATE:g} requests a second, alone and beside others")
    headings = ("answered", "TTFT p50, ms", "p90", "in the engine", "end to end p50, ms", "p90")
    for heading in ("", *headings, "TTFT", "end to end"):
        table.add_column(heading, justify="right" if heading else "left")
    alone = lights["alone"]
    for name, found in lights.items():
        table.add_row(
            name,
            f"{found.answered}/{found.sent}",
            f"{1000 * found.ttft_p50_s:.0f}",
            f"{1000 * found.ttft_p90_s:.0f}",
            f"{1000 * found.engine_p50_s:.0f}",
            f"{1000 * found.e2e_p50_s:.0f}",
            f"{1000 * found.e2e_p90_s:.0f}",
            f"{found.ttft_p50_s / alone.ttft_p50_s:.2f}x",
            f"{found.e2e_p50_s / alone.e2e_p50_s:.2f}x",
        )
    table.caption = "the last two: medians over those alone"
    return table


def _surge_table(surge: Surge) -> Table:
    table = Table(title=f"{SURGE} times the {surge.capacity_per_s:.1f} requests a second it can do")
    for heading in ("", ""):
        table.add_column(heading)
    for name, value in (
        ("sent, answered", f"{surge.sent}, {surge.answered}"),
        ("turned away late", f"{surge.late}"),
        ("flaws", f"{len(surge.flaws)} {surge.flaws[:1] or ''}"),
        ("TTFT p99 of the answered", f"{surge.ttft_p99_s:.2f} s of {surge.limit_s:.2f} s"),
        ("most waiting at a time", f"{surge.most_waiting} of {QueueOptions().max_requests}"),
        ("another client's TTFT p50", f"{1000 * surge.others.ttft_p50_s:.0f} ms"),
        ("TTFT normal again for others", f"{surge.others_back_s:.1f} s after"),
        ("and for the one itself", f"{surge.own_back_s:.1f} s after"),
    ):
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    typer.run(main)
