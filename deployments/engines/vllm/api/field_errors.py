"""Errors of pydantic about a request, and the one of them that tells its client what to change.

A value that may have several forms fails once for each of them: one wrong content part of a chat
has dozens of errors. The one that helps is the deepest, of the form that the client has meant: the
others' `type` or `role` is another one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from deployments.engines.vllm.api.error_words import in_words_of_openai
from deployments.engines.vllm.api.invalid_values import (
    missing,
    out_of_bounds,
    refused,
    unknown,
    unsupported_value,
    wrong_length,
    wrong_type,
)
from gateway.errors.gateway_error import ErrorDetail

Path = tuple[str | int, ...]
FieldError = Mapping[str, Any]
"""One of pydantic's `ValidationError.errors()`."""

FORM_NAMES = ("type", "role")
"""Fields that name the form of an object."""
FIXED = ("literal_error", "enum", "union_tag_invalid")
"""Kinds of errors of values that are none of those allowed."""
EXPECTED = {
    "string": "a string",
    "int": "an integer",
    "float": "a decimal",
    "bool": "a boolean",
    "list": "an array",
    "tuple": "an array",
    "set": "an array",
    "iterable": "an array",
    "dict": "an object",
    "typed_dict": "an object",
    "model": "an object",
    "model_attributes": "an object",
    "mapping": "an object",
    "dataclass": "an object",
    "none_required": "null",
}
"""What pydantic's errors ask for, by the first word of their kind."""
BOUNDS = {
    "greater_than": ("gt", False),
    "greater_than_equal": ("ge", False),
    "less_than": ("lt", True),
    "less_than_equal": ("le", True),
}
QUOTES = "'\""
MAX_ERRORS = 1000
"""Errors that are looked at: a long list of wrong items has as many."""


class _Found(NamedTuple):
    error: FieldError
    path: Path
    """Where in the request it is, without the names of forms."""

    @property
    def names_form(self) -> bool:
        """Whether it says that the object is of another form."""
        return self.error["type"] in FIXED and self.error["loc"][-1] in FORM_NAMES


def explain(errors: Sequence[FieldError], body: object, path: str) -> ErrorDetail:
    """The error that helps most, in OpenAI's words; `body` is the request, sent to `path`."""
    found = [_Found(each, _place(each, body)) for each in errors[:MAX_ERRORS]]
    if not found:
        return refused("The request is invalid.", None, None)
    others = {each.error["loc"][:-1] for each in found if each.names_form}
    best = max(found, key=lambda each: (len(each.path), _fits(each.error["loc"], others)))
    return _detail(best, [each.error for each in found if each.path == best.path], path)


def name_of(path: Path) -> str:
    """A place in a request as OpenAI writes it: `messages[0].content`."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _fits(loc: Sequence[object], others: set[Sequence[object]]) -> bool:
    """Whether an error is of a form that the client may have meant."""
    return not any(loc[:length] in others for length in range(1, len(loc) + 1))


def _place(error: FieldError, body: object) -> Path:
    """The place of an error: what in its `loc` leads through the body, and what is missing there.

    Pydantic puts the names of forms in between, as in `content.list[Text].0.Text.type`.
    """
    parts = [*error["loc"]]
    if parts[:1] == ["body"]:
        parts.pop(0)
    last = len(parts) - 1
    path: list[str | int] = []
    value = body
    for number, part in enumerate(parts):
        step = _step(value, part)
        if step or (error["type"] == "missing" and number == last):
            path.append(part)
            value = step[0] if step else None
    return tuple(path)


def _step(value: object, part: Any) -> tuple[object] | None:  # noqa: ANN401 - a name or a position
    """What a part of a place leads to; None if it leads nowhere."""
    if isinstance(value, Mapping):
        return (value[part],) if part in value else None
    is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
    return (cast("list[object]", value)[part],) if is_item else None


def _detail(best: _Found, same: Sequence[FieldError], path: str) -> ErrorDetail:
    error, kind, param = best.error, best.error["type"], name_of(best.path)
    context, value = error.get("ctx") or {}, error.get("input")
    if not param and kind != "value_error":
        return refused(f"The request is invalid: {error['msg']}.", None, None)
    if kind in ("missing", "union_tag_not_found"):
        form = str(context.get("discriminator", "")).strip(QUOTES)
        return missing(f"{param}.{form}" if form else param)
    if kind == "extra_forbidden":
        return unknown(param)
    if kind in FIXED:
        return unsupported_value(param, value, _supported(same))
    if kind in BOUNDS:
        name, is_above = BOUNDS[kind]
        return out_of_bounds(param, context[name], value, is_above=is_above)
    return (
        _of_length(param, same)
        or _of_type(param, value, same)
        or in_words_of_openai(_words(error), param or None, path)
    )


def _supported(errors: Sequence[FieldError]) -> Sequence[str]:
    """The values that are allowed, of all forms together, in the order of the errors."""
    contexts = [each.get("ctx") or {} for each in errors]
    texts = [str(each.get("expected") or each.get("expected_tags") or "") for each in contexts]
    quoted = dict.fromkeys(
        value.strip()
        for text in texts
        for value in text.replace(" or ", ", ").split(",")
        if value.strip()
    )
    return list(quoted)


def _of_type(param: str, value: object, errors: Sequence[FieldError]) -> ErrorDetail | None:
    expected = dict.fromkeys(name for each in errors if (name := _expected(each["type"])))
    if not expected:
        return None
    *first, last = expected
    words = f"one of {', '.join(first)} or {last}" if first else last
    return wrong_type(param, words, value)


def _expected(kind: str) -> str:
    """What an error of this kind asks for; empty if it is not about a type."""
    for ending in ("_type", "_parsing", "_from_float"):
        if kind.endswith(ending):
            return EXPECTED.get(kind.removesuffix(ending), "")
    return ""


def _of_length(param: str, errors: Sequence[FieldError]) -> ErrorDetail | None:
    for error in errors:
        kind, context = error["type"], error.get("ctx") or {}
        is_above = kind.endswith("too_long")
        if is_above or kind.endswith("too_short"):
            bound = context["max_length" if is_above else "min_length"]
            # Of strings, pydantic does not tell the length; what is too short for 1 is empty.
            actual = context.get("actual_length", None if is_above or bound > 1 else 0)
            is_array = not kind.startswith("string")
            return wrong_length(param, bound, actual, is_above=is_above, is_array=is_array)
    return None


def _words(error: FieldError) -> str:
    """What a validator of vLLM's has said."""
    raised = (error.get("ctx") or {}).get("error")
    return str(raised if raised is not None else error["msg"])
