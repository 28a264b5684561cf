"""Trace replay: the requests of a Mooncake trace with their times.

Equal ids give equal text within a seed and nothing in common with another seed, so a second replay
finds nothing in the caches.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, Workload, read_trace
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.texts import BYTES_PER_TOKEN, prompt_text
from loadtests.workloads.turn import DialogueMessage, Turn


@dataclass(frozen=True, slots=True)
class Replay:
    """Requests of a trace."""

    trace: Workload
    sizes: Sizes
    seed: str

    @classmethod
    def read(cls, path: Path, speed: float, sizes: Sizes, seed: str) -> "Replay":
        """Read a file, `speed` times as fast; requests of one time are spread up to the next.

        Raises:
            ConfigError: it cannot be read.
        """
        return cls(read_trace(path).spread().at_speed(speed), sizes, seed)

    @property
    def count(self) -> int:
        """Number of requests."""
        return len(self.trace.requests)

    def timed(self) -> Iterator[tuple[float, Turn]]:
        """Seconds since the first request, and the request."""
        requests = self.trace.requests
        most_bytes = self.sizes.longest_prompt_tokens * BYTES_PER_TOKEN
        for number, request in enumerate(requests):
            content = prompt_text(self._scaled(request), f"request {number} of {self.seed}")[
                :most_bytes
            ]
            wanted_tokens = self.sizes.scaled(request.output_tokens)
            turn = Turn(
                messages=(DialogueMessage("user", content),),
                answer_tokens=min(wanted_tokens, self.sizes.longest_answer_tokens),
            )
            yield request.arrived_s - requests[0].arrived_s, turn

    def _scaled(self, request: TraceRequest) -> TraceRequest:
        """The request with this seed's blocks, scaled; prompts still share the same blocks."""
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
