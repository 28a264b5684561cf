"""Preparation of a batch: its input file is checked, and its lines are put in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass

from gateway.batch.input_check import BatchError, CheckedLine, InputCheck
from gateway.batch.input_lines import split_lines
from gateway.batch.line_order import order_key
from gateway.batch.line_plan import LinePlace, LineSorter
from gateway.config.batches import BatchesConfig
from gateway.kvcache.prefix import prompt_of

LINES_AT_A_TIME = 32
"""Lines that are checked before the event loop runs anything else: some milliseconds."""
MB = 2**20
MAX_COUNT = 2**32 - 1
"""Bytes of a prompt, and sequences, that a plan can tell."""

Refusal = Callable[[str], tuple[str, str] | None]
"""Says for a model why no line for it would be answered: a code and a message; None if it may."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of a batch once its input file has been read."""

    errors: list[BatchError]
    model: str = ""
    total: int = 0
    """Requests."""
    lines: int = 0
    """Number of the last line that has a request."""


class Preparation:
    """Reads one input file; close it once the plan has been written."""

    def __init__(self, endpoint: str, config: BatchesConfig, refusal: Refusal) -> None:
        self._endpoint = endpoint
        self._config = config
        self._refusal = refusal
        self._check = InputCheck(endpoint, config)
        self.sorter = LineSorter()
        self._last = 0

    async def read(self, parts: AsyncIterable[bytes]) -> Prepared:
        """Check all lines, and sort those that are valid."""
        async with contextlib.aclosing(split_lines(parts, self._max_line)) as lines:
            async for line in lines:
                if (checked := self._check.check(line)) is not None:
                    await self._add(checked)
                if self._check.is_over:
                    return Prepared(self._check.errors)
                if self._check.lines % LINES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
        self._check.finish()
        if not self._check.errors and (refusal := self._refusal(self._check.model)) is not None:
            code, message = refusal
            return Prepared([BatchError(code=code, message=message, param="body.model")])
        return Prepared(self._check.errors, self._check.model, self.sorter.lines, self._last)

    def close(self) -> None:
        """Delete temporary files."""
        self.sorter.close()

    @property
    def _max_line(self) -> int:
        return int(self._config.max_line_mb * MB)

    async def _add(self, checked: CheckedLine) -> None:
        prompt = prompt_of(checked.head, path=self._endpoint)
        line = checked.line
        place = LinePlace(
            *(line.number, line.offset, line.length, min(prompt.size, MAX_COUNT)),
            sequences=min(checked.head.sequences, MAX_COUNT),
        )
        self._last = line.number
        await self.sorter.add(order_key(prompt.keys), place)


def too_large(config: BatchesConfig) -> BatchError:
    """The error of a file that is larger than input files may be."""
    message = f"The file has more than {config.max_file_mb:g} MB."
    return BatchError(code="file_too_large", message=message)
