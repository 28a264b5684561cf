"""Faults of a simulated engine: which of its requests fail, break off or hang."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import xxhash

from gateway.asgi import Message, Send
from gateway.config.sim import Simulation
from gateway.errors import GatewayError

SILENT_SHARE = 0.25
"""Of the answers that break off: those that do so before their first byte."""


class SimulatedFailure(GatewayError):
    """The failure of a request that `error_rate` chose."""

    code = "simulated_failure"


class Kind(Enum):
    """What may go wrong with a request."""

    ERROR = "error"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a request."""

    kind: Kind
    place: float
    """From 0 up to 1: where in the answer."""

    def messages(self, count: int) -> int:
        """How many of an answer's `count` messages are sent whole; the next one is not."""
        share = (self.place - SILENT_SHARE) / (1 - SILENT_SHARE)
        return 0 if share < 0 else 1 + int(share * (count - 1))


def fault_of(simulation: Simulation, replica: str, request_id: str) -> Fault | None:
    """What goes wrong with a request on a replica: always the same, and mostly nothing."""
    chance = xxhash.xxh3_64_intdigest(f"{replica} {request_id}".encode()) / 2**64
    rates = (
        (Kind.ERROR, simulation.error_rate),
        (Kind.RESET, simulation.reset_rate),
        (Kind.HANG, simulation.hang_rate),
    )
    for kind, rate in rates:
        if chance < rate:
            return Fault(kind, chance / rate)
        chance -= rate
    return None


class BreakingSend:
    """Sends `messages` of an answer and half of the next, breaks the connection off, and waits."""

    def __init__(self, send: Send, break_off: Callable[[], None], messages: int) -> None:
        self._send = send
        self._break_off = break_off
        self._messages = messages

    async def __call__(self, message: Message) -> None:
        """Send a message, or never return: whoever sends is cancelled with the connection."""
        self._messages -= 1
        if self._messages >= 0:
            await self._send(message)
            return
        if self._messages == -1:
            if body := message.get("body"):
                half = body[: len(body) // 2]
                await self._send({**message, "body": half, "more_body": True})
            self._break_off()
        await for_ever()


async def for_ever() -> NoReturn:
    """Wait until cancelled."""
    while True:
        await asyncio.get_running_loop().create_future()
