"""Conversations: `/v1/conversations` and their items."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound
from gateway.http.query import query
from gateway.http.state.json_bodies import (
    LabelsUpdate,
    json_response,
    raw_page,
    read_json,
)
from gateway.http.state.parts import CurrentProject
from gateway.http.state.responses import ItemsQuery
from gateway.request.labels import read_labels
from gateway.request.raw_fields import ABSENT
from gateway.request.response_item import (
    check_count,
    is_usable_id,
    referred_id,
    shown_item,
    split_items,
)
from gateway.store import conversations as store
from gateway.store.conversations import ConversationRow
from gateway.store.database import Transaction
from gateway.store.pages import Page
from gateway.store.project_state import ProjectState
from gateway.store.response_items import (
    HistoryTooLarge,
    ItemRow,
    add_items,
    found_item,
    found_items,
    page_of_items,
    remove_items,
)

MAX_ITEMS = 20
"""Items that a request may add, as at OpenAI's."""
MAX_REFERRED_BYTES = 32 << 20
"""Bytes of the items that it may refer to."""
CONVERSATION = "/v1/conversations/{conversation_id}"


class _NewConversation(msgspec.Struct):
    """Body that begins a conversation."""

    items: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT


class _Addition(msgspec.Struct):
    """Body that adds items."""

    items: msgspec.Raw


class ProjectConversations:
    """Conversations of projects."""

    def __init__(self, state: ProjectState) -> None:
        self._state = state

    async def create(self, project: str, body: _NewConversation) -> ConversationRow:
        """Begin a conversation."""
        labels, given = read_labels(body.metadata), _checked(body.items)
        now_s = self._state.now_s

        def add(connection: Transaction) -> ConversationRow:
            items = _resolved(connection, project, given)
            return store.add_conversation(connection, project, labels, items, now_s)

        return await self._state.write(add)

    async def find(self, project: str, conversation_id: str) -> ConversationRow:
        """A conversation."""
        return await self._state.read(
            lambda connection: store.conversation(connection, project, conversation_id)
        )

    async def update(
        self, project: str, conversation_id: str, body: LabelsUpdate
    ) -> ConversationRow:
        """Give a conversation other metadata."""
        labels = read_labels(body.metadata)
        return await self._state.write(
            lambda connection: store.update_conversation(
                connection, project, conversation_id, labels
            )
        )

    async def delete(self, project: str, conversation_id: str) -> None:
        """Delete a conversation."""
        await self._state.write(
            lambda connection: store.delete_conversation(connection, project, conversation_id)
        )

    async def add_items(self, project: str, conversation_id: str, body: _Addition) -> Page[ItemRow]:
        """Add items to a conversation."""
        given = _checked(body.items)

        def add(connection: Transaction) -> list[ItemRow]:
            store.conversation(connection, project, conversation_id)
            items = _resolved(connection, project, given)
            store.check_room(connection, project, conversation_id, items)
            return add_items(connection, project, conversation_id, "item", items)

        return Page(await self._state.write(add))

    async def items(self, project: str, conversation_id: str, wanted: ItemsQuery) -> Page[ItemRow]:
        """A page of the items of a conversation."""

        def find(connection: Transaction) -> Page[ItemRow]:
            store.conversation(connection, project, conversation_id)
            return page_of_items(connection, project, conversation_id, "item", wanted.cursor)

        return await self._state.read(find)

    async def item(self, project: str, conversation_id: str, item_id: str) -> ItemRow:
        """An item of a conversation."""

        def find(connection: Transaction) -> ItemRow:
            store.conversation(connection, project, conversation_id)
            return found_item(connection, project, conversation_id, item_id)

        return await self._state.read(find)

    async def delete_item(
        self, project: str, conversation_id: str, item_id: str
    ) -> ConversationRow:
        """Delete an item of a conversation; returns the conversation."""

        def remove(connection: Transaction) -> ConversationRow:
            row = store.conversation(connection, project, conversation_id)
            if not remove_items(connection, project, conversation_id, item_id):
                raise ObjectNotFound(f"Item with id '{item_id[:200]}' not found.")
            return row

        return await self._state.write(remove)


