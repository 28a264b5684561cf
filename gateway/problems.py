"""What is wrong with a configuration, and where: a line of plain words for each mistake."""

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.registry.gateway import GatewayConfig
from gateway.registry.sim import SimEntry
from gateway.registry.vllm import ACCELERATOR_TYPES, Cpu, Gpu, VllmEntry

Place = tuple[int | str, ...]
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
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a document."""

    at: Place
    text: str


def problems(error: ValidationError) -> Iterator[Problem]:
    """All that pydantic found wrong with a model entry or a gateway config."""
    for detail in error.errors(include_url=False):
        place = tuple(
            step
            for i, step in enumerate(detail["loc"])
            if not _is_member(detail["loc"], i) and step != "[key]"
        )
        inner, text = _explanation(detail)
        yield Problem((*place, *inner), text)


def _is_member(location: Place, i: int) -> bool:
    return location[i] in _MEMBERS and (i == 0 or location[i - 1] == "accelerator")


def _explanation(detail: ErrorDetails) -> tuple[Place, str]:
    """What pydantic found, in our words; before it, the rest of the path where that is known."""
    context, text = detail.get("ctx", {}), ""
    match detail["type"]:
        case "conflict":
            return context["at"], context["message"]
        case "union_tag_invalid" | "union_tag_not_found":
            return _unknown_member(detail["loc"], context.get("tag"))
        case "value_error":
            text = str(context["error"])
        case "missing":
            text = "is missing"
        case "string_type" if isinstance(detail["input"], int | float):
            found = shown(detail["input"])
            text = f'should be text, found {found} (put it in quotes: "{found}")'
        case "extra_forbidden":
            text = f"unknown field{_nearest_field(detail['loc'])}"
        case _:
            said = detail["msg"].removeprefix("Input ").split(" or instance of")[0]
            text = f"{_PHRASES.get(said, said)}, found {shown(detail['input'])}"
    return (), text


def _nearest_field(location: Place) -> str:
    """A suggestion from the fields of the model that refused one."""
    model: type[BaseModel] = GatewayConfig
    for step in location[:-1]:
        inner = _MEMBERS.get(step) or model.model_fields[str(step)].annotation
        model = inner if isinstance(inner, type) else model
    return nearest(location[-1], model.model_fields)


def _unknown_member(location: Place, tag: str | None) -> tuple[Place, str]:
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
