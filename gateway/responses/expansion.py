"""Requests with all that they refer to: the engine gets the whole input, and no ids."""

import secrets
from collections.abc import Sequence

import msgspec

from gateway.request.inference_request import InferenceRequest
from gateway.request.response_item import referred_id
from gateway.request.routes import parse_head
from gateway.responses.plan import ResponsePlan, own_items
from gateway.responses.state_calls import StateCalls
from gateway.responses.state_messages import HistoryQuery
from gateway.serving.body import body_too_large
from gateway.serving.body_budget import MIB, HeldBody

RESOLVED = ("previous_response_id", "conversation", "background", "store")
"""Fields that engines do not get."""
ID_BYTES = 8
"""Random bytes that tell requests with one id apart."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def resolved_items(
    request: InferenceRequest,
    plan: ResponsePlan,
    calls: StateCalls,
    max_body_mb: float,
    held: HeldBody,
) -> tuple[list[bytes], list[bytes]]:
    """The items before a request's own, and its own with what they refer to; they count as `held`.

    Raises:
        InvalidRequest: its input is neither a text nor a list.
        BodyTooLarge: they are more than a body may have.
        BodyBudgetExceeded: there is no room for them.
        StateRefused: it refers to what there is not.
        StateDown: State does not answer.
    """
    own = own_items(request)
    query = HistoryQuery(
        previous_id=plan.previous_id,
        conversation_id=plan.conversation_id,
        references=list(plan.references),
        max_bytes=int(max_body_mb * MIB),
    )
    found = await calls.history(request.project, query)
    earlier = [bytes(each) for each in found.items]
    sent_bytes = sum(map(len, own))
    if found.references:
        # An item that is referred to more than once is one object until the body is encoded.
        known = {name: bytes(data) for name, data in found.references.items()}
        own = [_resolved(item, known) for item in own]
    size = sum(map(len, earlier)) + sum(map(len, own))
    if size > query.max_bytes:
        raise body_too_large(max_body_mb)
    held.grow(max(size - sent_bytes, 0))
    return earlier, own


def expanded(
    request: InferenceRequest,
    items: Sequence[bytes],
    max_body_mb: float,
    *,
    is_stream: bool | None = None,
) -> InferenceRequest:
    """The request with these items as its input; `is_stream`: whether as a stream, if not as asked.

    Raises:
        BodyTooLarge: its body would be larger than bodies may be.
    """
    fields = _fields.decode(request.body)
    for name in RESOLVED:
        fields.pop(name, None)
    fields["input"] = _raw([msgspec.Raw(item) for item in items])
    if is_stream is not None:
        fields["stream"] = _raw(is_stream)
    body = msgspec.json.encode(fields)
    if len(body) > max_body_mb * MIB:
        raise body_too_large(max_body_mb)
    head = parse_head(request.path, body, b"application/json")
    return msgspec.structs.replace(request, body=body, head=head)


def without_store(request: InferenceRequest) -> InferenceRequest:
    """The request without its `store`, of which engines would say that nothing is stored."""
    fields = _fields.decode(request.body)
    fields.pop("store", None)
    return msgspec.structs.replace(request, body=msgspec.json.encode(fields))


def alone_in_engines(request: InferenceRequest) -> InferenceRequest:
    """The request under an id of its own in engines, which make the id of a chat of it.

    Clients may send one `x-request-id` with several requests.
    """
    own = b"%b-%b" % (request.request_id, secrets.token_hex(ID_BYTES).encode())
    return msgspec.structs.replace(request, engine_id=own)


def _resolved(item: bytes, found: dict[str, bytes]) -> bytes:
    reference = referred_id(item)
    return item if reference is None else found[reference]


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
