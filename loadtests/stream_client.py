"""A load generator for streamed chat completions, cheap enough not to be what it measures.

`python -m loadtests.stream_client 127.0.0.1 8000 < job.json` runs one job in a process of its own
and prints a `Result` as JSON. Each client keeps one HTTP/1.1 connection and sends its next request
when the last answer is complete; httptools parses, and nothing is created per chunk.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import cast

import httptools
import msgspec
import uvloop

EVENT = b"data: "
LAST_EVENT = b"data: [DONE]\n\n"

GRACE_S = 30
"""Longer than any request in flight takes when the time is over."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and until when: the first of the two limits that is reached ends it."""

    model: str
    clients: int
    chunks: int
    max_s: float
    max_requests: int

    @property
    def timeout_s(self) -> float:
        """How long the whole of it may take."""
        return self.max_s + GRACE_S


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    requests: int
    events: int
    elapsed_s: float
    cpu_s: float
    """Of the client itself."""
    ttft_s: list[float]
    """Per request, from its first byte sent to the first byte of the answer's body."""


class BrokenAnswer(Exception):
    """Something other than the whole stream came back."""


class Client(asyncio.Protocol):
    """One connection that sends a request again and again."""

    def __init__(self, request: bytes, may_send: Callable[[], bool]) -> None:
        self._request = request
        self._may_send = may_send
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._parts: list[bytes] = []
        self._sent_s = 0.0
        self._outcome: str | None = "no whole answer"
        """What went wrong, until we end in order."""
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests = 0
        self.events = 0
        self.ttft_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Parse; httptools calls `on_body` and `on_message_complete`."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, in order only if everything was answered."""
        if self._outcome is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(BrokenAnswer(f"{self._outcome}, then {exc or 'closed'}"))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the answer."""
        if not self._parts:
            self.ttft_s.append(time.perf_counter() - self._sent_s)
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Check the answer and send the next request."""
        answer = b"".join(self._parts)
        status = self._parser.get_status_code()
        if status != 200 or not answer.endswith(LAST_EVENT):
            self._end(f"status {status}: {answer[:500]!r}")
            return
        self.requests += 1
        self.events += answer.count(EVENT)
        self._send()

    def _send(self) -> None:
        if not self._may_send():
            self._end(None)
            return
        self._parts.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def _end(self, outcome: str | None) -> None:
        self._outcome = outcome
        self._transport.close()


async def run(host: str, port: int, job: Job) -> Result:
    """Send until one of the limits is reached.

    Raises:
        BrokenAnswer: an answer was not the whole stream.
        OSError: the server could not be reached.
        TimeoutError: an answer did not come to its end.
    """
    loop = asyncio.get_running_loop()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    remaining = job.max_requests

    def may_send() -> bool:
        nonlocal remaining
        remaining -= 1
        return remaining >= 0 and time.perf_counter() - start_s < job.max_s

    request = _request(host, port, job)
    async with asyncio.timeout(job.timeout_s):
        clients = [
            (await loop.create_connection(lambda: Client(request, may_send), host, port))[1]
            for _ in range(job.clients)
        ]
        outcomes = await asyncio.gather(
            *(client.finished for client in clients), return_exceptions=True
        )
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
    return Result(
        requests=sum(client.requests for client in clients),
        events=sum(client.events for client in clients),
        elapsed_s=time.perf_counter() - start_s,
        cpu_s=time.process_time() - start_cpu_s,
        ttft_s=[ttft_s for client in clients for ttft_s in client.ttft_s],
    )


def _request(host: str, port: int, job: Job) -> bytes:
    body = msgspec.json.encode(
        {
            "model": job.model,
            "messages": [{"role": "user", "content": "Say something about bridges."}],
            "stream": True,
            "max_tokens": job.chunks,
        }
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Run the job on standard input against the host and port in the arguments."""
    host, port = sys.argv[1], int(sys.argv[2])
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(host, port, job))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
