"""Kills Accounts again and again under load, and compares the ledger with what clients were told.

`python -m loadtests.ledger` starts a gateway of its own, with two simulated models, a project and a
database. Clients add up the `usage` of every answer. In the end, what the ledger has charged must
be the same, to the token; also in its sums by minute, hour and day.
"""

import asyncio
import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import typer
import yaml

from deployments.local import processes
from deployments.local.session_files import RUN_DIRECTORY
from gateway.identity.api_key import new_key
from loadtests import launch
from loadtests.launch import HOST, Unavailable
from loadtests.targets import Document, serve_config

MODELS = ("sim-a", "sim-b")
ACCOUNTS_TITLE = "ServeReplica:gateway:Accounts"
CLIENTS = 16
SETTLE_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0


class TokenSums(msgspec.Struct):
    """Sums over requests."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: dict[str, Any]) -> None:
        """Add the usage of one answer."""
        self.requests += 1
        self.prompt_tokens += usage["prompt_tokens"]
        self.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self.completion_tokens += usage["completion_tokens"]


class LedgerResult(msgspec.Struct):
    """Result of a run."""

    seconds: float
    kills: int
    """Times that Accounts was killed."""
    failed: int
    """Requests that were not answered: there should be none."""
    clients: TokenSums
    """What clients were told."""
    rows: TokenSums
    """What the ledger has charged, by its rows."""
    sums: dict[str, TokenSums]
    """The same by its sums."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost or counted twice."""
        same = all(each == self.clients for each in (self.rows, *self.sums.values()))
        return same and not self.failed and self.clients.requests > 0


def ledger_config(port: int, folder: Path, key_hash: str) -> Document:
    """A gateway with a database in `folder`, and one project."""
    projects = {"projects": [{"name": "load", "id": "proj_load", "keys": [{"hash": key_hash}]}]}
    file = folder / "projects.yaml"
    file.write_text(yaml.safe_dump(projects))
    simulation = {"step_s": 0.01, "output_tokens": 20}
    entries = [
        {"name": name, "engine": "sim", "accelerator": "cpu", "simulation": simulation}
        for name in MODELS
    ]
    document = serve_config(port, *entries)
    gateway = document["applications"][0]
    prices = {name: [{"input": 1, "cached_input": 0.1, "output": 2}] for name in MODELS}
    gateway["args"] = {"accounts": {"database": _url(folder), "prices": prices}}
    gateway["deployments"][0]["user_config"]["auth"] = {"projects": [str(file)]}
    return document


def read_sums(folder: Path) -> tuple[TokenSums, dict[str, TokenSums]]:
    """What the ledger has charged: by its rows, and by its sums."""
    with sqlite3.connect(folder / "accounts.db") as connection:
        rows = connection.execute(
            "SELECT count(*), sum(charged_prompt_tokens), sum(charged_cached_tokens),"
            " sum(charged_completion_tokens) FROM usage"
        ).fetchone()
        sums = {
            period: connection.execute(
                "SELECT sum(requests), sum(prompt_tokens), sum(cached_tokens),"  # noqa: S608
                f" sum(completion_tokens) FROM usage_{period}"
            ).fetchone()
            for period in ("minutes", "hours", "days")
        }
    return _sums(rows), {period: _sums(row) for period, row in sums.items()}


