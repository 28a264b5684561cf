"""What is wrong with a configuration, and where: a line of plain words for each mistake."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.gateway import GatewayConfig
from gateway.config.hardware import ACCELERATOR_TYPES, Cpu, Gpu
from gateway.config.sim import SimEntry
from gateway.config.strict import Flaw
from gateway.config.vllm import VllmEntry

ConfigPath = tuple[int | str, ...]
"""The keys and positions that lead to a value in a document."""

# Pydantic puts the chosen member of a union into its paths; these are ours.
_MEMBERS: dict[object, type[BaseModel]] = {
    "vllm": VllmEntry,
    "sim": SimEntry,
    "gpu": Gpu,
    "cpu": Cpu,
}
_PHRASES = {
    "should be a valid integer": "should be a whole number",
    "should be a valid string": "should be text",
    "should be a valid boolean": "should be true or false",
    "should be a valid number": "should be a number",
    "should be a valid dictionary": "should be a mapping",
    "should be a valid list": "should be a list",
}


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """Something wrong in a document."""

    at: ConfigPath
    text: str


def problems(error: ValidationError) -> Iterator[ConfigProblem]:
    """All that pydantic found wrong with a model entry or a gateway config."""
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        place = tuple(
            str(step) if location[i + 1 : i + 2] == ("[key]",) else step
            for i, step in enumerate(location)
            if not _is_member(location, i) and step != "[key]"
        )
        for inner, text in _explanations(detail):
            yield ConfigProblem((*place, *inner), text)


def _is_member(location: ConfigPath, i: int) -> bool:
    return location[i] in _MEMBERS and (i == 0 or location[i - 1] == "accelerator")


def _explanations(detail: ErrorDetails) -> Sequence[Flaw]:
    """What pydantic found, in our words; before it, the rest of the path where that is known."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "conflict":
            flaws: Sequence[Flaw] = context["flaws"]
            return flaws
        case "union_tag_invalid" | "union_tag_not_found":
            return [_unknown_member(detail["loc"], context.get("tag"))]
        case "extra_forbidden":
            return [((), f"unknown field{_nearest_field(detail['loc'])}")]
        case _:
            return [((), _explanation(detail))]


def _explanation(detail: ErrorDetails) -> str:
    found = shown(detail["input"])
    match detail["type"]:
        case "value_error":
            return str(detail["ctx"]["error"])
        case "missing":
            return "is missing"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "string_type" if isinstance(detail["input"], int | float):
            return f'should be text, found {found} (put it in quotes: "{found}")'
    said = detail["msg"].removeprefix("Input ").split(" or instance of")[0]
    return f"{_PHRASES.get(said, said)}, found {found}"


def _nearest_field(location: ConfigPath) -> str:
    """A suggestion from the fields of the model that refused one."""
    found: object = GatewayConfig
    for i, step in enumerate(location[:-1]):
        found = _MEMBERS[step] if _is_member(location, i) else _inside(found, step)
    fields = found.model_fields if _is_model(found) else ()
    return nearest(location[-1], fields)


def _inside(annotation: object, step: int | str) -> object:
    """The type of what stands at `step` in a value of the type `annotation`."""
    if _is_model(annotation):
        return _plain(annotation.model_fields[str(step)].annotation)
    return _plain(get_args(annotation)[-1])  # what a list or a mapping holds


def _plain(annotation: object) -> object:
    """A type without its constraints, and without the None beside it."""
    while get_origin(annotation) in (Annotated, UnionType):
        first, *others = get_args(annotation)
        if get_origin(annotation) is UnionType and others != [NoneType]:
            break  # the next step says which
        annotation = first
    return annotation


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_member(location: ConfigPath, tag: str | None) -> tuple[ConfigPath, str]:
    """No such engine, or no such accelerator: the choices that decide which fields there are."""
    if location:
        names = ["cpu", "gpu", *sorted(ACCELERATOR_TYPES)]
        longer = f" (a GPU type not listed is written {{kind: gpu, type: {tag}}})"
        return (), f"found {shown(tag)}{nearest(tag, names)}{longer}"
    engines = ["vllm", "sim"]
    if tag is None:
        return ("engine",), f"is missing; known: {', '.join(engines)}"
    return ("engine",), f"found {shown(tag)}{nearest(tag, engines)}"


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a line: the nearest of the known names, or all of them where none is near."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    if close:
        return f", did you mean `{by_lower[close[0]]}`?"
    return f"; known: {', '.join(by_lower.values())}"


def shown(value: object) -> str:
    """A value as YAML writes it, on one line; of a collection only what it is."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None | bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def path_of(place: Iterable[int | str]) -> str:
    """`("a", 0, "b")` as `a[0].b`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return "".join(steps).removeprefix(".")


def one_line(parts: Iterable[str]) -> str:
    """Place and text together, with what would break the line or not be seen written as escapes."""
    text = ": ".join(filter(None, parts))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
