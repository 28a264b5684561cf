"""Requests that would harm a real vLLM engine: refused by name, and nobody else notices."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
USER = [{"role": "user", "content": "Who are you?"}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NOBODY = "http://127.0.0.1:9/x"
SLOW = {
    "type": "object",
    "properties": {
        f"f{i}": {"type": "string", "pattern": f"^[^{chr(97 + i % 26)}]{{0,{4000 + i}}}$"}
        for i in range(300)
    },
}

PATIENCE_S = 120
"""A grammar is tried at the lowest priority: on few cores, that of this test takes a minute."""


def ask(gateway: GatewayProcess, path: str, **fields: object) -> tuple[int, Any]:
    """Status and answer of a request to the demo model."""
    body = {"model": "demo", "max_tokens": 4, **fields}
    if path == RESPONSES:
        body.pop("max_tokens")
    return gateway.request("POST", path, body, timeout_s=PATIENCE_S)


def chat(gateway: GatewayProcess, **fields: object) -> tuple[int, Any]:
    """Status and answer of a chat completion."""
    return ask(gateway, CHAT, **{"messages": USER, **fields})


@pytest.mark.parametrize(
    "spec",
    [
        {"json": {"$ref": "#"}},
        {"json": {"oneOf": [{"enum": []}]}},
        {"json": {"type": "string", "minLength": -1}},
        {"json": {"type": "string", "pattern": r"\p{L}"}},
        {"regex": r"\p{L}"},
        {"regex": "(?P<name>a)"},
        {"grammar": 'root ::= a b\na ::= ""\nb ::= root'},
        {"grammar": 'root ::= s\ns ::= "a" s s | ""'},
        {"structural_tag": '{"type": "structural_tag"}'},
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_grammars_that_cannot_be_used_are_the_client_s_error(
    gateway: GatewayProcess, spec: dict[str, object], is_stream: bool
) -> None:
    """Streamed or not; vLLM answers 500 to some, and becomes slower and slower at others."""
    status, answer = chat(gateway, structured_outputs=spec, stream=is_stream)
    assert status == 400
    assert "structured_outputs" in str(answer)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (RESPONSES, {"input": [{"type": "message", "role": "assistant", "content": [{}]}]}),
        (TEXT, {"prompt": "a", "structured_outputs": []}),
        (
            CHAT,
            {
                "messages": USER,
                "tools": [{}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        (CHAT, {"messages": USER, "n": 5000}),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": PIXEL}}],
                    }
                ]
            },
        ),
    ],
)
def test_shapes_that_vllm_does_not_expect_are_the_client_s_error(
    gateway: GatewayProcess, path: str, fields: dict[str, object]
) -> None:
    """None of them is tried again elsewhere."""
    status, answer = ask(gateway, path, **fields)
    assert status == 400, answer


@pytest.mark.parametrize("url", [NOBODY, "file:///etc/passwd", PIXEL])
@pytest.mark.parametrize("part", ["image_url", "audio_url", "video_url"])
def test_a_text_model_loads_no_media(gateway: GatewayProcess, part: str, url: str) -> None:
    """Not even for embeddings, which vLLM fetches before it refuses them."""
    messages = [{"role": "user", "content": [{"type": part, part: {"url": url}}]}]
    for path, model in (("/v1/embeddings", "demo-embed"), (CHAT, "demo")):
        body = {"model": model, "messages": messages}
        status, answer = gateway.request("POST", path, body)
        assert status == 400
        assert answer["error"]["param"] == part
        assert "text only" in answer["error"]["message"]


def test_a_grammar_that_takes_long_holds_nobody_up(gateway: GatewayProcess) -> None:
    """Plain requests and plain schemas are answered while it is tried, until it is refused."""
    plain = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(chat, gateway, structured_outputs={"json": SLOW})
        answered = 0
        while not slow.done():
            assert chat(gateway)[0] == 200
            assert chat(gateway, response_format=plain)[0] == 200
            answered += 1
        status, answer = slow.result()
    assert answered > 1
    assert status == 400
    assert "more than 20 s" in answer["error"]["message"]


def test_a_large_prompt_holds_nobody_up(gateway: GatewayProcess) -> None:
    """Others are tokenized and answered meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(ask, gateway, "/tokenize", prompt="\N{GRINNING FACE}" * 80_000)
        answered = 0
        while not large.done():
            assert chat(gateway)[0] == 200
            answered += 1
        status, _ = large.result()
    assert answered > 1
    assert status == 200
