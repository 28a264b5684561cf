"""Overload and fairness on a running system: more load than two simulated replicas can take.

`python -m loadtests.overload` starts a gateway, measures its capacity and then

- *surge*: sends five times as much at random times (Poisson), and watches how it recovers;
- *flood*: one client sends fifty times as much as another, identified by key or by address;
- *batch*: fills the model with batch requests while interactive ones come.

All compare with the same light load alone, within the run.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from deployments.local import processes
from gateway.config.serving_options import QueueOptions
from loadtests.launch import HOST, MODEL
from loadtests.loadgen.outcome import RequestOutcome, Status, answered, with_status
from loadtests.loadgen.summary import NO_VALUES, Distribution, Summary
from loadtests.sender import Identity, Sender
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
"""Time from the start of the other load until a light one starts beside it."""
PROBE_RATE = 2.0
"""Requests a second, of either client, by which recovery is measured."""
WINDOW = 5
"""Successive probes whose median is taken."""
NORMAL = 2.0
"""A TTFT is normal up to this many times its median alone."""
POLL_S = 0.2
"""Time between two reads of the queue's length."""

SURGING = Identity(name="surging")
PROBING = Identity(name="probing")
SMALL = Identity(name="small")
FLOODING = Identity(name="flooding")
SMALL_ADDRESS = Identity(name="small", address="127.0.0.2", has_key=False)
FLOODING_ADDRESS = Identity(name="flooding", address="127.0.0.3", has_key=False)
BATCH = Identity(name="batch", is_batch=True)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of a light load, in seconds."""

    sent: int
    answered: int
    ttft_p50_s: float
    ttft_p90_s: float
    e2e_p50_s: float
    e2e_p90_s: float
    engine_p50_s: float
    """TTFT from when the engine had the request, as the gateway knows it."""

    @classmethod
    def of(cls, outcomes: Sequence[RequestOutcome], engine_ttft_s: dict[str, float]) -> "Latency":
        """Latency of the answered; `engine_ttft_s` is by request id, as far as it is known."""
        summary = Summary.of(outcomes)
        in_engines = [engine_ttft_s.get(o.request_id) for o in answered(outcomes)]
        ttft_s, e2e_s = summary.ttft_s or NO_VALUES, summary.e2e_s or NO_VALUES
        engine = Distribution.of(ttft_s for ttft_s in in_engines if ttft_s is not None)
        return cls(
            sent=summary.requests,
            answered=summary.answered,
            ttft_p50_s=ttft_s.p50,
            ttft_p90_s=ttft_s.p90,
            e2e_p50_s=e2e_s.p50,
            e2e_p90_s=e2e_s.p90,
            engine_p50_s=(engine or NO_VALUES).p50,
        )


class Surge(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a surge; all times are seconds."""

    capacity_per_s: float
    sent: int
    answered: int
    late: int
    """Requests that were rejected after half of the longest wait, or more."""
    flaws: list[str]
    """Failures, rejections without a reason or a `Retry-After` included."""
    ttft_p99_s: float
    limit_s: float
    """Limit of the 99th percentile: the longest wait and the normal TTFT."""
    most_waiting: int
    others: Latency
    """Latency of another client during the surge."""
    others_back_s: float
    """Time from the end of the surge until another client's TTFT is normal."""
    own_back_s: float
    """That time for the client that surged."""
    others_after: list[tuple[float, float]]
    """The other client's probes after the surge: due times and TTFT; infinite if rejected."""
    own_after: list[tuple[float, float]]
    """Those of the client that surged."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round of everything."""

    surge: Surge
    lights: dict[str, Latency]
    """The light load alone, and beside others."""


async def play_round(port: int, seed: int) -> Round:
    """Play one round."""
    capacity_per_s, alone = await _capacity(port, seed), await _light(port, seed, SMALL)
    lights = {"alone": alone}
    for name, small, flooding in (
        ("flood by key", SMALL, FLOODING),
        ("flood by address", SMALL_ADDRESS, FLOODING_ADDRESS),
    ):
        async with Sender(flooding, port, seed) as sender:
            rate, seconds = FLOOD * LIGHT_RATE, FILL_S + LIGHT_S
            others = asyncio.create_task(sender.send_at_random(rate, seconds))
            await asyncio.sleep(FILL_S)
            lights[name] = await _light(port, seed, small)
            await others
    lights["batch"] = await _beside_batch(port, seed)
    return Round(surge=await _surge(port, seed, capacity_per_s, alone), lights=lights)


async def _capacity(port: int, seed: int) -> float:
    """Answers a second with all slots taken, by Little's law."""
    end_s = time.monotonic() + CAPACITY_S
    async with Sender(Identity(name="capacity"), port, seed) as sender:
        outcomes = await sender.send_in_turn(REPLICAS * SLOTS, lambda: time.monotonic() > end_s)
    return REPLICAS * SLOTS / statistics.mean(o.e2e_s for o in answered(outcomes))


async def _light(port: int, seed: int, identity: Identity) -> Latency:
    async with Sender(identity, port, seed) as sender:
        outcomes = await sender.send_at_random(LIGHT_RATE, LIGHT_S)
    return Latency.of(outcomes, await _engine_ttft_s(port))


async def _beside_batch(port: int, seed: int) -> Latency:
    is_over = asyncio.Event()
    async with Sender(BATCH, port, seed) as sender:
        filling = asyncio.create_task(sender.send_in_turn(3 * REPLICAS * SLOTS, is_over.is_set))
        await asyncio.sleep(FILL_S)
        found = await _light(port, seed, SMALL)
        is_over.set()
        await filling
    return found


