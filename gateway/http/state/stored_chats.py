"""Stored chat completions: `/v1/chat/completions` by id, which routers hand on."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.config.project_values import Text
from gateway.errors.request import InvalidRequest
from gateway.http.organization.values import OrderedQuery
from gateway.http.query import query
from gateway.http.state.json_bodies import (
    LabelsUpdate,
    json_response,
    raw_page,
    read_json,
)
from gateway.http.state.parts import CurrentProject
from gateway.request.chat_messages import shown_messages
from gateway.request.labels import check_labels, read_labels
from gateway.store import stored_chats as store
from gateway.store.project_state import ProjectState
from gateway.store.stored_chats import ListedChat

CHAT = "/v1/chat/completions/{completion_id}"


class ChatsQuery(OrderedQuery):
    """Which stored chats to list."""

    model: Text | None = None
    metadata: dict[str, str] | None = None


def stored_chats_router(state: ProjectState) -> APIRouter:
    """Routes that list, show, change and delete stored chats."""
    router = APIRouter()

    @router.get("/v1/chat/completions")
    async def list_all(
        project: CurrentProject, wanted: Annotated[ChatsQuery, Depends(query(ChatsQuery))]
    ) -> Response:
        """List stored chats."""
        check_labels(wanted.metadata or {})
        page = await state.read(
            lambda connection: store.list_chats(
                *(connection, project, wanted.cursor, state.now_s),
                model=wanted.model,
                labels=wanted.metadata,
            )
        )
        ids = [row.id for row in page.rows]
        return raw_page(ids, [_object(row) for row in page.rows], has_more=page.has_more)

    @router.get(CHAT)
    async def retrieve(completion_id: str, project: CurrentProject) -> Response:
        """Retrieve a stored chat."""
        row = await state.read(
            lambda connection: store.chat(connection, project, completion_id, state.now_s)
        )
        return json_response(msgspec.Raw(_object(row)))

    @router.post(CHAT)
    async def update(completion_id: str, request: Request, project: CurrentProject) -> Response:
        """Give a stored chat other metadata."""
        labels = read_labels((await read_json(request, LabelsUpdate)).metadata)
        row = await state.write(
            lambda connection: store.update_chat(
                connection, project, completion_id, labels, state.now_s
            )
        )
        return json_response(msgspec.Raw(_object(row)))

    @router.delete(CHAT)
    async def delete(completion_id: str, project: CurrentProject) -> Response:
        """Delete a stored chat."""
        await state.write(
            lambda connection: store.delete_chat(connection, project, completion_id, state.now_s)
        )
        return json_response(
            {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}
        )

    @router.get(f"{CHAT}/messages")
    async def messages(
        completion_id: str,
        project: CurrentProject,
        wanted: Annotated[OrderedQuery, Depends(query(OrderedQuery))],
    ) -> Response:
        """List the messages that a stored chat answers."""
        row = await state.read(
            lambda connection: store.chat(connection, project, completion_id, state.now_s)
        )
        shown = shown_messages(row.id, row.messages)
        if wanted.order == "desc":
            shown.reverse()
        ids = [each for each, _ in shown]
        start = _place(ids, wanted.after) + 1
        end = start + wanted.limit
        objects = [message for _, message in shown[start:end]]
        return raw_page(ids[start:end], objects, has_more=end < len(shown))

    return router


def _place(ids: list[str], after: str | None) -> int:
    if after is None:
        return -1
    if after not in ids:
        raise InvalidRequest("`after` must be the id of a message of this list.", "after")
    return ids.index(after)


def _object(row: ListedChat) -> bytes:
    fields = msgspec.json.decode(row.body, type=dict[str, msgspec.Raw])
    fields["metadata"] = msgspec.Raw(msgspec.json.encode(row.labels))
    return msgspec.json.encode(fields)
