"""The routing comparison's client: sends each request at its time, whether or not answers come.

`python -m loadtests.comparison.routing.client 127.0.0.1 8000 < job` plays one `Job`, in msgpack, in
a process of its own and prints a `Play`. The requests are written before the first one is sent.
"""

import asyncio
import gc
import sys
import time

import msgspec
import psutil
import uvloop

from gateway.simulation.scores import percentile
from loadtests.comparison.routing.connection import Connection, Reply
from loadtests.launch import ROUTE

START_S = 0.2
"""From when all is written until the first request could be sent."""


class Ask(msgspec.Struct, frozen=True):
    """One request: when, what, and how long an answer."""

    at_s: float
    prompt: str
    max_tokens: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send."""

    model: str
    asks: list[Ask]
    patience_s: float
    """How long a client waits for the whole of its answer."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request; seconds from when it was due."""

    at_s: float
    status: int = 0
    """0 where no answer came, or none to its end."""
    flaw: str = ""
    """What is wrong with it."""
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """All outcomes, in the order of the requests, and what playing cost."""

    outcomes: list[Outcome]
    late_s: float
    """The 99th percentile of how late requests were sent: the client's own fault."""
    cpus: float
    """CPUs that the client kept busy."""
    busy_share: float
    """Of all the machine's CPUs, taken by whatever ran while requests were sent."""


class Client:
    """Sends over as many connections as are needed at the same time."""

    def __init__(self, host: str, port: int, job: Job) -> None:
        self._host, self._port = host, port
        self._job = job
        self._idle: list[Connection] = []
        self._late_s: list[float] = []

    async def play(self) -> Play:
        """Send everything and wait for the last answer."""
        requests = [self._written(ask) for ask in self._job.asks]
        before_s, start_s = time.process_time(), time.monotonic() + START_S
        psutil.cpu_percent()  # from here on; waiting for the last answers would make it less
        async with asyncio.TaskGroup() as group:
            tasks = []
            for ask, request in zip(self._job.asks, requests, strict=True):
                await asyncio.sleep(start_s + ask.at_s - time.monotonic())
                tasks.append(group.create_task(self._send(ask, request, start_s + ask.at_s)))
            busy_share = psutil.cpu_percent() / 100
        elapsed_s = time.monotonic() - start_s
        cpu_s = time.process_time() - before_s
        for connection in self._idle:
            connection.close()
        late = sorted(self._late_s)
        return Play(
            outcomes=[task.result() for task in tasks],
            late_s=percentile(late, 0.99),
            cpus=cpu_s / elapsed_s,
            busy_share=busy_share,
        )

    async def _send(self, ask: Ask, request: bytes, due_s: float) -> Outcome:
        connection = None
        try:
            async with asyncio.timeout(due_s + self._job.patience_s - time.monotonic()):
                connection = await self._connection()
                self._late_s.append(time.monotonic() - due_s)
                reply = await connection.ask(request)
        except (OSError, TimeoutError) as error:
            if connection:
                connection.close()
            return Outcome(at_s=ask.at_s, flaw=type(error).__name__)
        if connection.is_open:
            self._idle.append(connection)
        return outcome(ask, reply, due_s)

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return await Connection.to(self._host, self._port)

    def _written(self, ask: Ask) -> bytes:
        body = msgspec.json.encode(
            {
                "model": self._job.model,
                "messages": [{"role": "user", "content": ask.prompt}],
                "max_tokens": ask.max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = (
            f"POST {ROUTE} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class _Cached(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Cached = msgspec.field(default_factory=_Cached)


class _Chunk(msgspec.Struct):
    usage: _Usage


def outcome(ask: Ask, reply: Reply, due_s: float) -> Outcome:
    """What a reply comes to: an answer counts if all that was asked for is there."""
    if reply.status != 200:
        flaw = reply.body[:200].decode(errors="replace")
        return Outcome(at_s=ask.at_s, status=reply.status, flaw=flaw)
    *_, chunk, last = (b"", *reply.body.rsplit(b"data: ", 2)[-2:])
    try:
        usage = msgspec.json.decode(chunk, type=_Chunk).usage
    except msgspec.MsgspecError:
        usage = _Usage(0, 0)
    is_whole = last == b"[DONE]\n\n" and usage.completion_tokens == ask.max_tokens
    return Outcome(
        at_s=ask.at_s,
        status=200 if is_whole else 0,
        flaw="" if is_whole else f"ends with {reply.body[-200:]!r}",
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.prompt_tokens_details.cached_tokens,
        output_tokens=usage.completion_tokens,
        ttft_s=reply.first_s - due_s,
        e2e_s=reply.end_s - due_s,
    )


def main() -> None:
    """Play the job on standard input against the host and port in the arguments."""
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    gc.disable()
    client = Client(sys.argv[1], int(sys.argv[2]), job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        play = runner.run(client.play())
    sys.stdout.buffer.write(msgspec.msgpack.encode(play))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
