"""Simulated engine for Ray Serve LLM, instant or with a time per token.

Ray's replicas read its class from the environment (`RAYLLM_VLLM_ENGINE_CLS`), as in its tests;
everything else, from Ray's ingress to its `LLMServer`, is what `build_openai_app` deploys.
"""

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Protocol

from fastapi import FastAPI
from ray.llm._internal.serve.core.engine.protocol import LLMEngine  # Ray 2.60: no public name

from deployments.engines.sim.engine import SimulatedEngine
from deployments.engines.sim.responses import ChatFormatter, ResponseEncoder
from deployments.engines.sim.words import words
from gateway.config.sim import SimEntry, Simulation
from loadtests.peers.ray_llm import PACE
from loadtests.targets import engine_speed

SEED = 7


class Config(Protocol):
    """The part of Ray's `LLMConfig` that is used here."""

    model_id: str


class ChatRequestFields(Protocol):
    """The part of a chat request that is used here."""

    max_tokens: int


class SimulatedLLMEngine(LLMEngine):
    """Streams of as many words as were asked for."""

    def __init__(self, llm_config: Config) -> None:
        self._model = llm_config.model_id
        self._token_ms = float(os.environ[PACE])

    async def start(self) -> None:
        """Do nothing: it is ready."""

    def routing_stats(self) -> dict[str, object]:
        """Return nothing: it holds no prefixes."""
        return {}

    async def resolve_lora(self, lora_model: object) -> None:
        """Do nothing: it has no adapters."""

    async def reset_prefix_cache(self) -> None:
        """Do nothing: it has no cache."""

    async def chat(
        self, request: ChatRequestFields, raw_request_info: object = None
    ) -> AsyncGenerator[str, None]:
        """One chunk for every word, and three around them."""
        reply = ResponseEncoder(
            formatter=ChatFormatter(),
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self._model,
            include_usage=False,
        )
        before, after = reply.piece(0)
        began_s = time.monotonic()
        yield reply.opening(0).decode()
        for number, word in enumerate(itertools.islice(words(SEED), request.max_tokens), start=1):
            if self._token_ms:  # a late token does not delay the next ones
                due_s = began_s + number * self._token_ms / 1000
                await asyncio.sleep(due_s - time.monotonic())
            yield (before + word.encode() + after).decode()
        yield reply.ending(0, "length").decode()
        yield "data: [DONE]\n\n"

    async def completions(self, request: object, raw_request_info: object = None) -> None:
        """Not supported: not compared."""
        raise NotImplementedError

    embeddings = transcriptions = completions

    async def build_asgi_app(self) -> FastAPI:
        """The HTTP application for direct streaming: our simulated engine's."""
        simulation = Simulation.model_validate(engine_speed(self._token_ms))
        engine = SimulatedEngine(SimEntry(name=self._model, engine="sim", simulation=simulation))
        app = FastAPI()
        app.mount("/", engine.app)
        return app
