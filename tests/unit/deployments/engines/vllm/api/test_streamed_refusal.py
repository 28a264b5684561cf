"""Events with a client's error, at the beginning of a stream."""

import pytest

from deployments.engines.vllm.api.streamed_refusal import refusal

REFUSED = b'{"error": {"message": "no", "type": "BadRequestError", "code": 400}}'
ANTHROPIC = b'{"type":"error","error":{"type":"BadRequestError","message":"no"}}'


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b"data: " + REFUSED + b"\n\n", (400, REFUSED)),
        (b"event: error\ndata: " + ANTHROPIC + b"\n\n", (400, ANTHROPIC)),
        (b'data: {"error": {"message": "no", "code": 500}}\n\n', None),
        (b'data: {"error": {"message": "no"}}\n\n', None),
        (b'data: {"error": "no"}\n\n', None),
        (b'data: {"error": null, "id": "a"}\n\n', None),
        (b'data: {"content": "\\"error\\""}\n\n', None),
        (b"data: [DONE]\n\n", None),
        (b": comment\n\n", None),
        (b"", None),
    ],
)
def test_only_client_errors_are_refusals(chunk: bytes, expected: object) -> None:
    """An error of the engine's own is for the router to see."""
    assert refusal(chunk) == expected
