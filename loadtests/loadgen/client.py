"""HTTP client for streamed chat completions, with a pool of connections."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec

from loadtests.loadgen.connection import Connection, Response, http_post
from loadtests.loadgen.outcome import RequestEnd, RequestOutcome, Status
from loadtests.loadgen.sse import ChatStream, IncompleteStream

CHAT_PATH = "/v1/chat/completions"


class Client:
    """Sends POSTs to one server; `timeout_s` bounds each, from when it was due.

    With `is_strict`, a rejection without a reason and a time to retry is a failure.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        local_address: str | None = None,
        is_strict: bool = False,
    ) -> None:
        self._host, self._port = host, port
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._local_address = local_address
        self._is_strict = is_strict
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        """Return itself; connections are opened as needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def encoded(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> bytes:
        """A request as it goes over the wire; can be made before it is due."""
        return self.encoded_bytes(path, msgspec.json.encode(body), headers)

    def encoded_bytes(
        self, path: str, content: bytes, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A request with a body that is JSON already, or never will be."""
        return http_post(
            self._host, self._port, path, content, {**self._headers, **(headers or {})}
        )

    async def post(self, request: bytes, due_s: float | None = None) -> Response:
        """Send an encoded request and wait for the response.

        Raises:
            OSError: the server cannot be reached, or the connection ended too soon.
            TimeoutError: the response took too long.
        """
        due_s = time.monotonic() if due_s is None else due_s
        connection: Connection | None = None
        try:
            async with asyncio.timeout(due_s + self._timeout_s - time.monotonic()):
                connection = await self._connection()
                response = await connection.request(request)
        except BaseException:
            if connection:
                connection.close()
            raise
        if connection.is_open:
            self._idle.append(connection)
        return response

    async def chat(self, request: bytes, due_s: float | None = None) -> tuple[RequestOutcome, str]:
        """Send an encoded chat request and return its outcome and the answer's text."""
        started_s = time.monotonic()
        due_s = started_s if due_s is None else due_s
        try:
            response = await self.post(request, due_s)
        except (OSError, TimeoutError) as error:
            end, stream, now_s = RequestEnd.of_error(error), ChatStream(), time.monotonic()
            return RequestOutcome.of(end, stream, due_s=due_s, sent_s=started_s, end_s=now_s), ""
        outcome, text = chat_outcome(response, due_s)
        if self._is_strict and outcome.status is Status.REJECTED:
            flaw = rejection_flaw(response.header("retry-after"), response.body)
            if flaw:
                return msgspec.structs.replace(outcome, status=Status.FAILED, reason=flaw), ""
        return outcome, text

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return await Connection.open(self._host, self._port, self._local_address)


def chat_body(
    model: str, messages: Sequence[Mapping[str, str]] | str, max_tokens: int, **more: object
) -> dict[str, Any]:
    """A streamed chat request; a text is a single message of the user."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }


def chat_outcome(response: Response, due_s: float) -> tuple[RequestOutcome, str]:
    """The outcome of a response to a chat request, and the answer's text."""
    stream, end = ChatStream(), RequestEnd(Status.ANSWERED, 200)
    if response.status == 200:
        try:
            read_chunks(stream, response)
        except IncompleteStream as error:
            end = RequestEnd(Status.FAILED, 200, str(error))
    else:
        end = RequestEnd.of_response(response.status, response.body)
    outcome = RequestOutcome.of(
        end, stream, due_s=due_s, sent_s=response.sent_s, end_s=response.end_s
    )
    request_id = response.header("x-request-id") or ""
    return msgspec.structs.replace(outcome, request_id=request_id), stream.text


def read_chunks(stream: ChatStream, response: Response) -> None:
    """Read a whole streamed response.

    Raises:
        IncompleteStream: it is not a whole answer.
    """
    rest = b""
    for chunk, at_s in zip(response.chunks, response.times_s, strict=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            stream.read(line, at_s)
    stream.require_end()


class _ErrorReply(msgspec.Struct):
    message: str
    code: str
    type: str
    param: str | None


class _Rejection(msgspec.Struct):
    error: _ErrorReply


def rejection_flaw(retry_after: str | None, body: bytes) -> str:
    """Flaw of a 429 of this gateway: no usable `Retry-After`, or no reason; empty if none."""
    if retry_after is None or not retry_after.isdecimal() or int(retry_after) < 1:
        return f"429 with retry-after {retry_after}"
    try:
        error = msgspec.json.decode(body, type=_Rejection).error
    except msgspec.DecodeError as malformed:
        return f"429: {malformed}"
    has_reason = error.code == "overloaded" and " wait" in error.message
    return "" if has_reason else f"429 without a reason: {error.message}"
