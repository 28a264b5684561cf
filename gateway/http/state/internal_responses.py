"""What routers ask State of responses and chats, on paths that no client can reach."""

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors.request import ContextExceeded
from gateway.errors.state import ObjectNotFound
from gateway.http.state.arrivals import Arrivals
from gateway.http.state.json_bodies import json_response, read_json
from gateway.http.state.parts import CurrentProject
from gateway.ledger.calendar import DAY_S
from gateway.responses.state_messages import (
    CHATS,
    HISTORY,
    RESPONSES,
    EventsReceipt,
    HistoryQuery,
    ItemHistory,
    KeptChat,
    KeptEvents,
    KeptResponse,
    events_path,
)
from gateway.store import responses as store
from gateway.store.background_responses import LEASE_S, add_events
from gateway.store.conversations import conversation_items
from gateway.store.database import Transaction
from gateway.store.project_state import ProjectState
from gateway.store.response_items import HistoryTooLarge, ItemRow, found_items, size_of
from gateway.store.stored_chats import ChatRow, add_chat


class AnswersFromRouters:
    """Resolves what requests refer to, and keeps their answers; `arrivals`: hears of new events."""

    def __init__(self, state: ProjectState, arrivals: Arrivals) -> None:
        self._state = state
        self._arrivals = arrivals

    async def history(self, project: str, asked: HistoryQuery) -> ItemHistory:
        """The items that a request refers to."""
        now_s = self._state.now_s
        try:
            return await self._state.read(
                lambda connection: _history(connection, project, asked, now_s)
            )
        except HistoryTooLarge:
            raise ContextExceeded(
                f"The items before this request have more than {asked.max_bytes / 2**20:g} MiB,"
                " the most that a request may have.",
                "input",
            ) from None

    async def keep(self, project: str, kept: KeptResponse) -> None:
        """Keep a response, or begin one in the background."""
        new = store.NewResponse(
            id=kept.id,
            status=kept.status,
            body=bytes(kept.body),
            input=[bytes(each) for each in kept.input],
            output=[bytes(each) for each in kept.output],
            previous_id=kept.previous_id,
            conversation_id=kept.conversation_id,
            is_background=kept.is_background,
        )
        now_s, expires_s = self._state.now_s, self._expires_s
        await self._state.write(
            lambda connection: store.add_response(
                *(connection, project, new),
                now_s=now_s,
                expires_s=expires_s,
                lease_s=now_s + LEASE_S if kept.is_background else 0,
            )
        )

    async def keep_events(self, project: str, response_id: str, kept: KeptEvents) -> bool:
        """Keep events of a response in the background, and perhaps its end."""
        events = [(number, bytes(data)) for number, data in kept.events]
        end, lease_s = kept.end, self._state.now_s + LEASE_S

        def add(connection: Transaction) -> bool:
            is_wanted = add_events(connection, project, response_id, events, lease_s)
            if is_wanted and end is not None:
                output = [bytes(each) for each in end.output]
                body = bytes(end.body)
                store.finish_response(connection, project, response_id, end.status, body, output)
            return is_wanted

        is_wanted = await self._state.write(add)
        self._arrivals.announce((project, response_id))
        return is_wanted

    async def keep_chat(self, project: str, kept: KeptChat) -> None:
        """Keep a chat completion."""
        row = ChatRow(
            id=kept.id,
            model=kept.model,
            body=bytes(kept.body),
            messages=bytes(kept.messages),
            labels=kept.metadata,
            created_s=self._state.now_s,
            expires_s=self._expires_s,
        )
        await self._state.write(lambda connection: add_chat(connection, project, row))

    @property
    def _expires_s(self) -> int:
        return self._state.now_s + int(self._state.config.responses.retention_days * DAY_S)


def internal_responses_router(answers: AnswersFromRouters) -> APIRouter:
    """Routes by which routers resolve requests and keep answers."""
    router = APIRouter()

    @router.post(HISTORY)
    async def history(request: Request, project: CurrentProject) -> Response:
        """Find the items that a request refers to."""
        asked = await read_json(request, HistoryQuery)
        return json_response(await answers.history(project, asked))

    @router.post(RESPONSES)
    async def keep(request: Request, project: CurrentProject) -> Response:
        """Keep a response, or begin one in the background."""
        await answers.keep(project, await read_json(request, KeptResponse))
        return json_response({})

    @router.post(events_path("{response_id}"))
    async def keep_events(response_id: str, request: Request, project: CurrentProject) -> Response:
        """Keep events of a response in the background, and perhaps its end."""
        kept = await read_json(request, KeptEvents)
        is_wanted = await answers.keep_events(project, response_id, kept)
        return json_response(EventsReceipt(is_wanted=is_wanted))

    @router.post(CHATS)
    async def keep_chat(request: Request, project: CurrentProject) -> Response:
        """Keep a chat completion."""
        await answers.keep_chat(project, await read_json(request, KeptChat))
        return json_response({})

    return router


def _history(connection: Transaction, project: str, asked: HistoryQuery, now_s: int) -> ItemHistory:
    rows: list[ItemRow] = []
    if asked.previous_id:
        rows = store.history(connection, project, asked.previous_id, now_s, asked.max_bytes)
    elif asked.conversation_id:
        rows = conversation_items(connection, project, asked.conversation_id, asked.max_bytes)
    found = found_items(connection, project, asked.references, asked.max_bytes - size_of(rows))
    for each in asked.references:
        if each not in found:
            raise ObjectNotFound(f"Item with id '{each[:200]}' not found.", "input")
    return ItemHistory(
        items=[msgspec.Raw(row.data) for row in rows],
        references={name: msgspec.Raw(data) for name, data in found.items()},
    )
