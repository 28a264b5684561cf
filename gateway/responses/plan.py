"""What a request for a response or a chat needs of State, read from its fields."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound
from gateway.request.inference_request import InferenceRequest
from gateway.request.lax_json import read_bool
from gateway.request.raw_fields import ABSENT
from gateway.request.response_item import (
    REFERENCE,
    check_count,
    is_usable_id,
    referred_id,
    split_input,
)
from gateway.request.routes import CHAT, INPUT_TOKENS
from gateway.upstream.sse import RESPONSES

ID_BYTES = 25
"""Random bytes of a response's id."""
_NULL = msgspec.Raw(b"null")
MAX_REFERENCES = 1_000
"""References to items in one request."""
_REFERENCE = re.compile(REFERENCE.encode() + rb'|\{\s*"id"\s*:')
"""What a request with references has somewhere: their type, or an object that begins with an id."""


class _ConversationObject(msgspec.Struct):
    """A conversation, as an object."""

    id: str


_id = msgspec.json.Decoder(str)
_conversation = msgspec.json.Decoder(str | _ConversationObject)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePlan:
    """What a request for a response refers to, and whether the answer is kept."""

    id: str
    """Id that the response gets."""
    previous_id: str = ""
    conversation_id: str = ""
    is_kept: bool = True
    """The answer is kept, if State can be reached."""
    must_be_kept: bool = False
    """Without that, there is no answer."""
    is_background: bool = False
    references: tuple[str, ...] = ()
    """Ids of the items that references among its own stand for."""

    @property
    def needs_items(self) -> bool:
        """Whether it refers to items that State has."""
        return bool(self.previous_id or self.conversation_id or self.references)


def concerns_state(request: InferenceRequest, *, keeps: bool) -> bool:
    """Whether a request needs State, or its answer is kept; `keeps`: responses are by default."""
    if request.path == CHAT:
        return request.head.fields.store is not ABSENT and read_bool(request.head.fields.store)
    if request.path not in (RESPONSES, INPUT_TOKENS):
        return False
    fields = request.head.fields
    return (
        _is_given(fields.previous_response_id)
        or _is_given(fields.conversation)
        or _may_refer(request)
        or (request.path == RESPONSES and _is_to_be_kept(fields.store, keeps=keeps))
        or (_is_given(fields.background) and read_bool(fields.background))
    )


def response_plan(request: InferenceRequest, *, keeps: bool) -> ResponsePlan:
    """The plan for such a request to one of the routes of responses.

    Raises:
        InvalidRequest: its fields contradict each other, or are no ids; or it has too many items.
        ObjectNotFound: one of its references is no id.
    """
    fields = request.head.fields
    is_answered = request.path == RESPONSES
    previous_id = _read_id(fields.previous_response_id)
    conversation_id = _read_conversation(fields.conversation)
    if previous_id and conversation_id:
        raise InvalidRequest(
            "`previous_response_id` and `conversation` exclude each other.", "conversation"
        )
    is_kept = is_answered and _is_to_be_kept(fields.store, keeps=keeps)
    is_background = is_answered and _is_given(fields.background) and read_bool(fields.background)
    if is_background and not is_kept:
        raise InvalidRequest(
            "Responses in the background must be stored: leave out `store`."
            if keeps
            else "This gateway stores no responses, so it makes none in the background.",
            "background",
        )
    if is_kept:
        check_count(fields.input, "input")  # not only when the engine has worked
    return ResponsePlan(
        id=f"resp_{secrets.token_hex(ID_BYTES)}",
        previous_id=previous_id,
        conversation_id=conversation_id,
        is_kept=is_kept,
        must_be_kept=is_background or (is_kept and _is_given(fields.store)),
        is_background=is_background,
        references=_references(own_items(request)) if _may_refer(request) else (),
    )


def own_items(request: InferenceRequest) -> list[bytes]:
    """The items of a request's `input`; none if it has no input.

    Raises:
        InvalidRequest: it is neither a text nor a list, or has too many items.
    """
    raw = request.head.fields.input
    return split_input(raw) if _is_given(raw) else []


def _may_refer(request: InferenceRequest) -> bool:
    return _REFERENCE.search(request.body) is not None


def _references(items: Sequence[bytes]) -> tuple[str, ...]:
    """Ids of the items that references among these stand for, each once."""
    found: list[str] = []
    for item in items:
        if (identifier := referred_id(item)) is None:
            continue
        if not is_usable_id(identifier):
            raise ObjectNotFound("An `item_reference` has an `id` that no item can have.", "input")
        found.append(identifier)
        if len(found) > MAX_REFERENCES:
            message = f"`input` may have at most {MAX_REFERENCES} references to items."
            raise InvalidRequest(message, "input")
    return tuple(dict.fromkeys(found))


def _is_given(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and raw != _NULL


def _is_to_be_kept(store: msgspec.Raw, *, keeps: bool) -> bool:
    return keeps and (not _is_given(store) or read_bool(store))


def _read_id(raw: msgspec.Raw) -> str:
    if not _is_given(raw):
        return ""
    try:
        found = _id.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = None
    if found is None or not is_usable_id(found):
        raise InvalidRequest(
            "`previous_response_id` must be the id of a response.", "previous_response_id"
        )
    return found


def _read_conversation(raw: msgspec.Raw) -> str:
    if not _is_given(raw):
        return ""
    try:
        found = _conversation.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = None
    identifier = found.id if isinstance(found, _ConversationObject) else found
    if identifier is None or not is_usable_id(identifier):
        raise InvalidRequest("`conversation` must be the id of a conversation.", "conversation")
    return identifier
