"""Paths of the inference routes, which all go through one handler."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.config.gateway import GatewayConfig
from gateway.config.route_paths import FORM_ROUTES, JSON_ROUTES
from gateway.request.head import PromptParts, RequestHead, parse_form, parse_json
from gateway.request.sequences import pair_count, prompt_count

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

INPUT_TOKENS = "/v1/responses/input_tokens"
COUNT_TOKENS = "/v1/messages/count_tokens"

PROMPT_ROUTES = frozenset(JSON_ROUTES) - {INPUT_TOKENS, COUNT_TOKENS, "/tokenize", "/detokenize"}
"""Routes whose prompt goes through the model, and so through its KV cache."""
CONVERSATION_ROUTES = frozenset({CHAT, "/v1/responses", "/v1/messages"})
"""Routes with one prompt for each request."""
PAIR_ROUTES = frozenset(
    {
        *("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/v2/embed"),
        "/generative_scoring",
    }
)
"""Routes that compare texts with others, each pair in a sequence of its own."""
ANSWER_ROUTES = frozenset({CHAT, COMPLETIONS})
"""Routes that give several answers to a prompt where a request has an `n`; others ignore it."""
TOKEN_LIMITS_OF: Mapping[str, Sequence[str]] = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    "/v1/messages": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
}
"""Fields in which a route takes the limit of an answer, the first choice first. Engines ignore the
others: by those, no client may look as if it asked for little."""
RESUMABLE_ROUTES = frozenset({CHAT, COMPLETIONS})
"""Routes whose streams may be resumed on another engine."""
STREAMED = RESUMABLE_ROUTES | {"/v1/messages", "/v1/responses", *FORM_ROUTES}
"""Routes that answer with a stream of events where they are asked to."""
MEDIA_ROUTES = frozenset(
    {
        *(CHAT, "/v1/responses", INPUT_TOKENS, "/v1/messages", COUNT_TOKENS, "/v2/embed"),
        *FORM_ROUTES,
    }
)
"""Routes whose bodies commonly hold images or audio; all others carry texts."""


def body_limit_mb(path: str, config: GatewayConfig) -> float:
    """Megabytes (2**20 bytes) that a body sent to `path` may have."""
    if path in MEDIA_ROUTES:
        return config.max_body_mb
    return min(config.max_text_body_mb, config.max_body_mb)


def parse_head(path: str, body: bytes, content_type: bytes) -> RequestHead:
    """The head of a body sent to `path`, which must be one of the routes above.

    It has a prompt only if that goes through the model.
    """
    if path in FORM_ROUTES:
        return parse_form(body, content_type)
    head = parse_json(body, TOKEN_LIMITS_OF.get(path, ()))
    if path in CONVERSATION_ROUTES and not head.sequences > 1:
        return head
    if path not in PROMPT_ROUTES:
        return msgspec.structs.replace(head, prompt=PromptParts(), sequences=1)
    count = pair_count(head.fields) if path in PAIR_ROUTES else prompt_count(head.fields)
    answers = head.sequences if path in ANSWER_ROUTES else 1
    if answers * count == head.sequences == 1:
        return head
    prompts_bytes = sum(map(len, head.fields.prompts.values())) if count > 1 else 0
    return msgspec.structs.replace(
        head, sequences=answers * count, prompts=count, prompts_bytes=prompts_bytes
    )
