"""Workloads in Mooncake's trace format: one JSON object a line, plain or gzipped.

`timestamp` (milliseconds), `input_length`, `output_length` (tokens) and `hash_ids`: an id for each
block of 512 prompt tokens, the last of which may be only partly filled. Two prompts share their
first n blocks exactly when their first n ids are equal; keys are chained from the ids accordingly.
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

from gateway.errors import ConfigError
from gateway.kvcache.prefix import TOKEN_ID_BYTES, Prompt

BLOCK_TOKENS = 512
"""Prompt tokens that an id of the trace stands for."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request: when it comes, what its prompt shares with others', how long its answer is."""

    arrived_s: float
    prompt: Prompt
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests, at least one, in the order of their arrival."""

    name: str
    requests: Sequence[TraceRequest]

    def at_speed(self, speed: float) -> "Workload":
        """The same requests, arriving `speed` times as fast."""
        requests = [replace(r, arrived_s=r.arrived_s / speed) for r in self.requests]
        return Workload(self.name, requests)

    def spread(self) -> "Workload":
        """Requests of one time spread evenly up to the next time: for traces with coarse clocks.

        Those of the last time stay where they are.
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


class _Line(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: Annotated[int, msgspec.Meta(ge=1)]
    hash_ids: list[int]


_lines = msgspec.json.Decoder(_Line)


def read_trace(path: Path, limit: int | None = None) -> Workload:
    """The requests on the first `limit` lines of a trace's file, on all without one.

    Raises:
        ConfigError: it cannot be read; the message says where and why.
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
        raise ConfigError(f"{path}: there are no requests in it")
    requests.sort(key=attrgetter("arrived_s"))
    return Workload(path.name.removesuffix(".gz").removesuffix(".jsonl"), requests)


def trace_request(
    arrived_s: float, prompt_tokens: int, output_tokens: int, ids: Iterable[int]
) -> TraceRequest:
    """A request whose prompt's blocks have these ids; a last block that is not full has no key."""
    whole = itertools.islice(ids, prompt_tokens // BLOCK_TOKENS)
    prompt = Prompt(
        keys=array("Q", _chain(whole)),
        size=prompt_tokens * TOKEN_ID_BYTES,
        is_token_ids=True,
        key_bytes=BLOCK_TOKENS * TOKEN_ID_BYTES,
    )
    return TraceRequest(arrived_s, prompt, prompt_tokens, output_tokens)


def _chain(ids: Iterable[int]) -> Iterator[int]:
    key = 0
    for id_ in ids:
        key = xxh3_64_intdigest(id_.to_bytes(8, "little", signed=True), key)
        yield key


def _request(path: Path, number: int, line: bytes) -> TraceRequest:
    try:
        read = _read(line)
        return trace_request(
            read.timestamp / 1000, read.input_length, read.output_length, read.hash_ids
        )
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path}:{number}: {error}") from None


def _read(line: bytes) -> _Line:
    read = _lines.decode(line)
    whole, rest = divmod(read.input_length, BLOCK_TOKENS)
    if not whole <= len(read.hash_ids) <= whole + bool(rest):
        raise ValueError(
            f"an input_length of {read.input_length} takes {whole + bool(rest)} hash_ids "
            f"(one for each {BLOCK_TOKENS} tokens), found {len(read.hash_ids)}"
        )
    return read
