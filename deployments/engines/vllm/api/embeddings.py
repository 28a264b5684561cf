"""`/v1/embeddings` as OpenAI answers it."""

from typing import Any, Self, TypeAlias

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import model_validator
from vllm.entrypoints.pooling.embed.protocol import (
    EmbeddingBatchChatInputRequest,
    EmbeddingBatchChatRequest,
    EmbeddingChatInputRequest,
    EmbeddingChatRequest,
    EmbeddingCompletionRequest,
)
from vllm.entrypoints.pooling.embed.serving import ServingEmbedding
from vllm.entrypoints.pooling.utils import get_pooling_output_encoder, get_pooling_usage
from vllm.utils.async_utils import make_async

from deployments.engines.vllm.api.embeddings_check import check_dimensions, check_embeddings
from deployments.engines.vllm.api.endpoint import post
from deployments.engines.vllm.api.own_serving import own
from deployments.engines.vllm.api.usage import usage_object

router = APIRouter()


class OpenAIEmbeddingRequest(EmbeddingCompletionRequest):
    """OpenAI's request for embeddings of texts or tokens."""

    @model_validator(mode="before")
    @classmethod
    def adopt(cls, body: Any) -> Any:  # noqa: ANN401 - JSON
        """Check the body."""
        if isinstance(body, dict):
            check_embeddings(body)
        return body


EmbeddingRequest: TypeAlias = (
    OpenAIEmbeddingRequest
    | EmbeddingBatchChatRequest
    | EmbeddingChatRequest
    | EmbeddingBatchChatInputRequest
    | EmbeddingChatInputRequest
)
"""All that vLLM embeds: also conversations."""


class EmbeddingServing(ServingEmbedding):
    """vLLM's serving of embeddings, with OpenAI's object."""

    @classmethod
    def of(cls, vllms: ServingEmbedding) -> Self:
        """The serving that answers in vLLM's place."""
        serving = own(cls, vllms)
        serving.rebind()
        return serving

    def rebind(self) -> None:
        """Answer by methods of this class; vLLM has bound those of its own when it was made."""
        self._postprocessing_async = make_async(self._postprocessing, executor=self._executor)

    def _openai_json_response(
        self,
        final_res_batch: list[Any],
        request_id: str,
        created_time: int,
        model_name: str,
        *encoding: Any,  # noqa: ANN401 - vLLM's: format, type and order of bytes
        **named: Any,  # noqa: ANN401 - vLLM's
    ) -> Response:
        encode = get_pooling_output_encoder(
            **dict(zip(("encoding_format", "embed_dtype", "endianness"), encoding, strict=False)),
            **named,
        )
        data = [
            {"object": "embedding", "index": place, "embedding": encode(result)}
            for place, result in enumerate(final_res_batch)
        ]
        usage = usage_object(get_pooling_usage(final_res_batch), is_completion=False)
        content = {"object": "list", "data": data, "model": model_name, "usage": usage}
        response: Response = self.json_response_cls(content=content)
        return response


@post(router, "/v1/embeddings")
async def create_embedding(request: EmbeddingRequest, raw_request: Request) -> Response:
    """Answer with embeddings."""
    serving = EmbeddingServing.of(raw_request.app.state.serving_embedding)
    config = serving.model_config
    if request.dimensions == config.embedding_size:
        request.dimensions = None  # vLLM refuses it for models that have no other
    elif request.dimensions is not None:
        check_dimensions(
            request.dimensions,
            config.embedding_size,
            config.matryoshka_dimensions,
            is_reducible=config.is_matryoshka,
        )
    answer: Response = await serving(request, raw_request)
    return answer
