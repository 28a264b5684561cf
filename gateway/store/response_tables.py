"""Tables of responses, conversations, their items, and stored chats.

JSON of clients and engines is kept as bytes: its texts may hold NUL, which the types of PostgreSQL
refuse. An item is kept once, whatever refers to it: what a response or conversation consists of are
`item_places`.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from gateway.store.tables import metadata


def _order() -> Column[int]:
    """Number of a row in order of creation: lists are in this order."""
    # SQLite numbers rows by itself only if the column is an INTEGER.
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, String, nullable=False, server_default="")


def _whole(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


items = Table(
    "response_items",
    metadata,
    _order(),
    _text("project_id"),
    _text("id"),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "id"),
)
"""Items of responses and conversations, as they were sent, each with its `id`."""

item_places = Table(
    "response_item_places",
    metadata,
    _order(),
    _text("project_id"),
    _text("owner_id"),
    _text("part"),
    _text("item_id"),
    Index(None, "project_id", "owner_id"),
    Index(None, "project_id", "item_id"),
)
"""Which items a response or conversation consists of, in order. `part`: `input` or `output` of a
response, `item` of a conversation."""

responses = Table(
    "responses",
    metadata,
    _order(),
    _text("project_id"),
    _text("id"),
    _text("previous_id"),
    _text("conversation_id"),
    _whole("conversation_seq"),
    _text("root_id"),
    _text("status"),
    Column("is_background", Boolean, nullable=False),
    Column("is_deleted", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _whole("created_s"),
    _whole("expires_s"),
    _whole("lease_s"),
    UniqueConstraint("project_id", "id"),
    Index(None, "project_id", "previous_id"),
    Index(None, "root_id"),
    Index(None, "status"),
    Index(None, "expires_s"),
)
"""Responses. `body`: the object without its output, which is items. `root_id`: the first response
of the thread. `conversation_seq`: last place in the conversation that came before. A deleted one
stays, expired and without its body, while others continue it. `lease_s`: until when a router that
makes it in the background is thought to live."""

response_events = Table(
    "response_events",
    metadata,
    Column("project_id", String, primary_key=True),
    Column("response_id", String, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
"""Events of responses that are made in the background, by their `sequence_number`."""

conversations = Table(
    "conversations",
    metadata,
    _order(),
    _text("project_id"),
    _text("id"),
    Column("labels", JSON, nullable=False),
    _whole("created_s"),
    UniqueConstraint("project_id", "id"),
)

stored_chats = Table(
    "stored_chats",
    metadata,
    _order(),
    _text("project_id"),
    _text("id"),
    _text("model"),
    Column("labels", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("messages", LargeBinary, nullable=False),
    _whole("created_s"),
    _whole("expires_s"),
    UniqueConstraint("project_id", "id"),
    Index(None, "expires_s"),
)
"""Chat completions that were asked to be kept: the answer, and the messages that it answers."""
