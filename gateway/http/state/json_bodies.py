"""JSON of State's routes as bytes: what clients and engines have written is passed on unread."""

from typing import TypeVar

import msgspec
from fastapi import Request, Response

from gateway.errors.request import InvalidJSON, InvalidRequest

ValueT = TypeVar("ValueT")


class LabelsUpdate(msgspec.Struct):
    """Body that gives an object other metadata."""

    metadata: msgspec.Raw


async def read_json(request: Request, kind: type[ValueT]) -> ValueT:
    """The body of a request; without one, an empty object.

    Raises:
        InvalidJSON: it is no such JSON.
    """
    body = await request.body()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The request body is invalid: {error}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidJSON("We could not parse the JSON body of your request.") from None


def json_response(value: object, status: int = 200) -> Response:
    """An answer of JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def raw_page(ids: list[str], objects: list[bytes], *, has_more: bool) -> Response:
    """OpenAI's list of objects that are JSON already."""
    return json_response(
        {
            "object": "list",
            "data": [msgspec.Raw(each) for each in objects],
            "first_id": ids[0] if ids else "",
            "last_id": ids[-1] if ids else "",
            "has_more": has_more,
        }
    )
