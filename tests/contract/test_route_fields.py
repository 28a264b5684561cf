"""The fields that prefix keys read of each route, against vLLM's request classes."""

import json

from gateway.kvcache.route_fields import ROUTE_FIELDS, TEXT_FIELDS
from gateway.request.head import OPTION_FIELDS, SEED_FIELDS
from tests.contract.with_vllm import run_script

SCRIPT = """
import json
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

classes = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/messages": AnthropicMessagesRequest,
    "/v1/responses": ResponsesRequest,
}
print("FIELDS" + json.dumps({path: list(each.model_fields) for path, each in classes.items()}))
"""
UNUSED = {"/v1/responses": {"prompt"}}
"""Fields that vLLM accepts and ignores."""


def test_routes_read_the_fields_that_vllm_reads() -> None:
    """Of all fields that make up prompts, each route has those of its request class."""
    ended = run_script(SCRIPT)
    line = next(line for line in ended.stdout.splitlines() if line.startswith("FIELDS"))
    known = {*TEXT_FIELDS, *SEED_FIELDS, *OPTION_FIELDS}

    found = {
        path: (known & {*names}) - UNUSED.get(path, set())
        for path, names in json.loads(line.removeprefix("FIELDS")).items()
    }

    assert found == ROUTE_FIELDS
