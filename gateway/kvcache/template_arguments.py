"""Fields of a request that change what is rendered before its first message.

Each has a normal form, so that one way to say something has the same keys as another, and those
that the chat template does not read are left out.

Source: vLLM 0.32, `build_chat_params` of each API's request.
"""

from collections.abc import Collection
from typing import TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.kvcache.json_text import LARGE_BYTES, digest_of, normal_json
from gateway.request.head import SEED_FIELDS, PromptParts
from gateway.request.raw_fields import ABSENT
from gateway.telemetry.facts import PromptLayout

_EFFORT_ARGUMENTS = frozenset({"reasoning_effort", "enable_thinking"})
"""Arguments by which vLLM tells a template how much to think."""
_GENERAL_ARGUMENTS = frozenset({"add_generation_prompt", "continue_final_message", "tools"})
"""Arguments that count whatever the template reads."""
_EMPTY = (ABSENT, msgspec.Raw(b"null"), msgspec.Raw(b"[]"), msgspec.Raw(b"{}"))
"""The ways in which clients write fields that they do not use."""


class _Effort(msgspec.Struct):
    effort: str | None = None


class _Thinking(msgspec.Struct):
    type: str | None = None


_NOT_AT_THE_START = frozenset({"add_generation_prompt", "continue_final_message", "tool_choice"})
"""Fields that change other parts of a prompt than its beginning."""
_UNKNOWN = PromptLayout()
_T = TypeVar("_T", _Effort, _Thinking)
_effort_decoder = msgspec.json.Decoder(_Effort)
_thinking_decoder = msgspec.json.Decoder(_Thinking)
_arguments_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a request's field says anything: it is neither absent nor null nor empty."""
    return raw is not ABSENT and raw not in _EMPTY


def layout_of(parts: PromptParts, layout: PromptLayout) -> PromptLayout:
    """How this request is rendered: unknown if it brings a template of its own."""
    if not parts.seeds:
        return layout
    fields = dict(zip(SEED_FIELDS, parts.seeds, strict=True))
    has_template = b'"chat_template"' in bytes(fields["chat_template_kwargs"])
    return _UNKNOWN if has_template or is_given(fields["chat_template"]) else layout


def seed_of(parts: PromptParts, model: str, layout: PromptLayout) -> int:
    """Seed of the first key: the model, and all that changes how its prompt begins."""
    if not parts.seeds and not parts.options:
        return xxh3_64_intdigest(model.encode())
    fields = dict(zip(SEED_FIELDS, parts.seeds, strict=False)) | dict(parts.options)
    texts = [model.encode()]
    for name, raw in sorted(_rendered(fields, layout).items()):
        texts += name.encode(), normal_json(raw, is_ordered=False)
    return xxh3_64_intdigest(b"\0".join(texts))


def _rendered(fields: dict[str, msgspec.Raw], layout: PromptLayout) -> dict[str, bytes]:
    """The fields that count, by name."""
    given = {
        name: _short(raw)
        for name, raw in fields.items()
        if name not in _NOT_AT_THE_START and is_given(raw)
    }
    effort = _pop_effort(given)
    if given.get("truncation") == b'"disabled"':
        del given["truncation"]
    arguments = layout.arguments
    if effort and (arguments is None or not _EFFORT_ARGUMENTS.isdisjoint(arguments)):
        given["effort"] = effort
    if arguments is None:
        return given
    if "documents" not in arguments:
        given.pop("documents", None)
    if kwargs := given.pop("chat_template_kwargs", b""):
        _add_arguments(given, kwargs, arguments)
    return given


def _short(raw: msgspec.Raw) -> bytes:
    """A field, or the hash of a large one."""
    return bytes(raw) if len(raw) <= LARGE_BYTES else b"%d" % digest_of(raw)


def _add_arguments(given: dict[str, bytes], kwargs: bytes, arguments: Collection[str]) -> None:
    """Add the arguments that the template reads."""
    try:
        values = _arguments_decoder.decode(kwargs)
    except msgspec.MsgspecError:
        given["chat_template_kwargs"] = kwargs
        return
    for name, value in values.items():
        if name in arguments or name in _GENERAL_ARGUMENTS:
            given[f"argument {name}"] = bytes(value)


def _pop_effort(given: dict[str, bytes]) -> bytes:
    """Take out the fields that say how much to think, and return what they say."""
    thinking = given.pop("thinking", b"")
    if thinking and _read(_thinking_decoder, thinking).type == "disabled":
        effort = b'"none"'
    else:
        effort = given.get("reasoning_effort", b"")
    given.pop("reasoning_effort", None)
    for name in ("reasoning", "output_config"):
        raw = given.pop(name, b"")
        if raw and not effort and (value := _read(_effort_decoder, raw).effort):
            effort = msgspec.json.encode(value)
    return effort


def _read(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return decoder.decode(b"{}")
