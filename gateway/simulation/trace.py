"""Reads workloads in Mooncake's trace format: one JSON object per line, plain or gzipped.

Fields: `timestamp` (milliseconds), `input_length`, `output_length` (tokens) and `hash_ids`, an id
for each block of 512 prompt tokens; the last block may be partly filled. Two prompts share their
first n blocks exactly if their first n ids are equal; prefix keys are chained from the ids, too.
"""

import gzip
import itertools
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.errors.startup import ConfigError
from gateway.kvcache.prefix import TOKEN_ID_BYTES, Prompt

BLOCK_TOKENS = 512
"""Prompt tokens per id of a trace."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a workload: arrival time, prompt and length of the answer."""

    arrived_s: float
    prompt: Prompt
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival, at least one."""

    name: str
    requests: Sequence[TraceRequest]

    def at_speed(self, speed: float) -> "Workload":
        """Return the same requests, arriving `speed` times as fast."""
        requests = [replace(r, arrived_s=r.arrived_s / speed) for r in self.requests]
        return Workload(self.name, requests)

    def spread(self) -> "Workload":
        """Return the requests with those of equal time spread evenly up to the next time.

        This is for traces with coarse clocks. Requests of the last time are not moved.
        """
        groups = itertools.groupby(self.requests, attrgetter("arrived_s"))
        batches = [(time_s, list(batch)) for time_s, batch in groups]
        ends_s = [time_s for time_s, _ in batches[1:]] + [batches[-1][0]]
        requests = [
            replace(request, arrived_s=time_s + (end_s - time_s) * position / len(batch))
            for (time_s, batch), end_s in zip(batches, ends_s, strict=True)
            for position, request in enumerate(batch)
        ]
        return Workload(self.name, requests)


class _TraceRow(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: Annotated[int, msgspec.Meta(ge=1)]
    hash_ids: list[int]


_row_decoder = msgspec.json.Decoder(_TraceRow)


def read_trace(path: Path, limit: int | None = None) -> Workload:
    """Read the requests of a trace file, at most `limit` if that is given.

    Raises:
        ConfigError: the file cannot be read; the message says where and why.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
            requests = [
                _request(path, number, line) for number, line in itertools.islice(lines, limit)
            ]
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not requests:
        raise ConfigError(f"{path}: the file has no requests")
    requests.sort(key=attrgetter("arrived_s"))
    return Workload(path.name.removesuffix(".gz").removesuffix(".jsonl"), requests)


def trace_request(
    arrived_s: float, prompt_tokens: int, output_tokens: int, block_ids: Iterable[int]
) -> TraceRequest:
    """Make a request from the ids of its prompt's blocks; a partly filled block gets no key."""
    full_blocks = itertools.islice(block_ids, prompt_tokens // BLOCK_TOKENS)
    prompt = Prompt(
        keys=array("Q", _chained_keys(full_blocks)),
        size=prompt_tokens * TOKEN_ID_BYTES,
        is_token_ids=True,
        key_bytes=BLOCK_TOKENS * TOKEN_ID_BYTES,
    )
    return TraceRequest(arrived_s, prompt, prompt_tokens, output_tokens)


def _chained_keys(block_ids: Iterable[int]) -> Iterator[int]:
    key = 0
    for block_id in block_ids:
        key = xxh3_64_intdigest(block_id.to_bytes(8, "little", signed=True), key)
        yield key


def _request(path: Path, number: int, line: bytes) -> TraceRequest:
    try:
        row = _parse_row(line)
        return trace_request(
            row.timestamp / 1000, row.input_length, row.output_length, row.hash_ids
        )
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path}:{number}: {error}") from None


def _parse_row(line: bytes) -> _TraceRow:
    row = _row_decoder.decode(line)
    whole, rest = divmod(row.input_length, BLOCK_TOKENS)
    if not whole <= len(row.hash_ids) <= whole + bool(rest):
        raise ValueError(
            f"an input_length of {row.input_length} needs {whole + bool(rest)} hash_ids "
            f"(one for each {BLOCK_TOKENS} tokens), found {len(row.hash_ids)}"
        )
    return row
