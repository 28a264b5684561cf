"""Cost of a routing decision: prefix keys, the decision itself, memory of the prefix index.

`python -m loadtests.choice` prints a table; nothing is started.
"""

import json
import random
import statistics
import time
from array import array
from collections.abc import Callable
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from gateway.kvcache.prefix import Prompt, prompt_of
from gateway.kvcache.prefix_index import PrefixIndex
from gateway.request.head import parse_json
from gateway.request.inference_request import InferenceRequest
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Load, Update, pack_keys, pack_tokens, unpack_keys
from loadtests.loadgen.summary import Spread

TOKENS_PER_KEY = 64
KV_TOKENS = 1_000_000
MEMORY_REPLICAS = 64


def main(
    replicas: Annotated[int, typer.Option(min=1, help="Candidates of each decision.")] = 16,
    prompt_bytes: Annotated[int, typer.Option(min=1)] = 32 * 1024,
    repeats: Annotated[int, typer.Option(min=10)] = 1000,
) -> None:
    """Measure what a routing decision costs."""
    body = _body(prompt_bytes)
    head = parse_json(body)
    prompt = prompt_of(head)
    scheduler = _scheduler(replicas, prompt)
    request = InferenceRequest(head=head)
    target = Target(request, ServedModel(head.model, created_s=0), head.model, prompt)
    table = Table(title=f"{prompt_bytes:,} bytes of prompt, {replicas} replicas", show_lines=True)
    for heading in ("", "p50", "least", "most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, work in (
        ("read the request's head, µs", lambda: parse_json(body)),
        ("prefix keys, µs", lambda: prompt_of(head)),
        ("walk the keys and choose, µs", lambda: scheduler.choose(target)),
    ):
        taken = _microseconds(work, repeats)
        table.add_row(name, f"{taken.median:.0f}", f"{taken.least:.0f}", f"{taken.most:.0f}")
    megabytes, add_ms, leave_ms = _memory()
    table.add_row(f"index of {MEMORY_REPLICAS} replicas with 1 M KV tokens each, MB", megabytes)
    table.add_row("one such replica's snapshot, ms", add_ms)
    table.add_row("one such replica leaves, ms", leave_ms)
    Console(width=100).print(table)


def _body(prompt_bytes: int) -> bytes:
    text = "All work and no play makes a dull prompt. " * (prompt_bytes // 42 + 1)
    messages = [{"role": "user", "content": text[:prompt_bytes]}]
    return json.dumps({"model": "m", "messages": messages}).encode()


def _scheduler(replicas: int, prompt: Prompt) -> Scheduler:
    """A dispatcher whose replicas hold increasing parts of the prompt."""
    facts = EngineFacts(
        engine="sim",
        routes=(),
        kv_tokens=KV_TOKENS,
        block_size=16,
        max_sequences=64,
        max_model_len=131_072,
    )
    model = ServedModel("m", created_s=0)
    model.replace_replicas(
        Replica(f"r{number}", ReplicaMetadata(model="m", host="h", port=1, key="k", facts=facts))
        for number in range(replicas)
    )
    rng = random.Random(1)  # noqa: S311 - it breaks ties only
    scheduler = Scheduler(model, DecisionLog(), rng, time.time)
    for number in range(replicas):
        keys = prompt.keys[: len(prompt.keys) * number // replicas]
        snapshot = Update(
            is_snapshot=True,
            added=pack_keys(keys),
            added_tokens=pack_tokens(TOKENS_PER_KEY * (i + 1) for i in range(len(keys))),
            load=Load(running=number, waiting=0, pending_tokens=100 * number, free_tokens=1000),
        )
        scheduler.record_update(f"r{number}", snapshot)
    return scheduler


def _microseconds(work: Callable[[], object], repeats: int) -> Spread:
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        work()
        times.append(1e6 * (time.perf_counter() - start_s))
    return Spread.over(times)


def _memory() -> tuple[str, str, str]:
    """Megabytes of an index of replicas with nothing in common, and times to change it."""
    rng = random.Random(1)  # noqa: S311 - any keys will do
    count = KV_TOKENS // TOKENS_PER_KEY
    tokens = array("I", range(TOKENS_PER_KEY, TOKENS_PER_KEY * (count + 1), TOKENS_PER_KEY))
    process = psutil.Process()
    before = process.memory_info().rss
    prefix_index = PrefixIndex()
    add_ms = []
    for number in range(MEMORY_REPLICAS):
        prefix_index.add_replica(f"r{number}")
        keys = unpack_keys(rng.randbytes(8 * count))
        start_s = time.perf_counter()
        prefix_index.add(f"r{number}", keys, tokens)
        add_ms.append(1e3 * (time.perf_counter() - start_s))
    megabytes = (process.memory_info().rss - before) / 1e6
    start_s = time.perf_counter()
    prefix_index.remove_replica("r0")
    leave_ms = 1e3 * (time.perf_counter() - start_s)
    return f"{megabytes:.0f}", f"{statistics.median(add_ms):.0f}", f"{leave_ms:.0f}"


if __name__ == "__main__":
    typer.run(main)
