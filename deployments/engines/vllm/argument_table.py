"""Table of vLLM's arguments, by which `gateway check` validates `engine_args` without vLLM.

    python -m deployments.engines.vllm.argument_table > gateway/config/vllm_arguments.json

Which values an argument accepts is found by trying one of each kind on vLLM's own parser.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator

import vllm.config
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from deployments.engines.vllm.version import SUPPORTED

SAMPLES = {
    "integer": ["1", "16", "128"],
    "number": ["1.5", "0.5"],
    "abbreviated": ["1k"],
    "text": ["abc", "a.b.c"],
    "object": ["{}"],
    "list": ["[]"],
}
"""Kinds of values, and some of each as on the command line."""
BOUNDS = {"gt": "above", "ge": "minimum", "lt": "below", "le": "maximum"}
CONFIGS = {name.lower(): value for name, value in vars(vllm.config).items()}
"""vLLM's configuration classes by the names of the arguments whose fields they define."""
NOT_ARGUMENTS = {"help", "model_tag"}


def argument_table() -> dict[str, object]:
    """All arguments of vLLM's server by name, and the names of its parsers."""
    parser = make_arg_parser(FlexibleArgumentParser())
    bounds = dict(_bounds(parser))
    return {
        "vllm": SUPPORTED,
        "arguments": {
            action.dest: {**_argument(parser, action), **bounds.get(action.dest, {})}
            for action in sorted(parser._actions, key=lambda each: str(each.dest))  # noqa: SLF001
            if action.dest not in NOT_ARGUMENTS
        },
        "tool_parsers": ToolParserManager.list_registered(),
        "reasoning_parsers": ReasoningParserManager.list_registered(),
    }


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, object]:
    if action.nargs == 0:
        return {"accepts": ["switch"]}
    optional = ["switch"] if action.nargs == "?" else []
    is_many = action.nargs in {"+", "*"} or isinstance(action, argparse._AppendAction)  # noqa: SLF001
    accepts = optional + list(_accepted(parser, action))
    described: dict[str, object] = {"accepts": accepts}
    if is_many:
        described["is_many"] = True
    config = CONFIGS.get(action.dest.replace("_", ""))
    if "object" in accepts and dataclasses.is_dataclass(config):
        described["fields"] = sorted(each.name for each in dataclasses.fields(config) if each.init)
    if action.choices is not None:
        described["choices"] = [choice for choice in action.choices if choice is not None]
    return described


def _accepted(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    """Kinds of values that the argument's type converts to something of that kind."""
    kinds = [kind for kind in SAMPLES if _converts(parser, action, kind)]
    if "text" not in kinds and "object" in kinds:  # anything in JSON, by the type alone
        return iter(["list" if isinstance(action.default, list) else "object"])
    return iter(kinds)


def _converts(parser: argparse.ArgumentParser, action: argparse.Action, kind: str) -> bool:
    for sample in SAMPLES[kind]:
        try:
            value = parser._get_value(action, sample)  # noqa: SLF001 - as argparse does
        except Exception:  # noqa: BLE001, S112 - a type may raise anything
            continue
        if kind == "text" or not isinstance(value, str):
            return True
    return False


def _bounds(parser: argparse.ArgumentParser) -> Iterator[tuple[str, dict[str, float]]]:
    """Least and greatest values that the fields of vLLM's configuration allow."""
    for group in parser._action_groups:  # noqa: SLF001 - argparse has no public list
        config = getattr(vllm.config, str(group.title), None)
        fields = getattr(config, "__pydantic_fields__", {})
        for action in group._group_actions:  # noqa: SLF001
            limits = {
                name: getattr(each, bound)
                for each in getattr(fields.get(action.dest), "metadata", ())
                for bound, name in BOUNDS.items()
                if hasattr(each, bound)
            }
            if limits:
                yield str(action.dest), limits


def written(table: dict[str, object]) -> str:
    """Table as it is committed: JSON with a line for each argument."""
    return _lines(table, "") + "\n"


def _lines(value: object, indent: str) -> str:
    if not isinstance(value, dict) or "accepts" in value:
        return json.dumps(value)
    inner = (f"{indent}  {json.dumps(k)}: {_lines(v, indent + '  ')}" for k, v in value.items())
    return "{\n" + ",\n".join(inner) + f"\n{indent}}}"


if __name__ == "__main__":
    sys.stdout.write(written(argument_table()))
