"""A trace in Mooncake's format as requests with a time of their own: equal ids give equal text."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, Workload, read_trace
from loadtests.texts import BYTES_PER_TOKEN, text
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Turn


@dataclass(frozen=True, slots=True)
class Replay:
    """The requests of a trace, sent when the trace says, whether or not answers come."""

    trace: Workload
    sizes: Sizes

    @classmethod
    def read(cls, path: Path, speed: float, sizes: Sizes) -> "Replay":
        """A file, `speed` times as fast; requests of one time are spread up to the next.

        Raises:
            ConfigError: it cannot be read; the message says where and why.
        """
        return cls(read_trace(path).spread().at_speed(speed), sizes)

    def timed(self) -> Iterator[tuple[float, Turn]]:
        """Seconds from the first request, and the request."""
        requests = self.trace.requests
        most_bytes = self.sizes.longest_prompt_tokens * BYTES_PER_TOKEN
        for number, request in enumerate(requests):
            scaled = _scaled(request, self.sizes)
            content = text(scaled, f"request {number}")[:most_bytes]
            wanted_tokens = self.sizes.scaled(request.output_tokens)
            turn = Turn(
                messages=(Message("user", content),),
                answer_tokens=min(wanted_tokens, self.sizes.longest_answer_tokens),
            )
            yield request.arrived_s - requests[0].arrived_s, turn


def _scaled(request: TraceRequest, sizes: Sizes) -> TraceRequest:
    """The same blocks, each shorter, so that prompts still share what they share."""
    block_tokens = sizes.scaled(BLOCK_TOKENS)
    prompt = msgspec.structs.replace(request.prompt, key_bytes=block_tokens * BYTES_PER_TOKEN)
    blocks, rest = divmod(request.prompt_tokens, BLOCK_TOKENS)
    prompt_tokens = blocks * block_tokens + rest * block_tokens // BLOCK_TOKENS
    return replace(request, prompt=prompt, prompt_tokens=prompt_tokens)
