"""An engine for Ray Serve LLM that says the words of our simulated one, at once or at its pace.

Ray's replicas take its class from the environment (`RAYLLM_VLLM_ENGINE_CLS`), as Ray's tests
do; all else, from Ray's ingress to its `LLMServer`, is what `build_openai_app` deploys.
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

from deployments.engines.sim import SimulatedEngine
from deployments.engines.sim_replies import ChatStyle, Reply
from deployments.engines.sim_words import words
from gateway.config.sim import SimEntry, Simulation
from loadtests.peers.ray_llm import PACE
from loadtests.targets import pace

SEED = 7


class Config(Protocol):
    """What we need of Ray's `LLMConfig`."""

    model_id: str


class Request(Protocol):
    """What we need of a chat request."""

    max_tokens: int


class SimulatedLLMEngine(LLMEngine):
    """Streams of as many words as were asked for."""

    def __init__(self, llm_config: Config) -> None:
        self._model = llm_config.model_id
        self._token_ms = float(os.environ[PACE])

    async def start(self) -> None:
        """Nothing: it is ready."""

    def routing_stats(self) -> dict[str, object]:
        """Nothing: it holds no prefixes."""
        return {}

    async def resolve_lora(self, lora_model: object) -> None:
        """Nothing: it has no adapters."""

    async def reset_prefix_cache(self) -> None:
        """Nothing: it has no cache."""

    async def chat(
        self, request: Request, raw_request_info: object = None
    ) -> AsyncGenerator[str, None]:
        """An event for every word and three around them, each a piece of its own."""
        reply = Reply(
            style=ChatStyle(),
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self._model,
            include_usage=False,
        )
        before, after = reply.piece(0)
        began_s = time.monotonic()
        yield reply.opening(0).decode()
        for number, word in enumerate(itertools.islice(words(SEED), request.max_tokens), start=1):
            if self._token_ms:  # a token that comes late makes the next ones none the later
                due_s = began_s + number * self._token_ms / 1000
                await asyncio.sleep(due_s - time.monotonic())
            yield (before + word.encode() + after).decode()
        yield reply.ending(0, "length").decode()
        yield "data: [DONE]\n\n"

    async def completions(self, request: object, raw_request_info: object = None) -> None:
        """Not among what is compared."""
        raise NotImplementedError

    embeddings = transcriptions = completions

    async def build_asgi_app(self) -> FastAPI:
        """What answers where Ray streams from replicas directly: our simulated engine."""
        simulation = Simulation.model_validate(pace(self._token_ms))
        engine = SimulatedEngine(SimEntry(name=self._model, engine="sim", simulation=simulation))
        app = FastAPI()
        app.mount("/", engine.app)
        return app
