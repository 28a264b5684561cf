"""Workloads of the routing comparison, scaled to a small machine and cut into slices.

Time runs `TIME_SCALE` times as fast, and one token stands for `TOKEN_SCALE` of the workload's: as
many requests are in flight as in the workload, with as much in the caches, but they take an eighth
of the time, and their streams have a sixteenth of the events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import msgspec

from gateway.errors.startup import ConfigError
from gateway.simulation.trace import TraceRequest, Workload, read_trace
from gateway.simulation.workloads import DEFAULT_REQUESTS, generate_workload
from loadtests.workloads.texts import BYTES_PER_TOKEN

TIME_SCALE = 8
TOKEN_SCALE = 16
SKIPPED_S = 20.0
"""Seconds of the clock that are skipped: at first there are fewer sessions of agents."""
TRACE = "trace"


@dataclass(frozen=True, slots=True)
class SlicedWorkload:
    """A scaled workload; its times are the clock's."""

    name: str
    requests: Sequence[TraceRequest]

    @classmethod
    def generated(cls, name: str, until_s: float) -> "SlicedWorkload":
        """A generated workload that lasts until then."""
        count = DEFAULT_REQUESTS
        while (made := generate_workload(name, count)).requests[
            -1
        ].arrived_s < until_s * TIME_SCALE:
            count *= 2
        return cls(name, _scaled_until(made, until_s))

    @classmethod
    def of_trace(cls, path: Path, speed: float, until_s: float) -> "SlicedWorkload":
        """A trace at a speed.

        Raises:
            ConfigError: it cannot be read, or is too short.
        """
        workload = read_trace(path).spread().at_speed(speed)
        last_s = workload.requests[-1].arrived_s / TIME_SCALE
        if last_s < until_s:
            raise ConfigError(
                f"{path}: {speed * TIME_SCALE:g} times as fast it lasts {last_s:.0f} s, and "
                f"{until_s:.0f} s are needed: ask for fewer rounds or seconds"
            )
        return cls(f"{TRACE} {speed:g}x", _scaled_until(workload, until_s))

    def slice(self, number: int, seconds: float) -> list[TraceRequest]:
        """The requests of a slice, with times from its beginning."""
        start_s = SKIPPED_S + number * seconds
        return [
            replace(request, arrived_s=request.arrived_s - start_s)
            for request in self.requests
            if start_s <= request.arrived_s < start_s + seconds
        ]


def end_s(slices: int, seconds: float) -> float:
    """The end of the last of several slices."""
    return SKIPPED_S + slices * seconds


def scaled(request: TraceRequest) -> TraceRequest:
    """A request in fewer tokens and in faster time."""
    tokens = max(1, request.prompt_tokens // TOKEN_SCALE)
    prompt = msgspec.structs.replace(
        request.prompt,
        size=tokens * BYTES_PER_TOKEN,
        key_bytes=request.prompt.key_bytes // TOKEN_SCALE,
    )
    return TraceRequest(
        arrived_s=request.arrived_s / TIME_SCALE,
        prompt=prompt,
        prompt_tokens=tokens,
        output_tokens=max(1, round(request.output_tokens / TOKEN_SCALE)),
    )


def salted(requests: Iterable[TraceRequest], salt: int) -> list[TraceRequest]:
    """These requests with other content, which is in no cache."""
    return [
        replace(
            request,
            prompt=msgspec.structs.replace(
                request.prompt, keys=[key ^ salt for key in request.prompt.keys]
            ),
        )
        for request in requests
    ]


def _scaled_until(workload: Workload, until_s: float) -> list[TraceRequest]:
    requests = map(scaled, workload.requests)
    return list(takewhile(lambda request: request.arrived_s < until_s, requests))
