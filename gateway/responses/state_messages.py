"""What routers and State tell each other of responses and chats, as JSON on `/internal/` paths."""

import msgspec

HISTORY = "/internal/responses/history"
RESPONSES = "/internal/responses"
CHATS = "/internal/chats"
_NULL = msgspec.Raw(b"null")


def events_path(response_id: str) -> str:
    """Path to which the events of a response in the background are sent."""
    return f"{RESPONSES}/{response_id}/events"


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a request refers to."""

    previous_id: str = ""
    conversation_id: str = ""
    references: list[str] = []
    """Ids of items."""
    max_bytes: int = 0
    """Size of the items at the utmost."""


class ItemHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The items that it refers to."""

    items: list[msgspec.Raw] = []
    """Those that come before its own, oldest first."""
    references: dict[str, msgspec.Raw] = {}
    """Items by id."""


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response to keep."""

    id: str
    status: str
    body: msgspec.Raw
    """The object, without its output."""
    input: list[msgspec.Raw]
    """The request's own items."""
    output: list[msgspec.Raw] = []
    previous_id: str = ""
    conversation_id: str = ""
    is_background: bool = False
    """Its maker sends its events from now on."""


class ResponseEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a response in the background."""

    status: str
    body: msgspec.Raw = _NULL
    output: list[msgspec.Raw] = []


class KeptEvents(msgspec.Struct, frozen=True, kw_only=True):
    """New events of a response in the background; without any, only that its maker lives."""

    events: list[tuple[int, msgspec.Raw]] = []
    end: ResponseEnd | None = None


class EventsReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What State says of them."""

    is_wanted: bool
    """False once the response has been cancelled or deleted."""


class KeptChat(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion to keep."""

    id: str
    model: str
    body: msgspec.Raw
    messages: msgspec.Raw
    metadata: dict[str, str] = {}
