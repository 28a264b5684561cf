"""Stretches of workloads for the routing comparison, made to fit a small machine.

Time runs `SPEED` times as fast, and one token stands for `TOKENS` of the workload's: as many
requests run side by side as would in the workload, with as much in the caches, but they take an
eighth of the time, and their streams have a sixteenth of the events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import msgspec

from gateway.errors import ConfigError
from gateway.simulation.trace import TraceRequest, Workload, read_trace
from gateway.simulation.workloads import REQUESTS, generated
from loadtests.texts import BYTES_PER_TOKEN

SPEED = 8
TOKENS = 16
SKIPPED_S = 20.0
"""By the clock, of the beginning: agents' sessions have to become as many as they are later on."""
TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Stretches:
    """A workload as it is sent, to be taken piece by piece; its times are the clock's."""

    name: str
    requests: Sequence[TraceRequest]

    @classmethod
    def generated(cls, name: str, until_s: float) -> "Stretches":
        """One of the generated workloads, long enough for requests until then."""
        count = REQUESTS
        while (made := generated(name, count)).requests[-1].arrived_s < until_s * SPEED:
            count *= 2
        return cls(name, _sent_until(made, until_s))

    @classmethod
    def of_trace(cls, path: Path, speed: float, until_s: float) -> "Stretches":
        """A trace at a speed, which must be long enough.

        Raises:
            ConfigError: it cannot be read, or ends before.
        """
        workload = read_trace(path).spread().at_speed(speed)
        last_s = workload.requests[-1].arrived_s / SPEED
        if last_s < until_s:
            raise ConfigError(
                f"{path}: {speed * SPEED:g} times as fast it lasts {last_s:.0f} s, and "
                f"{until_s:.0f} s are needed: ask for fewer rounds or seconds"
            )
        return cls(f"{TRACE} {speed:g}x", _sent_until(workload, until_s))

    def stretch(self, number: int, seconds: float) -> list[TraceRequest]:
        """The requests of one of the pieces of so many seconds, from its beginning."""
        start_s = SKIPPED_S + number * seconds
        return [
            replace(request, arrived_s=request.arrived_s - start_s)
            for request in self.requests
            if start_s <= request.arrived_s < start_s + seconds
        ]


def end_s(stretches: int, seconds: float) -> float:
    """When the last of several pieces ends."""
    return SKIPPED_S + stretches * seconds


def as_sent(request: TraceRequest) -> TraceRequest:
    """A request in fewer tokens and in faster time."""
    tokens = max(1, request.prompt_tokens // TOKENS)
    prompt = msgspec.structs.replace(
        request.prompt, size=tokens * BYTES_PER_TOKEN, key_bytes=request.prompt.key_bytes // TOKENS
    )
    return TraceRequest(
        arrived_s=request.arrived_s / SPEED,
        prompt=prompt,
        prompt_tokens=tokens,
        output_tokens=max(1, round(request.output_tokens / TOKENS)),
    )


def renamed(requests: Iterable[TraceRequest], salt: int) -> list[TraceRequest]:
    """The same requests over other content, of which no cache can have anything."""
    return [
        replace(
            request,
            prompt=msgspec.structs.replace(
                request.prompt, keys=[key ^ salt for key in request.prompt.keys]
            ),
        )
        for request in requests
    ]


def _sent_until(workload: Workload, until_s: float) -> list[TraceRequest]:
    every = map(as_sent, workload.requests)
    return list(takewhile(lambda request: request.arrived_s < until_s, every))