async def _surge(port: int, seed: int, capacity_per_s: float, alone: Latency) -> Surge:
    polling = asyncio.create_task(_most_waiting(port))
    async with Sender(SURGING, port, seed) as own, Sender(PROBING, port, seed) as other:
        probing = asyncio.create_task(other.send_at_random(PROBE_RATE, SURGE_S + AFTER_S))
        surging = asyncio.create_task(own.send_at_random(SURGE * capacity_per_s, SURGE_S))
        await asyncio.sleep(SURGE_S)
        end_s = time.monotonic()
        after = await own.send_at_random(PROBE_RATE, AFTER_S)
        outcomes, probes = await surging, await probing
    limit_s = QueueOptions().max_wait_s
    failed = with_status([*outcomes, *probes, *after], Status.FAILED)
    rejected = with_status(outcomes, Status.REJECTED)
    others_after, own_after = ttfts_after(probes, end_s), ttfts_after(after, end_s)
    return Surge(
        capacity_per_s=capacity_per_s,
        sent=len(outcomes),
        answered=len(answered(outcomes)),
        late=sum(o.e2e_s > limit_s / 2 for o in rejected),
        flaws=[o.reason for o in failed],
        ttft_p99_s=(Summary.of(outcomes).ttft_s or NO_VALUES).p99,
        limit_s=limit_s + alone.ttft_p90_s,
        most_waiting=await polling,
        others=Latency.of([o for o in probes if o.due_s < end_s], await _engine_ttft_s(port)),
        others_back_s=recovery_s(others_after, alone.ttft_p50_s),
        own_back_s=recovery_s(own_after, alone.ttft_p50_s),
        others_after=others_after,
        own_after=own_after,
    )


async def _most_waiting(port: int) -> int:
    """The most requests that waited at the same time, in the router and in the engines."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    end_s, most = time.monotonic() + SURGE_S + AFTER_S, 0
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as http:
        while time.monotonic() < end_s:
            decision = (await http.post("/gateway/route", json=body)).json()
            most = max(most, sum(c["waiting"] for c in decision["candidates"]))
            await asyncio.sleep(POLL_S)
    return most


async def _engine_ttft_s(port: int) -> dict[str, float]:
    """TTFT in the engine of the latest requests, by request id."""
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as http:
        decisions = (await http.get("/gateway/decisions")).json()["data"]
    return {d["request_id"]: d["actual"]["ttft_s"] for d in decisions if d["actual"]}


def ttfts_after(probes: Sequence[RequestOutcome], end_s: float) -> list[tuple[float, float]]:
    """Due times of the probes after `end_s`, and their TTFT; infinite if rejected."""
    return [
        (probe.due_s - end_s, (probe.ttft_s or 0.0) if probe.is_answered else math.inf)
        for probe in probes
        if probe.due_s >= end_s
    ]


def recovery_s(probes: Sequence[tuple[float, float]], normal_s: float) -> float:
    """Start of the first window of probes with a normal median; infinite if there is none."""
    for first in range(len(probes) - WINDOW + 1):
        window = probes[first : first + WINDOW]
        if statistics.median(ttft_s for _, ttft_s in window) <= NORMAL * normal_s:
            return window[0][0]
    return math.inf


def main(
    rounds: Annotated[int, typer.Option(min=1, max=10)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write it all.")] = None,
) -> None:
    """Overload a gateway of this machine's own."""
    simulation = {"max_sequences": SLOTS, "step_s": STEP_S}
    entry = {"name": MODEL, "engine": "sim", "replicas": REPLICAS, "simulation": simulation}
    with local_gateway(serve_config(processes.free_port(), entry)) as gateway:
        found = [asyncio.run(play_round(gateway.port, seed)) for seed in range(rounds)]
    console = Console(width=110)
    for one in found:
        console.print(_lights_table(one.lights))
        console.print(_surge_table(one.surge))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


def _lights_table(lights: dict[str, Latency]) -> Table:
    table = Table(title=f"{LIGHT_RATE:g} requests a second, alone and beside others")
    headings = ("answered", "TTFT p50, ms", "p90", "in the engine", "end to end p50, ms", "p90")
    for heading in ("", *headings, "TTFT", "end to end"):
        table.add_column(heading, justify="right" if heading else "left")
    alone = lights["alone"]
    for name, found in lights.items():
        times_s = (found.ttft_p50_s, found.ttft_p90_s, found.engine_p50_s)
        table.add_row(
            name,
            f"{found.answered}/{found.sent}",
            *(f"{1000 * each_s:.0f}" for each_s in (*times_s, found.e2e_p50_s, found.e2e_p90_s)),
            f"{found.ttft_p50_s / alone.ttft_p50_s:.2f}x",
            f"{found.e2e_p50_s / alone.e2e_p50_s:.2f}x",
        )
    table.caption = "the last two: medians over those alone"
    return table


def _surge_table(surge: Surge) -> Table:
    table = Table(
        title=f"{SURGE} times the capacity of {surge.capacity_per_s:.1f} requests a second"
    )
    for heading in ("", ""):
        table.add_column(heading)
    for name, value in (
        ("sent, answered", f"{surge.sent}, {surge.answered}"),
        ("rejected late", f"{surge.late}"),
        ("flaws", f"{len(surge.flaws)} {surge.flaws[:1] or ''}"),
        ("TTFT p99 of the answered", f"{surge.ttft_p99_s:.2f} s of {surge.limit_s:.2f} s"),
        ("most waiting at a time", f"{surge.most_waiting} of {QueueOptions().max_requests}"),
        ("another client's TTFT p50", f"{1000 * surge.others.ttft_p50_s:.0f} ms"),
        ("TTFT normal again for others", f"{surge.others_back_s:.1f} s after"),
        ("and for the client itself", f"{surge.own_back_s:.1f} s after"),
    ):
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    typer.run(main)
