"""Responses as State shows them: the object with its items, and its events."""

from collections.abc import Sequence

import msgspec

from gateway.store.response_items import ItemRow
from gateway.store.responses import CANCELLED, ResponseRow

Fields = dict[str, msgspec.Raw]
ABANDONED = "The router that made the response in the background has ended before it."
_fields = msgspec.json.Decoder(Fields)


class _EventType(msgspec.Struct):
    type: str = "message"


_type = msgspec.json.Decoder(_EventType)


def response_object(row: ResponseRow, output: Sequence[ItemRow]) -> bytes:
    """The object of a response."""
    fields = _fields.decode(row.body)
    fields["status"] = _raw(row.status)
    fields["output"] = _raw([msgspec.Raw(item.data) for item in output])
    return msgspec.json.encode(fields)


def ended_body(body: bytes, status: str) -> bytes:
    """The object of a response that ends without more of an answer."""
    fields = _fields.decode(body)
    fields["status"] = _raw(status)
    if status != CANCELLED:
        fields["error"] = _raw({"code": "server_error", "message": ABANDONED})
    return msgspec.json.encode(fields)


def ended_event(number: int, status: str, body: bytes) -> bytes:
    """The last event of such a response."""
    fields = _fields.decode(body)
    fields["output"] = msgspec.Raw(b"[]")
    kind = "response.cancelled" if status == CANCELLED else "response.failed"
    return msgspec.json.encode({"type": kind, "sequence_number": number, "response": fields})


def written_event(data: bytes) -> bytes:
    """An event as it stands in a stream."""
    return b"event: %b\ndata: %b\n\n" % (_type.decode(data).type.encode(), data)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