class LedgerLoad:
    """Clients that add up what they are told."""

    def __init__(self, url: str, key: str, seed: int) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"}
        self._rng = random.Random(seed)  # noqa: S311 - the same load every time
        self.told = TokenSums()
        self.failed = 0

    async def run(self, until_s: float) -> None:
        """Send requests until then."""
        limits = httpx.Limits(max_connections=CLIENTS)
        async with (
            httpx.AsyncClient(timeout=60, limits=limits, headers=self._headers) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CLIENTS):
                group.create_task(self._ask_on(client, until_s))

    async def _ask_on(self, client: httpx.AsyncClient, until_s: float) -> None:
        while time.monotonic() < until_s:
            try:
                await self._ask(client)
            except (httpx.HTTPError, KeyError, ValueError):
                self.failed += 1

    async def _ask(self, client: httpx.AsyncClient) -> None:
        rng = self._rng
        is_stream = rng.random() < 0.5
        body: dict[str, object] = {
            "model": rng.choice(MODELS),
            "messages": [{"role": "user", "content": f"{rng.randrange(20)} " * 100}],
            "max_tokens": rng.randint(1, 30),
            "n": rng.choice((1, 1, 1, 2)),
            "stream": is_stream,
        }
        if is_stream:
            body["stream_options"] = {"include_usage": True}
        answer = await client.post(self._url, json=body)
        answer.raise_for_status()
        text = answer.text
        if is_stream:
            events = [e.removeprefix("data: ") for e in text.split("\n\n") if '"usage"' in e]
            text = next(e for e in reversed(events) if '"usage":{' in e.replace(" ", ""))
        self.told.add(json.loads(text)["usage"])


async def run(seconds: float, kills: int, seed: int) -> LedgerResult:
    """Start a gateway, load it, kill its Accounts, and compare.

    Raises:
        Unavailable: the gateway does not start.
    """
    key = new_key()
    with tempfile.TemporaryDirectory(prefix="ledger-") as name:
        folder, port = Path(name), processes.free_port()
        url = f"http://{HOST}:{port}"
        with _running(folder, ledger_config(port, folder, key.hash)) as process:
            load = LedgerLoad(url, key.secret, seed)
            await asyncio.to_thread(_await_models, url, key.secret, process, load.told)
            began_s = time.monotonic()
            loading = asyncio.create_task(load.run(began_s + seconds))
            killed = 0
            for _ in range(kills):
                await asyncio.sleep(seconds / (kills + 1))
                killed += await asyncio.to_thread(kill_accounts, process)
            await loading
            result = LedgerResult(seconds, killed, load.failed, load.told, TokenSums(), {})
            until_s = time.monotonic() + SETTLE_TIMEOUT_S
            while not result.is_good and time.monotonic() < until_s:
                await asyncio.sleep(1)
                with suppress(sqlite3.Error):
                    result.rows, result.sums = read_sums(folder)
            return result


def kill_accounts(process: psutil.Process) -> int:
    """Kill the Accounts process of a gateway with SIGKILL; how many there were."""
    session = processes.Session.read(RUN_DIRECTORY / f"{process.pid}.json")
    found = launch.processes_titled(session, (ACCOUNTS_TITLE,))
    for each in found:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    return len(found)


@contextmanager
def _running(folder: Path, document: Document) -> Iterator[psutil.Process]:
    """A gateway as `make serve` starts it."""
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(document))
    arguments = ["-m", "deployments.local", "serve", str(config)]
    with launch.logged([sys.executable, *arguments]) as (process, _log):
        yield process


def _await_models(url: str, key: str, process: psutil.Process, told: TokenSums) -> None:
    headers = {"authorization": f"Bearer {key}"}

    def missing() -> str:
        message = {"role": "user", "content": "x"}
        for model in MODELS:
            body = {"model": model, "messages": [message], "max_tokens": 1}
            with httpx.Client(timeout=10, headers=headers) as client:
                try:
                    answer = client.post(f"{url}/v1/chat/completions", json=body)
                except httpx.HTTPError as error:
                    return str(error)
            if answer.status_code != 200:
                return f"{model} answers {answer.status_code}"
            told.add(answer.json()["usage"])
        return ""

    launch.await_ready(missing, process, READY_TIMEOUT_S)


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'accounts.db'}"


def _sums(row: tuple[int | None, ...]) -> TokenSums:
    requests, prompt, cached, completion = (value or 0 for value in row)
    return TokenSums(requests, prompt, cached, completion)


def main(seconds: float = 30.0, kills: int = 4, seed: int = 1) -> None:
    """Run, and print the result as JSON."""
    try:
        result = asyncio.run(run(seconds, kills, seed))
    except Unavailable as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from None
    typer.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
    typer.echo("the ledger equals what clients were told" if result.is_good else "DIFFERENT")
    raise typer.Exit(0 if result.is_good else 1)


if __name__ == "__main__":
    typer.run(main)