def conversations_router(conversations: ProjectConversations) -> APIRouter:
    """Routes that create, show, change and delete conversations."""
    router = APIRouter()

    @router.post("/v1/conversations")
    async def create(request: Request, project: CurrentProject) -> Response:
        """Create a conversation."""
        return _answer(
            await conversations.create(project, await read_json(request, _NewConversation))
        )

    @router.get(CONVERSATION)
    async def retrieve(conversation_id: str, project: CurrentProject) -> Response:
        """Retrieve a conversation."""
        return _answer(await conversations.find(project, conversation_id))

    @router.post(CONVERSATION)
    async def update(conversation_id: str, request: Request, project: CurrentProject) -> Response:
        """Give a conversation other metadata."""
        body = await read_json(request, LabelsUpdate)
        return _answer(await conversations.update(project, conversation_id, body))

    @router.delete(CONVERSATION)
    async def delete(conversation_id: str, project: CurrentProject) -> Response:
        """Delete a conversation."""
        await conversations.delete(project, conversation_id)
        return json_response(
            {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
        )

    return router


def conversation_items_router(conversations: ProjectConversations) -> APIRouter:
    """Routes of the items of conversations."""
    router = APIRouter()

    @router.post(f"{CONVERSATION}/items")
    async def create(conversation_id: str, request: Request, project: CurrentProject) -> Response:
        """Add items to a conversation."""
        body = await read_json(request, _Addition)
        return _items(await conversations.add_items(project, conversation_id, body))

    @router.get(f"{CONVERSATION}/items")
    async def list_all(
        conversation_id: str,
        project: CurrentProject,
        wanted: Annotated[ItemsQuery, Depends(query(ItemsQuery))],
    ) -> Response:
        """List the items of a conversation."""
        return _items(await conversations.items(project, conversation_id, wanted))

    @router.get(f"{CONVERSATION}/items/{{item_id}}")
    async def retrieve(conversation_id: str, item_id: str, project: CurrentProject) -> Response:
        """Retrieve an item of a conversation."""
        row = await conversations.item(project, conversation_id, item_id)
        return json_response(msgspec.Raw(shown_item(row.data)))

    @router.delete(f"{CONVERSATION}/items/{{item_id}}")
    async def delete(conversation_id: str, item_id: str, project: CurrentProject) -> Response:
        """Delete an item of a conversation."""
        return _answer(await conversations.delete_item(project, conversation_id, item_id))

    return router


def _checked(raw: msgspec.Raw) -> list[bytes]:
    if bytes(raw) in (b"", b"null"):
        return []
    check_count(raw, "items")
    try:
        items = split_items(raw)
    except msgspec.MsgspecError:
        raise InvalidRequest("`items` must be an array of items.", "items") from None
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(f"At most {MAX_ITEMS} items can be added at a time.", "items")
    return items


def _resolved(connection: Transaction, project: str, items: Sequence[bytes]) -> list[bytes]:
    """Items, with those in place of references that they stand for."""
    names = [referred_id(item) for item in items]
    wanted = [name for name in names if name is not None and is_usable_id(name)]
    try:
        found = found_items(connection, project, wanted, MAX_REFERRED_BYTES)
    except HistoryTooLarge:
        raise InvalidRequest("The items that `items` refers to are too large.", "items") from None
    return [
        item if name is None else _found(found, name)
        for item, name in zip(items, names, strict=True)
    ]


def _found(items: Mapping[str, bytes], name: str) -> bytes:
    if name not in items:
        raise ObjectNotFound(f"Item with id '{name[:200]}' not found.", "items")
    return items[name]


def _answer(row: ConversationRow) -> Response:
    return json_response(
        {
            "id": row.id,
            "object": "conversation",
            "created_at": row.created_s,
            "metadata": row.labels,
        }
    )


def _items(page: Page[ItemRow]) -> Response:
    ids = [row.id for row in page.rows]
    return raw_page(ids, [shown_item(row.data) for row in page.rows], has_more=page.has_more)
