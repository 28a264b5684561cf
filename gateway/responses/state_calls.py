"""What routers ask of State for responses and chats, and what they make of its silence."""

import asyncio
from typing import TypeVar

import msgspec

from gateway.errors.gateway_error import ErrorBody, ErrorDetail, GatewayError
from gateway.errors.state import StateDown
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
from gateway.serving.state_client import StateClient, StateUnavailable

AnswerT = TypeVar("AnswerT")
AWAY_S = 2.0
"""For how long State is not asked to keep what need not be kept, once it has not answered."""


class StateRefused(GatewayError):
    """State's own error, as a router passes it on."""

    def __init__(self, status: int, body: bytes) -> None:
        try:
            detail = msgspec.json.decode(body, type=ErrorBody).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            detail = ErrorDetail(
                "State has failed; its log has the details.", self.type, None, None
            )
        super().__init__(detail.message, detail.param)
        self.args = (status, body)
        self.status = status
        self.type = detail.type
        self.code = detail.code or self.code


class StateCalls:
    """Calls to State on behalf of projects."""

    def __init__(self, client: StateClient) -> None:
        self._client = client
        self._away_until_s = 0.0

    @property
    def is_away(self) -> bool:
        """Whether State has just not answered."""
        return asyncio.get_running_loop().time() < self._away_until_s

    async def history(self, project: str, query: HistoryQuery) -> ItemHistory:
        """The items that a request refers to.

        Raises:
            StateDown: State does not answer.
            StateRefused: there are no such items.
        """
        try:
            return await self._post(project, HISTORY, query, ItemHistory)
        except StateUnavailable:
            raise state_down() from None

    async def keep(
        self, project: str, response: KeptResponse, timeout_s: float | None = None
    ) -> None:
        """Keep a response, or begin one in the background; `timeout_s`: if shorter than usual.

        Raises:
            StateUnavailable: State does not answer in time.
            StateRefused: it does not take it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._post(project, RESPONSES, response, dict)
        except TimeoutError:
            self._record_away()
            raise StateUnavailable(f"it has not answered within {timeout_s} s") from None

    async def keep_chat(self, project: str, chat: KeptChat) -> None:
        """Keep a chat completion.

        Raises:
            StateUnavailable: State does not answer.
            StateRefused: it does not take it.
        """
        await self._post(project, CHATS, chat, dict)

    async def keep_events(self, project: str, response_id: str, events: KeptEvents) -> bool:
        """Keep events of a response in the background; False if nobody wants it any more.

        Raises:
            StateUnavailable: State does not answer.
            StateRefused: it does not take them.
        """
        path = events_path(response_id)
        return (await self._post(project, path, events, EventsReceipt)).is_wanted

    async def check(self, project: str) -> None:
        """Check that State answers, if it has just not answered.

        Raises:
            StateDown: it does not.
        """
        if self.is_away:
            await self.history(project, HistoryQuery())

    async def _post(self, project: str, path: str, value: object, kind: type[AnswerT]) -> AnswerT:
        try:
            answer = await self._client.request(project, "POST", path, msgspec.json.encode(value))
        except StateUnavailable:
            self._record_away()
            raise
        if answer.status == StateDown.status:
            self._record_away()
            raise StateUnavailable("its database or storage cannot be reached")
        self._away_until_s = 0.0
        if answer.status != 200:
            raise StateRefused(answer.status, answer.body)
        return msgspec.json.decode(answer.body, type=kind)

    def _record_away(self) -> None:
        self._away_until_s = asyncio.get_running_loop().time() + AWAY_S


def state_down() -> StateDown:
    """The error for a request that needs State."""
    return StateDown(
        "The gateway's storage, which this request needs, cannot be reached. Try again, or send the"
        " whole conversation with `store: false`."
    )
