"""Responses in the background: made without a client, their events kept as they come.

The router that makes one says at least every `RENEW_S` that it lives; State ends those of routers
that have died. What State answers tells the router whether the response is still wanted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from gateway.asgi import Message
from gateway.errors.engine import engine_error
from gateway.errors.gateway_error import GatewayError
from gateway.responses.plan import ResponsePlan
from gateway.responses.response_edits import (
    ENDS,
    EventFields,
    Fields,
    edit_object,
    event_object,
    failed_object,
    parsed_event,
    parsed_object,
    response_end,
)
from gateway.responses.state_calls import StateCalls
from gateway.responses.state_messages import KeptEvents, ResponseEnd
from gateway.serving.client_response import ClientResponse
from gateway.serving.state_client import StateUnavailable
from gateway.upstream.late_answer import late_events
from gateway.upstream.sse import RESPONSES, event_data, split_events

FLUSH_S = 0.2
"""For how long events are gathered before they are kept."""
RENEW_S = 2.0
"""How often a silent router says that it lives."""
GIVE_UP_S = 60.0
"""For how long State may be away before the response is given up."""
CLOSE_S = 3.0
"""How long the end of a response may take that the router does not finish."""

Run = Callable[[ClientResponse], Awaitable[None]]
"""Makes the answer."""

logger = logging.getLogger(__name__)


class EventCollector:
    """Takes the messages of a response's stream, and keeps its events until they are fetched."""

    def __init__(self, plan: ResponsePlan, queued: Fields) -> None:
        self._plan = plan
        self.latest = queued
        """The response's object, as it was last sent."""
        self.end: ResponseEnd | None = None
        self.has_news = asyncio.Event()
        self._events: list[tuple[int, msgspec.Raw]] = []
        self._last = -1
        self._status = 0
        self._is_stream = False
        self._partial = bytearray()
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Take a message of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._is_stream = kind.startswith(b"text/event-stream")
        elif self._is_stream:
            self._add(message.get("body", b""))
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self._add_whole(bytes(self._body))

    def fail(self, code: str, message: str) -> None:
        """End the response, if it has not ended."""
        if self.end is not None:
            return
        fields = failed_object(self.latest, code, message)
        self._add_event(EventFields("response.failed", self._last + 1), fields)

    def fetch(self) -> list[tuple[int, msgspec.Raw]]:
        """The events since the last call."""
        self.has_news.clear()
        events, self._events = self._events, []
        return events

    def put_back(self, events: list[tuple[int, msgspec.Raw]]) -> None:
        """Have events fetched once more."""
        self._events = events + self._events

    def _add(self, body: bytes) -> None:
        self._partial += body
        whole, found, rest = bytes(self._partial).rpartition(b"\n\n")
        if not found:
            return
        self._partial = bytearray(rest)
        for written in split_events(whole):
            data = event_data(written)
            event = parsed_event(data) if data else None
            # Signs of life repeat the number of the last event.
            if event is None or event.sequence_number <= self._last:
                continue
            fields = parsed_object(event.response)
            if fields is not None:
                self._add_event(event, edit_object(fields, self._plan, is_kept=True))
            else:
                self._append(event.sequence_number, data)

    def _add_event(self, event: EventFields, fields: Fields) -> None:
        self.latest = fields
        self._append(event.sequence_number, event_object(event, fields))
        if event.type in ENDS:
            self.end = response_end(fields)

    def _append(self, number: int, data: bytes) -> None:
        self._last = number
        self._events.append((number, msgspec.Raw(data)))
        self.has_news.set()

    def _add_whole(self, body: bytes) -> None:
        if self._status < 400:
            self._add(late_events(body, self._status, RESPONSES))
            return
        detail = engine_error(body, self._status)
        self.fail(detail.code or "server_error", detail.message)


class BackgroundResponses:
    """The responses that one router makes in the background; close it in the end."""

    def __init__(self, calls: StateCalls) -> None:
        self._calls = calls
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, project: str, plan: ResponsePlan, queued: Fields, run: Run) -> None:
        """Make a response, which State has as `queued`."""
        task = asyncio.create_task(self._make(project, plan, queued, run), name=plan.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up all that have not ended; they have failed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, project: str, plan: ResponsePlan, queued: Fields, run: Run) -> None:
        collector = EventCollector(plan, queued)
        response = ClientResponse(collector.send, [], request_id=plan.id.encode())
        running = asyncio.create_task(_until_end(run, response, collector), name=f"{plan.id}-run")
        try:
            await self._report(project, plan.id, collector, running)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                collector.fail("server_error", "The gateway has ended before the response.")
                with contextlib.suppress(TimeoutError, StateUnavailable, GatewayError):
                    async with asyncio.timeout(CLOSE_S):
                        await self._send(project, plan.id, collector)

    async def _report(
        self,
        project: str,
        response_id: str,
        collector: EventCollector,
        running: asyncio.Task[None],
    ) -> None:
        """Have State keep events as they come, up to the end."""
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await collector.has_news.wait()
            if collector.end is None:
                await asyncio.sleep(FLUSH_S)
            try:
                is_wanted = await self._send(project, response_id, collector)
            except StateUnavailable as error:
                if loop.time() - heard_s > GIVE_UP_S:
                    logger.warning("%s is given up: State is away: %s", response_id, error)
                    return
                await asyncio.sleep(FLUSH_S)
                continue
            except GatewayError as error:
                logger.warning("%s is given up: %s", response_id, error)
                return
            heard_s = loop.time()
            if not is_wanted:
                return
            if collector.end is not None and not collector.has_news.is_set():
                await asyncio.wait([running], timeout=CLOSE_S)
                return

    async def _send(self, project: str, response_id: str, collector: EventCollector) -> bool:
        events, end = collector.fetch(), collector.end
        try:
            return await self._calls.keep_events(
                project, response_id, KeptEvents(events=events, end=end)
            )
        except StateUnavailable:
            collector.put_back(events)
            collector.has_news.set()
            raise


async def _until_end(run: Run, response: ClientResponse, collector: EventCollector) -> None:
    """Make the answer; whatever happens, the response ends."""
    try:
        await run(response)
    except GatewayError as error:
        collector.fail(error.code, error.message)
    except Exception:
        logger.exception("%s failed", response.request_id.decode())
        collector.fail(
            "server_error", "The gateway had an internal error; its log has the details."
        )
    finally:
        collector.has_news.set()
    collector.fail("server_error", "The engine's answer has no end.")
