"""A trace in Mooncake's format as requests with a time of their own.

Equal ids give equal text within a seed, and no text in common with another seed's: whoever sends a
trace again does not find it in the caches.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, Workload, read_trace
from loadtests.texts import BYTES_PER_TOKEN, text
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Turn


@dataclass(frozen=True, slots=True)
class Replay:
    """The requests of a trace, sent when the trace says, whether or not answers come."""

    trace: Workload
    sizes: Sizes
    seed: str

    @classmethod
    def read(cls, path: Path, speed: float, sizes: Sizes, seed: str) -> "Replay":
        """A file, `speed` times as fast; requests of one time are spread up to the next.

        Raises:
            ConfigError: it cannot be read; the message says where and why.
        """
        return cls(read_trace(path).spread().at_speed(speed), sizes, seed)

    @property
    def count(self) -> int:
        """How many requests there are."""
        return len(self.trace.requests)

    def timed(self) -> Iterator[tuple[float, Turn]]:
        """Seconds from the first request, and the request."""
        requests = self.trace.requests
        most_bytes = self.sizes.longest_prompt_tokens * BYTES_PER_TOKEN
        for number, request in enumerate(requests):
            content = text(self._own(request), f"request {number} of {self.seed}")[:most_bytes]
            wanted_tokens = self.sizes.scaled(request.output_tokens)
            turn = Turn(
                messages=(Message("user", content),),
                answer_tokens=min(wanted_tokens, self.sizes.longest_answer_tokens),
            )
            yield request.arrived_s - requests[0].arrived_s, turn

    def _own(self, request: TraceRequest) -> TraceRequest:
        """The same blocks, each shorter and of this seed: prompts still share what they share."""
        block_tokens = self.sizes.scaled(BLOCK_TOKENS)
        salt = xxh3_64_intdigest(self.seed.encode())
        prompt = msgspec.structs.replace(
            request.prompt,
            keys=array("Q", (key ^ salt for key in request.prompt.keys)),
            key_bytes=block_tokens * BYTES_PER_TOKEN,
        )
        blocks, rest = divmod(request.prompt_tokens, BLOCK_TOKENS)
        prompt_tokens = blocks * block_tokens + rest * block_tokens // BLOCK_TOKENS
        return replace(request, prompt=prompt, prompt_tokens=prompt_tokens)
