"""The paths of inference, which all go through one handler."""

from collections.abc import Mapping

from gateway.request.head import RequestHead, parse_form, parse_json

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

JSON_ROUTES: Mapping[str, str] = {
    "/v1/chat/completions": "Chat with a model",
    "/v1/completions": "Complete a text",
    "/v1/embeddings": "Embed texts",
    "/v1/responses": "Create a response (OpenAI's Responses API)",
    "/v1/messages": "Chat with a model (Anthropic's Messages API)",
    "/v1/messages/count_tokens": "Count a message's tokens (Anthropic's Messages API)",
    "/tokenize": "Turn a text into tokens",
    "/detokenize": "Turn tokens into a text",
    "/score": "Score pairs of texts",
    "/v1/score": "Score pairs of texts",
    "/rerank": "Rank documents for a query",
    "/v1/rerank": "Rank documents for a query",
    "/v2/rerank": "Rank documents for a query",
    "/pooling": "Pool hidden states",
    "/classify": "Classify texts",
}
"""Path to what it does, for routes with a JSON body."""
FORM_ROUTES: Mapping[str, str] = {
    "/v1/audio/transcriptions": "Write down speech",
    "/v1/audio/translations": "Write down speech in English",
}
"""Path to what it does, for routes with a multipart body."""
PROMPT_ROUTES = frozenset(JSON_ROUTES) - {"/v1/messages/count_tokens", "/tokenize", "/detokenize"}
"""Those whose prompt goes through the model, and so through its KV cache."""
JOURNALED = frozenset({CHAT, COMPLETIONS})
"""Those whose streams may be carried on by another engine."""
STREAMED = JOURNALED | {"/v1/messages", "/v1/responses"}
"""Those that answer with a stream of events where they are asked to."""
ROUTES = frozenset(JSON_ROUTES) | frozenset(FORM_ROUTES)


def parse_head(path: str, body: bytes, content_type: bytes) -> RequestHead:
    """The head of a body sent to `path`, which must be one of the routes above."""
    if path in FORM_ROUTES:
        return parse_form(body, content_type)
    return parse_json(body)
