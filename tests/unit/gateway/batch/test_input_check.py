"""The check of an input file names each mistake, with its line and field."""

import json
from collections.abc import Iterable

import pytest

from gateway.batch.input_check import MAX_ERRORS, InputCheck
from gateway.batch.input_lines import split_lines
from gateway.config.batches import BatchesConfig
from tests.unit.batches import CHAT, jsonl, once, request_line


async def _check(
    data: bytes, config: BatchesConfig | None = None, endpoint: str = CHAT
) -> InputCheck:
    config = config or BatchesConfig()
    check = InputCheck(endpoint, config)
    async for line in split_lines(once(data), int(config.max_line_mb * 2**20)):
        check.check(line)
        if check.is_over:
            return check
    check.finish()
    return check


def _without(name: str) -> dict[str, object]:
    return {key: value for key, value in request_line(2).items() if key != name}


WRONG = [
    (b"{", "invalid_json_line", None),
    (b"[1]", "invalid_request", None),
    (b"\xff\xfe", "invalid_json_line", None),
    (json.dumps({**request_line(2), "custom_id": 7}).encode(), "invalid_request", None),
    (json.dumps({**request_line(2), "custom_id": ""}).encode(), "invalid_custom_id", "custom_id"),
    (json.dumps(request_line(1)).encode(), "duplicate_custom_id", "custom_id"),
    (json.dumps({**request_line(2), "method": "GET"}).encode(), "invalid_method", "method"),
    (json.dumps({**request_line(2), "url": "/v1/x"}).encode(), "mismatched_url", "url"),
    (json.dumps(request_line(2, model="n")).encode(), "mismatched_model", "body.model"),
    (json.dumps(request_line(2, stream=True)).encode(), "invalid_request", "body.stream"),
    (json.dumps({**request_line(2), "body": {}}).encode(), "missing_required_parameter", None),
    (json.dumps({**request_line(2), "body": [1]}).encode(), "invalid_json", "body"),
    *(
        (json.dumps(_without(name)).encode(), "missing_required_parameter", name)
        for name in ("custom_id", "method", "url", "body")
    ),
]


@pytest.mark.parametrize(("line", "code", "param"), WRONG)
async def test_a_mistake_in_a_line_is_named(line: bytes, code: str, param: str | None) -> None:
    """The code says what it is; number and field say where."""
    check = await _check(jsonl([request_line(1)]) + line + b"\n" + jsonl([request_line(3)]))

    (error,) = check.errors
    assert error.line == 2
    assert error.message
    if code != "missing_required_parameter" or param:
        assert (error.code, error.param) == (code, param)
    else:
        assert error.param == "body.model"


async def test_a_valid_file_has_no_errors() -> None:
    """Its model is known then."""
    check = await _check(jsonl(map(request_line, range(20))))

    assert check.errors == []
    assert (check.lines, check.model) == (20, "m")


async def test_an_empty_file_is_an_error() -> None:
    """It has nothing to run."""
    check = await _check(b"\n\n")

    assert [(error.code, error.line) for error in check.errors] == [("empty_file", None)]


async def test_a_file_with_too_many_lines_is_an_error() -> None:
    """The rest of it is not read."""
    check = await _check(jsonl(map(request_line, range(9))), BatchesConfig(max_lines=5))

    assert [error.code for error in check.errors] == ["too_many_tasks"]
    assert check.is_over


async def test_only_so_many_errors_are_listed() -> None:
    """A file of another kind would have one in each line."""
    check = await _check(b"x\n" * 1000)

    assert len(check.errors) == MAX_ERRORS


async def test_texts_to_embed_are_counted() -> None:
    """All lines together may have as many as a file may have lines."""

    def lines(count: int) -> Iterable[object]:
        for number in range(10):
            body = {"model": "m", "input": ["text"] * count}
            yield {"custom_id": str(number), "method": "POST", "url": url, "body": body}

    url = "/v1/embeddings"
    fits = await _check(jsonl(lines(5000)), endpoint=url)
    exceeds = await _check(jsonl(lines(5001)), endpoint=url)

    assert fits.errors == []
    assert [error.code for error in exceeds.errors] == ["too_many_inputs"]


async def test_messages_do_not_grow_with_what_they_quote() -> None:
    """A hundred of them are kept in one row."""
    check = await _check(jsonl([request_line(1, model="m" * 5000), request_line(2)]))

    (error,) = check.errors
    assert error.code == "mismatched_model"
    assert len(error.message) < 500
