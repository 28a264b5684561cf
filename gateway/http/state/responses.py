"""Stored responses: `/v1/responses/{response_id}`, their input, their events, and how they end."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound, StateDown
from gateway.http.organization.values import NO_LIMIT, OrderedQuery, Params
from gateway.http.query import query
from gateway.http.state.arrivals import Arrivals
from gateway.http.state.json_bodies import json_response, raw_page
from gateway.http.state.parts import CurrentProject
from gateway.request.response_item import shown_item
from gateway.request.response_object import CANCELLED, FAILED, response_object, written_event
from gateway.store import responses as store
from gateway.store.background_responses import LEASE_S, end_response, events_after
from gateway.store.database import DatabaseUnavailable, Transaction
from gateway.store.pages import Page
from gateway.store.project_state import ProjectState
from gateway.store.response_items import ItemRow, page_of_items
from gateway.store.responses import ResponseRow
from gateway.upstream.sse import RESPONSES, error_event

RESPONSE = "/v1/responses/{response_id}"
POLL_S = 5.0
"""How often a response is looked at whose router sends nothing: it may have died."""
COMMENT = b": still working\n\n"

logger = logging.getLogger(__name__)


class ItemsQuery(OrderedQuery):
    """Which items to list: the newest first, unless asked otherwise."""

    order: Literal["asc", "desc"] = "desc"
    include: list[str] = Field(default_factory=list)
    beta: bool = False


class ResponseQuery(Params):
    """How to show a response."""

    stream: bool = False
    starting_after: int = Field(default=-1, ge=-1, le=NO_LIMIT)
    include: list[str] = Field(default_factory=list)
    include_obfuscation: bool = False
    beta: bool = False


class StoredResponses:
    """Responses of all projects; `arrivals`: tells of their new events."""

    def __init__(self, state: ProjectState, arrivals: Arrivals) -> None:
        self._state = state
        self._arrivals = arrivals

    async def find(self, project: str, response_id: str) -> ResponseRow:
        """A response; one that nobody makes any more has failed.

        While State or its database was away, no router could say that it lives.

        Raises:
            ObjectNotFound: there is none.
        """
        now_s = self._state.now_s
        row = await self._state.read(
            lambda connection: store.response(connection, project, response_id, now_s)
        )
        is_late = row.is_unfinished and row.lease_s <= now_s
        if is_late and self._state.taken_s >= LEASE_S:
            return await self.end(project, row, FAILED)
        return row

    async def shown(self, project: str, row: ResponseRow) -> Response:
        """The answer that shows a response."""
        output = await self._state.read(
            lambda connection: store.output_of(connection, project, row.id)
        )
        shown = response_object(row.body, row.status, [item.data for item in output])
        return json_response(msgspec.Raw(shown))

    async def end(self, project: str, row: ResponseRow, status: str) -> ResponseRow:
        """End a response that is being made, unless it has just ended by itself."""
        ended = await self._state.write(
            lambda connection: end_response(connection, project, row, status)
        )
        self._arrivals.announce((project, row.id))
        return ended

    async def events(
        self, project: str, response_id: str, starting_after: int
    ) -> AsyncIterator[bytes]:
        """The stream of a response's events, up to its end."""
        number = starting_after
        while True:
            arrival = asyncio.ensure_future(self._arrivals.wait((project, response_id), POLL_S))
            try:
                # The response first: what it has had before its end is read after it.
                row = await self.find(project, response_id)
                found = await self._state.read(
                    partial(events_after, project=project, response_id=response_id, number=number)
                )
                if found:
                    number = found[-1][0]
                    yield b"".join(written_event(data) for _, data in found)
                elif not row.is_unfinished:
                    return
                else:
                    await arrival
                    if not arrival.result():
                        yield COMMENT
            finally:
                arrival.cancel()

    async def cancel(self, project: str, response_id: str) -> ResponseRow:
        """Cancel a response that is made in the background, if it has not ended.

        Raises:
            ObjectNotFound: there is none.
            InvalidRequest: it is not made in the background.
        """
        row = await self.find(project, response_id)
        if not row.is_background:
            raise InvalidRequest("Only responses in the background can be cancelled.")
        return await self.end(project, row, CANCELLED) if row.is_unfinished else row

    def stream(self, project: str, row: ResponseRow, starting_after: int) -> Response:
        """The answer with a response's events after the one with this number.

        Raises:
            InvalidRequest: it is not made in the background.
        """
        if not row.is_background:
            raise InvalidRequest("Only responses in the background can be streamed.", "stream")
        events = self.events(project, row.id, starting_after)
        followed = _with_error(events, starting_after)
        return StreamingResponse(followed, media_type="text/event-stream")

    async def delete(self, project: str, response_id: str) -> None:
        """Delete a response; whoever makes or follows it stops."""
        now_s = self._state.now_s
        await self._state.write(
            lambda connection: store.delete_response(connection, project, response_id, now_s)
        )
        self._arrivals.announce((project, response_id))

    async def input_items(
        self, project: str, response_id: str, wanted: ItemsQuery
    ) -> Page[ItemRow]:
        """A page of the items of a response's request."""
        now_s = self._state.now_s

        def find(connection: Transaction) -> Page[ItemRow]:
            store.response(connection, project, response_id, now_s)
            return page_of_items(connection, project, response_id, "input", wanted.cursor)

        return await self._state.read(find)


async def _with_error(events: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
    """Events of a response after the one with this number; an error is the last of them."""
    last = b'"sequence_number":%d' % number if number >= 0 else b""
    try:
        async for part in events:
            last = last if part == COMMENT else part
            yield part
    except ObjectNotFound as error:  # it has been deleted meanwhile
        yield error_event(error, RESPONSES, last)
    except DatabaseUnavailable as error:
        logger.warning("the database cannot be used: %s", error)
        down = StateDown("The gateway's database cannot be reached now. Try again.")
        yield error_event(down, RESPONSES, last)


def responses_router(stored: StoredResponses) -> APIRouter:
    """Routes that show, cancel and delete responses."""
    router = APIRouter()

    @router.get(RESPONSE)
    async def retrieve(
        response_id: str,
        project: CurrentProject,
        wanted: Annotated[ResponseQuery, Depends(query(ResponseQuery))],
    ) -> Response:
        """Retrieve a response, or the stream of its events."""
        row = await stored.find(project, response_id)
        if wanted.stream:
            return stored.stream(project, row, wanted.starting_after)
        return await stored.shown(project, row)

    @router.delete(RESPONSE)
    async def delete(response_id: str, project: CurrentProject) -> Response:
        """Delete a response."""
        await stored.delete(project, response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    @router.post(f"{RESPONSE}/cancel")
    async def cancel(response_id: str, project: CurrentProject) -> Response:
        """Cancel a response that is made in the background."""
        return await stored.shown(project, await stored.cancel(project, response_id))

    @router.get(f"{RESPONSE}/input_items")
    async def input_items(
        response_id: str,
        project: CurrentProject,
        wanted: Annotated[ItemsQuery, Depends(query(ItemsQuery))],
    ) -> Response:
        """List the items of a response's request."""
        page = await stored.input_items(project, response_id, wanted)
        ids = [row.id for row in page.rows]
        return raw_page(ids, [shown_item(row.data) for row in page.rows], has_more=page.has_more)

    return router
