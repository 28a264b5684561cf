"""Signs of life in silent streams: what clients of each API take as one, and nothing else."""

import json

import pytest

from gateway.serving.signs_of_life import COMMENT, MAX_RESPONSE, PING, signs_of_life

RESPONSES = "/v1/responses"
RESPONSE = {"id": "resp_1", "status": "in_progress", "instructions": 'a "sequence_number": 7\n'}


def event(kind: str, number: int, **more: object) -> bytes:
    """An event as vLLM sends it."""
    data = json.dumps({**more, "sequence_number": number, "type": kind})
    return f"event: {kind}\ndata: {data}\n\n".encode()


CREATED = event("response.created", 0, response=RESPONSE)
STARTED = event("response.in_progress", 1, response=RESPONSE)
DELTA = event("response.output_text.delta", 5, delta='"sequence_number": 9')


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_completions_get_comments(path: str) -> None:
    """Their streams have no event that says nothing."""
    signs = signs_of_life(path)
    signs.observe(b"data: {}\n\n")
    assert signs.after(COMMENT) == COMMENT


def test_messages_get_pings() -> None:
    """Anthropic's own event, also before the engine has sent any."""
    signs = signs_of_life("/v1/messages")
    assert signs.after(COMMENT) == COMMENT + PING
    kind, data = PING.decode().strip().split("\n")
    assert kind == "event: ping"
    assert json.loads(data.removeprefix("data: ")) == {"type": "ping"}


@pytest.mark.parametrize("parts", [[CREATED + STARTED, DELTA], [CREATED, STARTED + DELTA]])
def test_responses_get_what_they_began_with(parts: list[bytes]) -> None:
    """The response as the engine began it, under the number of the engine's last event."""
    signs = signs_of_life(RESPONSES)
    for part in parts:
        signs.observe(part)
    sign = signs.after(COMMENT)
    assert sign.startswith(COMMENT)
    kind, data = sign.removeprefix(COMMENT).decode().removesuffix("\n\n").split("\n")
    assert kind == "event: response.in_progress"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "response.in_progress",
        "sequence_number": 5,
        "response": RESPONSE,
    }


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"data: no JSON\n\n"],
        [event("response.created", 0, response={"instructions": "x" * MAX_RESPONSE})],
        [CREATED, b"of a long event that was sent in parts\n\n"],
        [DELTA, DELTA, DELTA, DELTA, CREATED],
    ],
    ids=["nothing", "no JSON", "a large response", "no whole event", "no response at first"],
)
def test_responses_get_comments_where_there_is_nothing_to_repeat(parts: list[bytes]) -> None:
    """An event before `response.created` would break OpenAI's SDK; a made-up one, others."""
    signs = signs_of_life(RESPONSES)
    for part in parts:
        signs.observe(part)
    assert signs.after(COMMENT) == COMMENT


def test_responses_fail_with_the_response_that_began() -> None:
    """The event of an error comes first, and carries the number before."""
    signs = signs_of_life(RESPONSES)
    signs.observe(CREATED + STARTED)
    error = event("error", 6, code="server_error", message="It broke.", param=None)
    ending = signs.failed(error, "It broke.")
    assert ending.startswith(error)
    kind, data = ending.removeprefix(error).decode().removesuffix("\n\n").split("\n")
    assert kind == "event: response.failed"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "response.failed",
        "sequence_number": 7,
        "response": RESPONSE
        | {"status": "failed", "error": {"code": "server_error", "message": "It broke."}},
    }


@pytest.mark.parametrize("path", [RESPONSES, "/v1/messages", "/v1/chat/completions"])
def test_streams_without_a_response_fail_with_the_error_alone(path: str) -> None:
    """Of other APIs, or broken before `response.created`."""
    error = event("error", 0, code="server_error", message="It broke.", param=None)
    assert signs_of_life(path).failed(error, "It broke.") == error
