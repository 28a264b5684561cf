"""Faults of a simulated engine: requests that fail, break off or hang."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import xxhash

from gateway.asgi import Message, Send
from gateway.config.sim import Simulation
from gateway.errors.gateway_error import GatewayError

EARLY_RESET_SHARE = 0.25
"""Share of the resets that come before the first byte of the response."""


class SimulatedFailure(GatewayError):
    """Failure that the entry of a simulated engine asks for."""

    code = "simulated_failure"


class FaultKind(Enum):
    """Kind of a fault."""

    ERROR = "error"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """Fault of one request."""

    kind: FaultKind
    position: float
    """Position in the response, from 0 up to 1."""

    def whole_messages(self, count: int) -> int:
        """How many of a response's `count` messages are sent whole; the next one is not."""
        share = (self.position - EARLY_RESET_SHARE) / (1 - EARLY_RESET_SHARE)
        return 0 if share < 0 else 1 + int(share * (count - 1))


def fault_for(simulation: Simulation, replica: str, request_id: str) -> InjectedFault | None:
    """Fault of a request on a replica, always the same; None for most requests."""
    chance = xxhash.xxh3_64_intdigest(f"{replica} {request_id}".encode()) / 2**64
    rates = (
        (FaultKind.ERROR, simulation.error_rate),
        (FaultKind.RESET, simulation.reset_rate),
        (FaultKind.HANG, simulation.hang_rate),
    )
    for kind, rate in rates:
        if chance < rate:
            return InjectedFault(kind, chance / rate)
        chance -= rate
    return None


def apply_faulty_text(simulation: Simulation, body: bytes) -> None:
    """Fail or halt, where the request has a text that the entry names.

    Raises:
        SimulatedFailure: the body has the entry's `error_text`.
    """
    if simulation.halt_text and simulation.halt_text.encode() in body:
        time.sleep(simulation.halt_s)  # noqa: TID251 - nothing else is to run meanwhile
    if simulation.error_text and simulation.error_text.encode() in body:
        raise SimulatedFailure("This request failed because of its `error_text` (simulated).")


class TruncatedSend:
    """ASGI's `send`, which resets the connection after `messages` whole messages and half a one."""

    def __init__(self, send: Send, reset: Callable[[], None], messages: int) -> None:
        self._send = send
        self._reset = reset
        self._messages = messages

    async def __call__(self, message: Message) -> None:
        """Send a message, or never return: the sender is cancelled with the connection."""
        self._messages -= 1
        if self._messages >= 0:
            await self._send(message)
            return
        if self._messages == -1:
            if body := message.get("body"):
                half = body[: len(body) // 2]
                await self._send({**message, "body": half, "more_body": True})
            self._reset()
        await wait_forever()


async def wait_forever() -> NoReturn:
    """Wait until cancelled."""
    while True:
        await asyncio.get_running_loop().create_future()
