"""Arguments of vLLM, parsed and validated as by its own command line."""

import argparse
import difflib
import json
import re
from collections.abc import Mapping
from typing import NoReturn

from pydantic import JsonValue
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from gateway.errors.startup import ConfigError

TOKEN_BUCKETS: list[JsonValue] = [*(m * 10**e for e in range(6) for m in (1, 2, 5)), 10**6]
"""Buckets for all models: vLLM's own end at each model's length, but Ray's agent accepts only one
set from all engines of a node."""

DEFAULTS: Mapping[str, JsonValue] = {
    "enable_prompt_tokens_details": True,  # for clients and routers
    "enable_log_requests": False,
    "scheduling_policy": "priority",  # short uncached prompts first; without priorities, by arrival
    "custom_histogram_buckets": {"request_tokens": TOKEN_BUCKETS},
    "tool_strict_level": "parameter",  # arguments of calls match the schemas of their tools
    "exclude_tools_when_tool_choice_none": True,  # a model that sees tools would call them
}


_INPUT = re.compile(r" \[type=.*\]$")
"""End of a line of pydantic's errors."""


class _ArgumentParser(FlexibleArgumentParser):
    """vLLM's parser, which raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would have printed."""
        raise ConfigError(f"engine_args: {_without_input(message)}")


def _without_input(message: str) -> str:
    """An error on one line, where pydantic's text takes several and repeats the input."""
    first, *lines = message.splitlines() or [""]
    if "validation error" not in first:
        return first
    argument = first.rpartition(": ")[0]
    problems = [_INPUT.sub("", line.strip()) for line in lines if "For further" not in line]
    return f"{argument}: {': '.join(filter(None, problems))}"


def parse_arguments(arguments: Mapping[str, JsonValue]) -> argparse.Namespace:
    """Parse arguments by vLLM's names, and fill in its defaults.

    Raises:
        ConfigError: an unknown name (with the nearest known one), or a value that vLLM rejects.
    """
    parser = make_arg_parser(_ArgumentParser())
    actions = {action.dest: action for action in parser._actions}  # noqa: SLF001 - argparse has no public list
    for name in arguments:
        if name not in actions:
            near = difflib.get_close_matches(name, actions, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"engine_args.{name}: vLLM has no such argument{hint}")
    argv = [part for name, value in arguments.items() for part in _argv(actions[name], value)]
    args: argparse.Namespace = parser.parse_args(argv)
    try:
        validate_parsed_serve_args(args)
        _import_parser_plugins(args)
        validate_api_server_args(args)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"engine_args: {error.args[0] if error.args else error}") from error
    return args


def _argv(action: argparse.Action, value: JsonValue) -> list[str]:
    """One argument as on vLLM's command line."""
    flag = next(each for each in action.option_strings if each.startswith("--"))
    off = "--no-" + flag.removeprefix("--")
    match value:
        case None | []:
            return []
        case False:
            return [off] if off in action.option_strings else []  # off is its default
        case list() if isinstance(action, argparse._AppendAction):  # noqa: SLF001 - has no public name
            return [f"{flag}={item}" for item in value]
        case list() if action.nargs in {"+", "*"}:
            return [flag, *(item if isinstance(item, str) else json.dumps(item) for item in value)]
    plain = json.dumps(value) if isinstance(value, dict | list) else value
    return [flag] if value is True else [f"{flag}={plain}"]


def _import_parser_plugins(args: argparse.Namespace) -> None:
    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
