"""Paths of the inference routes, and what each does."""

from collections.abc import Mapping

JSON_ROUTES: Mapping[str, str] = {
    "/v1/chat/completions": "Chat with a model",
    "/v1/completions": "Complete a text",
    "/v1/embeddings": "Embed texts",
    "/v1/responses": "Create a response (OpenAI's Responses API)",
    "/v1/responses/input_tokens": "Count a request's tokens (OpenAI's Responses API)",
    "/v1/messages": "Chat with a model (Anthropic's Messages API)",
    "/v1/messages/count_tokens": "Count a message's tokens (Anthropic's Messages API)",
    "/tokenize": "Turn a text into tokens",
    "/detokenize": "Turn tokens into a text",
    "/score": "Score pairs of texts",
    "/v1/score": "Score pairs of texts",
    "/rerank": "Rank documents for a query",
    "/v1/rerank": "Rank documents for a query",
    "/v2/rerank": "Rank documents for a query",
    "/v2/embed": "Embed texts (Cohere's API)",
    "/generative_scoring": "Score texts by the likelihood of an answer about them",
    "/pooling": "Pool hidden states",
    "/classify": "Classify texts",
}
"""Routes with a JSON body, and what each does."""
FORM_ROUTES: Mapping[str, str] = {
    "/v1/audio/transcriptions": "Write down speech",
    "/v1/audio/translations": "Write down speech in English",
}
"""Routes with a multipart body, and what each does."""
ROUTES = frozenset(JSON_ROUTES) | frozenset(FORM_ROUTES)
