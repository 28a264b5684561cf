"""Clients that send whether or not answers come, and what each of their requests came to."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from gateway.simulation.scores import percentile
from loadtests.launch import HOST, MODEL, ROUTE

TIMEOUT_S = 60
"""Longer than any request waits and is answered."""
WORD = "lorem "
PROMPT_BYTES = 400
OUTPUT_TOKENS = (32, 96)
"""The fewest and the most: answers of one length would end together, and free no slots between."""
PAUSE_S = 1.0
"""What a client that sends one request after the other does after a rejection."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends; those of one name send the same requests at the same times."""

    name: str
    has_key: bool = True
    """Its API key is its name; without one it goes by its address."""
    address: str = HOST
    is_batch: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What it sends with every request."""
        key = {"authorization": f"Bearer {self.name}"} if self.has_key else {}
        return key | ({"x-gateway-priority": "batch"} if self.is_batch else {})


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request; all times are seconds."""

    sent_s: float
    """By the clock."""
    status: int = 0
    """0 where no answer came."""
    request_id: str = ""
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    flaw: str = ""
    """What is wrong with the answer, be it a rejection, if anything is."""


class Sender:
    """Sends one client's requests over as many connections as they need."""

    def __init__(self, client: Client, http: aiohttp.ClientSession, rng: random.Random) -> None:
        self._client = client
        self._http = http
        self._rng = rng

    @classmethod
    @asynccontextmanager
    async def open(cls, client: Client, port: int, seed: int) -> AsyncIterator["Sender"]:
        """A sender whose connections are closed in the end."""
        connector = aiohttp.TCPConnector(limit=0, local_addr=(client.address, 0))
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        rng = random.Random(f"{seed} {client.name}")  # noqa: S311 - load, not secrets
        url = f"http://{HOST}:{port}"
        async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as http:
            yield cls(client, http, rng)

    async def at_random(self, rate: float, seconds: float) -> list[Outcome]:
        """Send `rate` requests a second on average (Poisson), and wait for their answers."""
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for at_s in arrivals(rate, seconds, self._rng):
                await asyncio.sleep(start_s + at_s - time.monotonic())
                tasks.append(group.create_task(self.send()))
            await asyncio.sleep(start_s + seconds - time.monotonic())
        return [task.result() for task in tasks]

    async def in_turn(self, senders: int, is_over: Callable[[], bool]) -> list[Outcome]:
        """Keep as many requests going until `is_over`, and wait for the last answers."""
        found: list[Outcome] = []

        async def send_on() -> None:
            while not is_over():
                outcome = await self.send()
                found.append(outcome)
                if outcome.status != 200:
                    await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(send_on() for _ in range(senders)))
        return found

    async def send(self) -> Outcome:
        """One request, and all of its answer."""
        sent_s = time.monotonic()
        text = (f"{self._rng.random()} " + WORD * PROMPT_BYTES)[:PROMPT_BYTES]
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._rng.randint(*OUTPUT_TOKENS),
            "stream": True,
        }
        try:
            async with self._http.post(ROUTE, json=body, headers=self._client.headers) as response:
                first = await response.content.readany()
                ttft_s = time.monotonic() - sent_s
                content = first + await response.content.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Outcome(sent_s=sent_s, flaw=f"{type(error).__name__}: {error}")
        return Outcome(
            sent_s=sent_s,
            status=response.status,
            request_id=response.headers.get("x-request-id", ""),
            ttft_s=ttft_s,
            e2e_s=time.monotonic() - sent_s,
            flaw=flaw_of(response.status, response.headers.get("retry-after"), content),
        )


def arrivals(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Seconds from the start at which requests come, independently of each other."""
    found, at_s = [], rng.expovariate(rate)
    while at_s < seconds:
        found.append(at_s)
        at_s += rng.expovariate(rate)
    return found


def flaw_of(status: int, retry_after: str | None, content: bytes) -> str:
    """What is wrong with an answer: a stream that is not whole, a rejection that is no help."""
    if status == 200:
        is_whole = content.endswith(b"data: [DONE]\n\n") and b'"error"' not in content
        return "" if is_whole else f"ends with {content[-60:]!r}"
    if status != 429:
        return f"status {status}"
    if retry_after is None or not retry_after.isdecimal() or int(retry_after) < 1:
        return f"retry-after {retry_after}"
    try:
        error = msgspec.json.decode(content, type=_Rejection).error
    except msgspec.DecodeError as malformed:
        return f"429: {malformed}"
    is_told = error.code == "overloaded" and " wait" in error.message
    return "" if is_told else f"429 without a reason: {error.message}"


class _Error(msgspec.Struct):
    message: str
    code: str
    type: str
    param: str | None


class _Rejection(msgspec.Struct):
    error: _Error


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of these finite ones lie, interpolated; NaN of none."""
    ordered = sorted(values)
    return percentile(ordered, share) if ordered else float("nan")


def answered(outcomes: Iterable[Outcome]) -> Collection[Outcome]:
    """Those that were answered in full."""
    return [o for o in outcomes if o.status == 200 and not o.flaw]
