"""The object of a stored response, and the events of one that is made in the background."""

from collections.abc import Sequence

import msgspec

CANCELLED, FAILED = "cancelled", "failed"
ABANDONED = "The router that made the response in the background has ended before it."
Fields = dict[str, msgspec.Raw]


class _EventType(msgspec.Struct):
    type: str = "message"


_fields = msgspec.json.Decoder(Fields)
_type = msgspec.json.Decoder(_EventType)


def response_object(body: bytes, status: str, output: Sequence[bytes]) -> bytes:
    """The object of a response, with its output."""
    fields = _fields.decode(body)
    fields["status"] = _raw(status)
    fields["output"] = _raw([msgspec.Raw(item) for item in output])
    return msgspec.json.encode(fields)


def ended_body(body: bytes, status: str) -> bytes:
    """The object of a response that ends without more of an answer: cancelled, or failed."""
    fields = _fields.decode(body)
    fields["status"] = _raw(status)
    if status != CANCELLED:
        fields["error"] = _raw({"code": "server_error", "message": ABANDONED})
    return msgspec.json.encode(fields)


def ended_event(number: int, status: str, body: bytes) -> bytes:
    """The last event of such a response; `body`: its object."""
    response = msgspec.Raw(response_object(body, status, ()))
    kind = f"response.{status}"
    return msgspec.json.encode({"type": kind, "sequence_number": number, "response": response})


def written_event(data: bytes) -> bytes:
    """An event as it stands in a stream."""
    return b"event: %b\ndata: %b\n\n" % (_type.decode(data).type.encode(), data)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
