"""When a simulated engine's tokens are ready: slots, one prefill at a time, then a clock."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


class Core(Protocol):
    """Decides when the tokens of a sequence are ready."""

    def tokens(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Run one sequence; yields how many tokens became ready, until all `output_tokens` did.

        Closing the generator aborts the sequence and frees what it holds.
        """


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a simulation sees it, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class InstantCore:
    """Everything is ready at once: what is left to measure is the machinery around it."""

    async def tokens(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Yield once; never waits."""
        yield output_tokens


class PacedCore:
    """Sequences take turns for a slot and for the prefill, first come first served.

    The first token is ready when the prefill ends, each further one `decode_step_s` later. Steps
    count from the first token, so that being woken late delays one token and not all after it.
    """

    def __init__(
        self, max_sequences: int, prefill_tokens_per_s: float, decode_step_s: float, clock: Clock
    ) -> None:
        self._slots = asyncio.Semaphore(max_sequences)
        self._prefill = asyncio.Lock()
        self._prefill_tokens_per_s = prefill_tokens_per_s
        self._decode_step_s = decode_step_s
        self._clock = clock

    async def tokens(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Wait for a slot, read the prompt, then yield token by token."""
        async with self._slots:
            async with self._prefill:
                await self._clock.sleep(prompt_tokens / self._prefill_tokens_per_s)
            start, ready = self._clock.now(), 1
            yield 1
            while ready < output_tokens:
                elapsed = self._clock.now() - start
                await self._clock.sleep(ready * self._decode_step_s - elapsed)
                # A sleep may end a hair early or many steps late.
                steps = (self._clock.now() - start) / self._decode_step_s
                due = min(output_tokens, max(ready, int(steps)) + 1)
                yield due - ready
                ready = due
