"""Python instructions that a streamed chat costs a router, with projects and without.

Unlike CPU time, they are the same on every machine, whatever else it does. Two routers run in this
process, without a server in front of them; the engines and Accounts run in others, as for
`python -m loadtests.compare projects`. Instructions of libraries in C do not count.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any

import msgspec
import typer
import uvloop

from deployments.process_setup import collect_garbage_rarely
from gateway.asgi import Message, Scope
from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.serving.live_config import LiveConfig
from loadtests.comparison.projects import KEY, projects_file, started
from loadtests.launch import MODEL, PROJECT_ROOT
from loadtests.loadgen.client import CHAT_PATH, chat_body
from loadtests.router_with_projects import AccountsOverHttp, fleet_of

CLIENTS = 16
TOKENS = 8
PROMPT = "Say something about bridges."
WARM_UP = 150
SLOWDOWN = 20
"""Counting takes about so many times as long: the routers' clocks go so much slower, too."""
FRAME_PERIOD_S = str(0.05 * SLOWDOWN)
"""As many requests end in a frame of telemetry as on a busy router."""
INFORMED_S = 5.0

Counts = Counter[CodeType]
START_S = time.time()


def slow_clock() -> float:
    """Time of day of the routers, in Unix time."""
    return START_S + (time.time() - START_S) / SLOWDOWN


SLOW = RouterOptions(clock=slow_clock, time_of_day=slow_clock)


@contextmanager
def counted(instructions: Counts, calls: Counts) -> Iterator[None]:
    """Count the instructions and calls of this thread by function."""

    def begin(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401 - as of `settrace`
        del event, arg
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        calls[frame.f_code] += 1
        return step

    def step(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401 - as of `settrace`
        del arg
        if event == "opcode":
            instructions[frame.f_code] += 1
        return step

    sys.settrace(begin)
    try:
        yield
    finally:
        sys.settrace(None)


class InProcessClients:
    """Clients of one router in this process; `key`: their API key, if they need one."""

    def __init__(self, router: AssembledRouter, key: str) -> None:
        self._app = router.app
        self._body = msgspec.json.encode(chat_body(MODEL, PROMPT, TOKENS))
        headers = [
            (b"host", b"gateway.example"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._body)),
        ]
        if key:
            headers.append((b"authorization", b"Bearer " + key.encode()))
        self._headers = headers

    async def ask(self, requests: int) -> None:
        """Send so many requests, some at a time."""
        each, rest = divmod(requests, CLIENTS)
        counts = [each + (number < rest) for number in range(CLIENTS)]
        await asyncio.gather(*(self._ask_in_turn(count) for count in counts))

    async def _ask_in_turn(self, requests: int) -> None:
        for _ in range(requests):
            await self._ask()

    async def _ask(self) -> None:
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT_PATH,
            "query_string": b"",
            "client": ("127.0.0.1", 4000),
            "headers": self._headers,
        }
        status, is_read = 0, False
        left = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            nonlocal is_read
            if is_read:
                await left
            is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        await self._app(scope, receive, send)
        if status != 200:
            raise RuntimeError(f"the router answered {status}")


async def counts_of(
    router: AssembledRouter, key: str, requests: int
) -> tuple[Counts, Counts, float]:
    """Instructions and calls of so many requests, and the CPU seconds of as many not counted."""
    router.start()
    await router.wait_until_informed(INFORMED_S)
    clients = InProcessClients(router, key)
    await clients.ask(WARM_UP)
    began_s = time.thread_time()
    await clients.ask(requests)
    spent_s = time.thread_time() - began_s
    instructions, calls = Counts(), Counts()
    with counted(instructions, calls):
        await clients.ask(requests)
    await router.close()
    return instructions, calls, spent_s


async def run(requests: int, functions: int) -> None:
    """Count both routers, and print what projects add."""
    with (
        tempfile.TemporaryDirectory(prefix="instructions-") as folder,
        started("engine", FRAME_PERIOD_S) as (_, plain_engine),
        started("engine", FRAME_PERIOD_S) as (_, engine),
        started("accounts", folder, engine) as (_, port),
    ):
        plain = build_router(fleet_of(plain_engine), lambda *_: None, options=SLOW)
        live_config = LiveConfig()
        await live_config.adopt({"auth": {"projects": [str(projects_file(Path(folder)))]}})
        options = replace(SLOW, accounts=AccountsOverHttp(int(port)))
        projects = build_router(
            fleet_of(engine), lambda *_: None, live_config=live_config, options=options
        )
        collect_garbage_rarely()
        found = [await counts_of(plain, "", requests), await counts_of(projects, KEY, requests)]
    report(found, requests, functions)


def report(found: list[tuple[Counts, Counts, float]], requests: int, functions: int) -> None:
    """Print the figures of the two routers."""
    for name, (instructions, calls, spent_s) in zip(("without", "with"), found, strict=True):
        typer.echo(
            f"{name} projects: {instructions.total() / requests:,.0f} instructions,"
            f" {calls.total() / requests:,.0f} calls, {1e6 * spent_s / requests:.0f} µs of CPU"
        )
    (plain, plain_calls, _), (projects, calls, _) = found
    typer.echo(f"added: {(projects.total() - plain.total()) / requests:,.0f} instructions")
    names = sorted(plain.keys() | projects.keys(), key=lambda code: plain[code] - projects[code])
    for code in names[:functions]:
        added = (projects[code] - plain[code]) / requests
        more = (calls[code] - plain_calls[code]) / requests
        path = code.co_filename.removeprefix(f"{PROJECT_ROOT}/")
        typer.echo(f"{added:8.1f} {more:6.2f}  {path} {code.co_qualname}")


def main(
    *,
    requests: Annotated[int, typer.Option(min=CLIENTS)] = 320,
    functions: Annotated[int, typer.Option(help="Functions to list.")] = 0,
) -> None:
    """Count both routers, and print what projects add to a request."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(requests, functions))


if __name__ == "__main__":
    typer.run(main)
