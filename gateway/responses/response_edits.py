"""The object of a response as its client sees it, of the one that an engine has made."""

import msgspec

from gateway.asgi import Headers
from gateway.responses.plan import ResponsePlan
from gateway.responses.state_messages import KeptResponse, ResponseEnd

Fields = dict[str, msgspec.Raw]
RESPONSE_MARK = b'"response":{'
"""What events with the object have, and no text in an event: there, quotes are escaped."""
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Types of the last events of a stream."""
EMPTY = msgspec.Raw(b"[]")
_RESPONSE = msgspec.Raw(b'"response"')
_fields = msgspec.json.Decoder(Fields)
_texts = msgspec.json.Decoder(str)
_items = msgspec.json.Decoder(list[msgspec.Raw])


class EventFields(msgspec.Struct):
    """An event of a stream of responses."""

    type: str = ""
    sequence_number: int = -1
    response: msgspec.Raw = EMPTY


_event = msgspec.json.Decoder(EventFields)


def parsed_event(data: bytes) -> EventFields | None:
    """An event's fields; None if it is none of responses."""
    try:
        return _event.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def parsed_object(data: bytes) -> Fields | None:
    """The fields of a response's object; None if it is none."""
    try:
        fields = _fields.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return fields if fields.get("object") == _RESPONSE else None


def edit_object(fields: Fields, plan: ResponsePlan, *, is_kept: bool) -> Fields:
    """The object with its own id, and with what the engine does not know."""
    edited = {
        **fields,
        "id": to_raw(plan.id),
        "store": to_raw(is_kept),
        "background": to_raw(plan.is_background),
        "previous_response_id": to_raw(plan.previous_id or None),
    }
    if plan.conversation_id:
        edited["conversation"] = to_raw({"id": plan.conversation_id})
    return edited


def write_event(event: EventFields, response: Fields) -> bytes:
    """An event with another object, without the empty line after it."""
    return b"event: %b\ndata: %b" % (event.type.encode(), event_object(event, response))


def event_object(event: EventFields, response: Fields) -> bytes:
    """The data of an event with another object."""
    return msgspec.json.encode(
        {"type": event.type, "sequence_number": event.sequence_number, "response": response}
    )


def kept_response(plan: ResponsePlan, items: list[bytes], edited: Fields) -> KeptResponse:
    """The response as State keeps it; `items`: those of its request."""
    end = response_end(edited)
    return KeptResponse(
        id=plan.id,
        status=end.status,
        body=end.body,
        input=[msgspec.Raw(item) for item in items],
        output=end.output,
        previous_id=plan.previous_id,
        conversation_id=plan.conversation_id,
        is_background=plan.is_background,
    )


def response_end(edited: Fields) -> ResponseEnd:
    """The end of a response: its status, the object without its output, and that."""
    return ResponseEnd(
        status=_texts.decode(edited.get("status", b'"completed"')),
        body=to_raw({**edited, "output": EMPTY}),
        output=_items.decode(edited.get("output", EMPTY)),
    )


def failed_object(fields: Fields, code: str, message: str) -> Fields:
    """The object of a response that has failed."""
    error = {"code": code, "message": message}
    return {**fields, "status": to_raw("failed"), "error": to_raw(error), "output": EMPTY}


def with_length(headers: Headers, length: int | None) -> Headers:
    """Headers with another `content-length`; None: with none."""
    kept = [each for each in headers if each[0] != b"content-length"]
    return kept if length is None else [*kept, (b"content-length", b"%d" % length)]


def to_raw(value: object) -> msgspec.Raw:
    """Encode the value of a field."""
    return msgspec.Raw(msgspec.json.encode(value))
