"""Arguments of vLLM, parsed and validated as by its own command line."""

import argparse
import difflib
import json
from collections.abc import Mapping
from typing import NoReturn

from pydantic import JsonValue
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from gateway.errors import ConfigError

TOKEN_BUCKETS: list[JsonValue] = [*(m * 10**e for e in range(6) for m in (1, 2, 5)), 10**6]
"""Buckets for all models: vLLM's own end at each model's length, but Ray's agent accepts only one
set from all engines of a node."""

DEFAULTS: Mapping[str, JsonValue] = {
    "enable_prompt_tokens_details": True,  # for clients and routers
    "enable_log_requests": False,
    "scheduling_policy": "priority",  # short uncached prompts first; without priorities, by arrival
    "custom_histogram_buckets": {"request_tokens": TOKEN_BUCKETS},
}


class _ArgumentParser(FlexibleArgumentParser):
    """vLLM's parser, which raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would have printed."""
        raise ConfigError(f"engine_args: {message.splitlines()[0]}")


def parse_arguments(arguments: Mapping[str, JsonValue]) -> argparse.Namespace:
    """Parse arguments by vLLM's names, and fill in its defaults.

    Raises:
        ConfigError: an unknown name (with the nearest known one), or a value that vLLM rejects.
    """
    parser = make_arg_parser(_ArgumentParser())
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
    """`arguments` as on vLLM's command line."""
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
