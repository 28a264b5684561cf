"""Reading workloads in Mooncake's trace format."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.startup import ConfigError
from gateway.simulation.trace import BLOCK_TOKENS, Workload, read_trace, trace_request

GOOD = {"timestamp": 1500, "input_length": 1030, "output_length": 7, "hash_ids": [4, 5, 6]}


def write(path: Path, *lines: object) -> Path:
    """Write a file of these lines; values other than strings become JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def test_a_line_becomes_a_request(tmp_path: Path) -> None:
    """Times become seconds, and the partly filled block gets no key."""
    workload = read_trace(write(tmp_path / "chat.jsonl", GOOD))

    (request,) = workload.requests
    assert workload.name == "chat"
    assert (request.arrived_s, request.prompt_tokens, request.output_tokens) == (1.5, 1030, 7)
    assert len(request.prompt.keys) == 2
    assert request.prompt.size == 4 * 1030
    assert request.prompt.key_bytes == 4 * BLOCK_TOKENS
    assert request.prompt.is_token_ids


def test_gzip_blank_lines_unknown_fields_and_disorder_are_read(tmp_path: Path) -> None:
    """Requests are sorted by time, whatever else the file contains."""
    path = tmp_path / "chat.jsonl.gz"
    early = GOOD | {"timestamp": 0, "note": "x"}
    path.write_bytes(gzip.compress(f"{json.dumps(GOOD)}\n\n{json.dumps(early)}\n".encode()))

    workload = read_trace(path)

    assert workload.name == "chat"
    assert [request.arrived_s for request in workload.requests] == [0, 1.5]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    """Later lines are not even parsed."""
    path = write(tmp_path / "t.jsonl", GOOD, GOOD, "broken")
    assert len(read_trace(path, limit=2).requests) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ({"timestamp": 1, "input_length": 5, "output_length": 1}, "hash_ids"),
        (GOOD | {"input_length": 0}, "input_length"),
        (GOOD | {"output_length": "x"}, "output_length"),
        (GOOD | {"timestamp": -1}, "timestamp"),
        (GOOD | {"hash_ids": [4]}, "needs 3 hash_ids (one for each 512 tokens), found 1"),
        (GOOD | {"hash_ids": [1, 2, 3, 4]}, "found 4"),
        (GOOD | {"hash_ids": [2**63, 2, 3]}, "too big"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    """The error names the file, the line and the problem."""
    path = write(tmp_path / "t.jsonl", GOOD, line)
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert message in caught.value.message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """They are missing, empty, of the wrong type or truncated."""
    half = tmp_path / "half.jsonl.gz"
    half.write_bytes(gzip.compress(json.dumps(GOOD).encode())[:-9])
    for path, message in (
        (tmp_path / "missing.jsonl", "No such file"),
        (write(tmp_path / "empty.jsonl"), "no requests"),
        (write(tmp_path / "text.jsonl.gz", GOOD), "Not a gzipped file"),
        (half, "ended before"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_trace(path)
        assert caught.value.message.startswith(f"{path}: ")
        assert message in caught.value.message


ids = st.lists(st.integers(-1, 3), max_size=6)


@given(ids, ids)
def test_prompts_share_keys_exactly_as_far_as_ids(first: list[int], second: list[int]) -> None:
    """The first n keys are equal if, and only if, the first n ids are."""
    keys = [
        list(trace_request(0, len(ids) * BLOCK_TOKENS, 1, ids).prompt.keys)
        for ids in (first, second)
    ]
    for n in range(1, min(len(first), len(second)) + 1):
        assert (keys[0][n - 1] == keys[1][n - 1]) == (first[:n] == second[:n])


def workload(*times_s: float) -> Workload:
    """Make a workload of requests at these times."""
    return Workload("w", [trace_request(time_s, 1, 1, []) for time_s in times_s])


def test_speed_divides_arrival_times() -> None:
    """At twice the speed, requests arrive in half the time."""
    assert [r.arrived_s for r in workload(0, 3, 8).at_speed(2).requests] == [0, 1.5, 4]


def test_spreading_fills_the_gaps_of_a_coarse_clock() -> None:
    """Requests with one time are spread evenly up to the next; the last ones stay."""
    spread = workload(0, 0, 0, 3, 3, 4, 4).spread()
    assert [r.arrived_s for r in spread.requests] == [0, 1, 2, 3, 3.5, 4, 4]
