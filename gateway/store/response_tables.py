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
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from gateway.store.columns import count, order, text
from gateway.store.tables import metadata

items = Table(
    "response_items",
    metadata,
    order(),
    text("project_id"),
    text("id"),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "id"),
)
"""Items of responses and conversations, as they were sent, each with its `id`."""

item_places = Table(
    "response_item_places",
    metadata,
    order(),
    text("project_id"),
    text("owner_id"),
    text("part"),
    text("item_id"),
    Index(None, "project_id", "owner_id"),
    Index(None, "project_id", "item_id"),
)
"""Which items a response or conversation consists of, in order. `part`: `input` or `output` of a
response, `item` of a conversation."""

responses = Table(
    "responses",
    metadata,
    order(),
    text("project_id"),
    text("id"),
    text("previous_id"),
    text("conversation_id"),
    count("conversation_seq"),
    text("root_id"),
    text("status"),
    Column("is_background", Boolean, nullable=False),
    Column("is_deleted", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    count("created_s"),
    count("expires_s"),
    count("lease_s"),
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
    order(),
    text("project_id"),
    text("id"),
    Column("labels", JSON, nullable=False),
    count("created_s"),
    UniqueConstraint("project_id", "id"),
)

stored_chats = Table(
    "stored_chats",
    metadata,
    order(),
    text("project_id"),
    text("id"),
    text("model"),
    Column("labels", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("messages", LargeBinary, nullable=False),
    count("created_s"),
    count("expires_s"),
    UniqueConstraint("project_id", "id"),
    Index(None, "expires_s"),
)
"""Chat completions that were asked to be kept: the answer, and the messages that it answers."""
