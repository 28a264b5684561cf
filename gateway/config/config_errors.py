"""Translates pydantic's validation errors into one plain line per mistake, with its path."""

from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.gateway import GatewayConfig
from gateway.config.hardware import ACCELERATOR_TYPES, Cpu, Gpu
from gateway.config.references import KNOWN_BEFORE, MASK, Reference
from gateway.config.secrets import shown
from gateway.config.sim import SimEntry
from gateway.config.strict import ConfigPath, FieldError, format_value, suggestion
from gateway.config.vllm import VllmEntry

# Pydantic adds the chosen member of a union to its paths; these are our unions' members.
_UNION_MEMBERS: dict[object, type[BaseModel]] = {
    "vllm": VllmEntry,
    "sim": SimEntry,
    "gpu": Gpu,
    "cpu": Cpu,
}
_PLAIN_MESSAGES = {
    "should be a valid integer": "should be a whole number",
    "should be a valid string": "should be text",
    "should be a valid boolean": "should be true or false",
    "should be a valid number": "should be a number",
    "should be a valid dictionary": "should be a mapping",
    "should be a valid dictionary or object to extract fields from": "should be a mapping",
    "should be a valid list": "should be a list",
}


def plain_errors(
    error: ValidationError, root: type[BaseModel] = GatewayConfig
) -> Iterator[FieldError]:
    """Translate all that pydantic found wrong with a model entry, or with a `root`."""
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        path = tuple(
            _key(detail["input"]) if location[i + 1 : i + 2] == ("[key]",) else step
            for i, step in enumerate(location)
            if not _is_union_member(location, i) and step != "[key]"
        )
        for rest, message in _explanations(detail, root):
            yield FieldError((*path, *rest), message)


def _key(key: object) -> str:
    """A wrong key of a mapping, as a step of a path."""
    return key if isinstance(key, str) else format_value(key)


def _is_union_member(location: ConfigPath, i: int) -> bool:
    return location[i] in _UNION_MEMBERS and (i == 0 or location[i - 1] == "accelerator")


def _explanations(detail: ErrorDetails, root: type[BaseModel]) -> Sequence[FieldError]:
    """Messages for one of pydantic's errors; each path is relative to that error's location."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "field_errors":
            errors: Sequence[FieldError] = context["errors"]
            return errors
        case "union_tag_invalid" | "union_tag_not_found":
            return [_unknown_member(detail["loc"], context.get("tag"))]
        case "extra_forbidden":
            return [FieldError((), f"unknown field{_suggested_field(detail['loc'], root)}")]
        case _:
            return [FieldError((), _explanation(detail))]


def _explanation(detail: ErrorDetails) -> str:
    found = shown(_names(detail["loc"]), detail["input"], format_value(detail["input"]))
    match detail["type"]:
        case "value_error":
            return str(detail["ctx"]["error"])
        case "missing" | "too_short" | "string_too_short" as kind:
            return "is missing" if kind == "missing" else "must not be empty"
        case _ if Reference.of(detail["input"]):
            return KNOWN_BEFORE
        case "unknown_name":
            return f"found {found}{suggestion(detail['input'], detail['ctx']['known'])}"
        case "string_type" if isinstance(detail["input"], int | float):
            hint = "" if found == MASK else f': "{found}"'
            return f"should be text, found {found} (put it in quotes{hint})"
    message = detail["msg"].removeprefix("Input ").split(" or instance of")[0]
    return f"{_PLAIN_MESSAGES.get(message, message)}, found {found}"


def _names(location: ConfigPath) -> ConfigPath:
    return tuple(step for step in location if step != "[key]")


def _suggested_field(location: ConfigPath, root: type[BaseModel]) -> str:
    """Suggestion from the fields of the model that rejected the last step of the path."""
    model: object = root
    for i, step in enumerate(location[:-1]):
        is_member = _is_union_member(location, i)
        model = _UNION_MEMBERS[step] if is_member else _type_at(model, step)
    fields = model.model_fields if _is_model(model) else ()
    return suggestion(location[-1], fields)


def _type_at(annotation: object, step: int | str) -> object:
    """Type of the value at `step` inside a value of the type `annotation`."""
    if _is_model(annotation):
        return _unwrapped(annotation.model_fields[str(step)].annotation)
    return _unwrapped(get_args(annotation)[-1])  # the items of a list, or the values of a mapping


def _unwrapped(annotation: object) -> object:
    """Type without its constraints and without an optional None."""
    while get_origin(annotation) in (Annotated, UnionType):
        first, *others = get_args(annotation)
        if get_origin(annotation) is UnionType and others != [NoneType]:
            break  # the next step names the member
        annotation = first
    return annotation


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_member(location: ConfigPath, tag: str | None) -> FieldError:
    """Error for an unknown engine or accelerator, which decide what other fields there are."""
    if location:
        names = ["cpu", "gpu", *sorted(ACCELERATOR_TYPES)]
        hint = f" (write a GPU type that is not listed as {{kind: gpu, type: {tag}}})"
        return FieldError((), f"found {format_value(tag)}{suggestion(tag, names)}{hint}")
    engines = ["vllm", "sim"]
    if tag is None:
        return FieldError(("engine",), f"is missing; known: {', '.join(engines)}")
    return FieldError(("engine",), f"found {format_value(tag)}{suggestion(tag, engines)}")


def format_path(path: Iterable[int | str]) -> str:
    """Write `("a", 0, "b")` as `a[0].b`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def error_lines(label: str, error: ValidationError) -> str:
    """One line for each mistake, with what the config is of."""
    return "\n".join(one_line((label, format_path(e.path), e.message)) for e in plain_errors(error))


def one_line(parts: Iterable[str]) -> str:
    """Join path and message; line breaks and invisible characters become escapes."""
    text = ": ".join(filter(None, parts))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
