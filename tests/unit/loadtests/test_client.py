"""The load generator's client: outcomes, connections, strict rejections, arrival processes."""

import asyncio
import itertools
import json
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.errors.limits import Overloaded
from gateway.errors.request import InvalidRequest
from loadtests.loadgen.client import CHAT_PATH, Client, chat_body, rejection_flaw
from loadtests.loadgen.loops import closed_loop, open_loop, poisson_arrivals
from loadtests.loadgen.outcome import RequestOutcome, Status

TOKEN = b'data: {"choices": [{"delta": {"content": "Fair"}}]}\n\n'
END = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, '
    b'"prompt_tokens_details": {"cached_tokens": 4}}}\n\ndata: [DONE]\n\n'
)
REJECTION = Overloaded("The model `m` is overloaded: 3 requests are waiting.", 1).body()


class FakeServer:
    """Answers all requests alike once `together` of them are here; -1: never."""

    def __init__(
        self, status: int = 200, body: bytes = TOKEN + END, header: str = "", together: int = 0
    ) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self._head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{header}\r\n".encode()
        self._body = body
        self._together = together
        self._all_here = asyncio.Event()
        self._ended: asyncio.Queue[None] = asyncio.Queue()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for _ in range(self.connections):  # their clients have closed them
                await self._ended.get()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                if self._together < 0:
                    continue
                if len(self.bodies) >= self._together:
                    self._all_here.set()
                await self._all_here.wait()
                writer.write(self._head + self._body)
        writer.close()
        self._ended.put_nowait(None)


async def chat(
    server: FakeServer, *, is_strict: bool = False, timeout_s: float = 30
) -> RequestOutcome:
    """One chat with it."""
    async with (
        server.listening() as port,
        Client("127.0.0.1", port, timeout_s=timeout_s, is_strict=is_strict) as client,
    ):
        outcome, _ = await client.chat(client.encoded(CHAT_PATH, chat_body("m", "Hi", 3)))
    return outcome


async def test_an_answer_is_measured() -> None:
    """Times are in their order, tokens are the usage's, the request id is the header's."""
    outcome = await chat(FakeServer(header="x-request-id: r1\r\n"))

    assert (outcome.status, outcome.http_status, outcome.reason) == (Status.ANSWERED, 200, "")
    assert outcome.request_id == "r1"
    assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens) == (9, 4, 3)
    assert outcome.ttft_s is not None
    assert 0 < outcome.ttft_s <= outcome.e2e_s
    assert outcome.tokens_per_s == pytest.approx(3 / outcome.e2e_s)


@pytest.mark.parametrize(
    ("status", "body", "expected", "reason"),
    [
        (200, TOKEN, Status.FAILED, "the stream ended without [DONE]"),
        (200, b'data: {"error":{"message":"gone"}}\n\n', Status.FAILED, "error event: gone"),
        (503, b"no engine", Status.FAILED, "503 no engine"),
        (429, b"full", Status.REJECTED, "429 full"),
    ],
)
async def test_anything_but_a_whole_answer_has_a_reason(
    status: int, body: bytes, expected: Status, reason: str
) -> None:
    """A rejection is told from a failure by its status."""
    outcome = await chat(FakeServer(status, body))

    assert (outcome.status, outcome.http_status, outcome.reason) == (expected, status, reason)


async def test_a_request_without_a_response_has_failed() -> None:
    """Be it that nothing comes in time, or that nobody listens."""
    late = await chat(FakeServer(together=-1), timeout_s=0.05)
    server = FakeServer()
    async with server.listening() as port:
        pass
    async with Client("127.0.0.1", port, timeout_s=5) as client:
        refused, _ = await client.chat(client.encoded(CHAT_PATH, {}))

    assert (late.status, late.http_status, late.reason) == (Status.FAILED, 0, "TimeoutError")
    assert refused.status is Status.FAILED
    assert refused.reason.startswith("ConnectionRefusedError")


async def test_a_strict_client_wants_rejections_with_a_reason() -> None:
    """Others take any 429 for a rejection."""
    helpful = FakeServer(429, REJECTION, "retry-after: 2\r\n")
    assert (await chat(helpful, is_strict=True)).status is Status.REJECTED
    assert (await chat(FakeServer(429, REJECTION), is_strict=True)).status is Status.FAILED


@pytest.mark.parametrize(
    ("retry_after", "body", "flaw"),
    [
        ("2", REJECTION, ""),
        (None, REJECTION, "retry-after None"),
        ("0", REJECTION, "retry-after 0"),
        ("soon", REJECTION, "retry-after soon"),
        ("2", json.dumps({"error": "busy"}).encode(), "429: "),
        ("2", Overloaded("No.", 1).body(), "without a reason: No."),
        ("2", InvalidRequest("It may wait.").body(), "without a reason"),
    ],
)
def test_flaws_of_rejections_are_named(retry_after: str | None, body: bytes, flaw: str) -> None:
    """A good one says why, and when to come again."""
    found = rejection_flaw(retry_after, body)

    assert flaw in found
    assert bool(found) == bool(flaw)


async def test_an_open_loop_sends_at_its_times_and_reuses_connections() -> None:
    """The second is sent though the first has no answer yet; the third finds a connection."""
    server = FakeServer(together=2)
    async with (
        server.listening() as port,
        Client("127.0.0.1", port, timeout_s=30, headers={"x-a": "b"}) as client,
    ):

        async def send(number: int, due_s: float) -> RequestOutcome:
            outcome, _ = await client.chat(client.encoded(CHAT_PATH, number), due_s)
            return outcome

        outcomes = await open_loop([0.0, 0.01, 0.5], send, time.monotonic())

    assert [outcome.is_answered for outcome in outcomes] == [True] * 3
    assert server.bodies == [b"0", b"1", b"2"]
    assert server.connections == 2
    assert b"\r\nx-a: b\r\n" in server.heads[0]
    assert outcomes[2].due_s - outcomes[0].due_s == pytest.approx(0.5)


async def test_times_count_from_when_a_request_was_due() -> None:
    """A client that sends late makes nothing look faster."""
    async with FakeServer().listening() as port, Client("127.0.0.1", port, timeout_s=90) as client:
        request = client.encoded(CHAT_PATH, {})
        outcome, _ = await client.chat(request, time.monotonic() - 60)

    assert outcome.ttft_s is not None
    assert 60 <= outcome.late_s < outcome.ttft_s <= outcome.e2e_s


async def test_a_closed_loop_keeps_as_many_requests_in_flight() -> None:
    """Until it is over; then it waits for the last answers."""
    in_flight: list[int] = [0]
    seen: list[int] = []

    async def send() -> RequestOutcome:
        in_flight[0] += 1
        seen.append(in_flight[0])
        await asyncio.sleep(0)
        in_flight[0] -= 1
        return RequestOutcome(due_s=0, status=Status.ANSWERED)

    outcomes = await closed_loop(3, send, lambda: len(seen) >= 9)

    assert max(seen) == 3
    assert len(outcomes) == len(seen) >= 9
    assert in_flight == [0]


def test_poisson_arrivals_come_at_the_rate() -> None:
    """In order, and the gaps between them are exponential."""
    times = poisson_arrivals(50, 100, random.Random(1))  # noqa: S311 - load, not secrets
    gaps = sorted(after - before for before, after in itertools.pairwise(times))

    assert times == sorted(times)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert gaps[len(gaps) // 2] == pytest.approx(math.log(2) / 50, rel=0.1)
