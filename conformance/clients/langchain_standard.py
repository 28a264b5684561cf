"""LangChain's own standard tests of a chat model and of an embedding model, run by pytest."""

import os
from typing import Any

from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL = os.environ["CONFORMANCE_URL"]
MODEL, EMBEDDING_MODEL = os.environ["CONFORMANCE_MODEL"], os.environ["CONFORMANCE_EMBEDDING_MODEL"]
ANSWER_TOKENS = 256


class TestChat(ChatModelIntegrationTests):
    """Chat completions."""

    uses_responses = False

    @property
    def chat_model_class(self) -> Any:
        """The class that LangChain's tests make."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        """What it is made with."""
        return {
            "model": MODEL,
            "base_url": f"{URL}/v1",
            "api_key": "any",
            "max_retries": 0,
            "timeout": 60,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,  # so that each run has the same results
            "stream_usage": True,
            "use_responses_api": self.uses_responses,
            "rate_limiter": InMemoryRateLimiter(requests_per_second=50),
        }

    @property
    def supports_json_mode(self) -> bool:
        """`response_format: json_object`."""
        return True


class TestResponses(TestChat):
    """The Responses API."""

    uses_responses = True


class TestEmbeddings(EmbeddingsIntegrationTests):
    """Embeddings."""

    @property
    def embeddings_class(self) -> Any:
        """The class that LangChain's tests make."""
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, object]:
        """What it is made with: texts, as its tokens are those of OpenAI's models."""
        return {
            "model": EMBEDDING_MODEL,
            "base_url": f"{URL}/v1",
            "api_key": "any",
            "check_embedding_ctx_length": False,
        }
