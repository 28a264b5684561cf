"""Sender of short chats for one identity, at random times or in turn."""

import random
import time
from collections.abc import Callable
from typing import Self

import msgspec

from loadtests.launch import HOST, MODEL
from loadtests.loadgen.client import CHAT_PATH, Client, chat_body
from loadtests.loadgen.loops import closed_loop, open_loop, poisson_arrivals
from loadtests.loadgen.outcome import RequestOutcome

TIMEOUT_S = 60
"""More than any request takes, its wait included."""
WORD = "lorem "
PROMPT_BYTES = 400
OUTPUT_TOKENS = (32, 96)
"""Range: answers of one length would end together, and free no slots in between."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a client; the same name sends the same requests at the same times."""

    name: str
    has_key: bool = True
    """Its API key is its name; without a key, the gateway identifies it by its address."""
    address: str = HOST
    is_batch: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        key = {"authorization": f"Bearer {self.name}"} if self.has_key else {}
        return key | ({"x-gateway-priority": "batch"} if self.is_batch else {})


class Sender:
    """Sends requests over as many connections as they need, to a gateway on this machine."""

    def __init__(self, identity: Identity, port: int, seed: int, model: str = MODEL) -> None:
        self._model = model
        self._rng = random.Random(f"{seed} {identity.name}")  # noqa: S311 - load, not secrets
        self._client = Client(
            HOST,
            port,
            timeout_s=TIMEOUT_S,
            headers=identity.headers,
            local_address=identity.address,
            is_strict=True,
        )

    async def __aenter__(self) -> Self:
        """Return itself; connections are opened as needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    async def send_at_random(self, rate: float, seconds: float) -> list[RequestOutcome]:
        """Send `rate` requests a second on average (Poisson), and wait for all answers."""
        times_s = poisson_arrivals(rate, seconds, self._rng)
        return await open_loop(times_s, lambda _, due_s: self.send(due_s), time.monotonic())

    async def send_in_turn(
        self, concurrency: int, is_over: Callable[[], bool]
    ) -> list[RequestOutcome]:
        """Keep `concurrency` requests in flight until `is_over`, and wait for all answers."""
        return await closed_loop(concurrency, self.send, is_over)

    async def send(self, due_s: float | None = None) -> RequestOutcome:
        """Send a request."""
        prompt = (f"{self._rng.random()} " + WORD * PROMPT_BYTES)[:PROMPT_BYTES]
        body = chat_body(self._model, prompt, self._rng.randint(*OUTPUT_TOKENS))
        outcome, _ = await self._client.chat(self._client.encoded(CHAT_PATH, body), due_s)
        return outcome
