"""Client of State's HTTP server: passes requests of clients on, and asks for JSON."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import quote

import aiohttp
from aiohttp.connector import AddrInfoType
from yarl import URL

from gateway.asgi import Headers, Message, Receive, Scope, fields_of, has_body
from gateway.errors.request import UnsupportedEncoding
from gateway.errors.state import StateDown
from gateway.header_names import AUTHORIZATION, CONTENT_ENCODING, PROJECT, REQUEST_ID
from gateway.rare_warning import RareWarning
from gateway.serving.body import body_parts
from gateway.serving.client_identity import identity_in
from gateway.serving.client_response import ClientResponse
from gateway.serving.disconnect import UntilDisconnect
from gateway.serving.state_client import StateAnswer, StateUnavailable
from gateway.serving.state_location import StateLocation, StateLocator
from gateway.upstream.headers import CONNECTION_CLOSE, FORWARDED_TO_ENGINE, client_headers
from gateway.upstream.tcp_keepalive import enable_tcp_keepalive, set_tcp_option

LOCATE_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 20.0
"""Most time for the answer to a small request."""
IDLE_S = 30.0
"""How long idle connections are kept: less than State keeps them."""
UNREAD_S = 120
"""After this time, what State's machine has not taken ends the connection: State itself waits less
before it reads on."""
FORWARDED_TO_STATE = FORWARDED_TO_ENGINE | {b"content-length"}
"""Headers of a client that State may see."""
DOWN = "The gateway's storage does not answer now. Try again."
UNAUTHORIZED = 401

logger = logging.getLogger(__name__)


class HttpStateClient:
    """`StateClient` over HTTP; its owner must `close()` it."""

    def __init__(self, locator: StateLocator) -> None:
        self._locator = locator
        self._location: StateLocation | None = None
        self._session: aiohttp.ClientSession | None = None
        self._failures = RareWarning(logger)

    async def request(self, project: str, method: str, path: str, body: bytes = b"") -> StateAnswer:
        """Ask State for JSON, on behalf of a project.

        Raises:
            StateUnavailable: it cannot be reached, or did not answer in time.
        """
        headers = [(PROJECT, _project_value(project))]
        if body:
            headers.append((b"content-type", b"application/json"))
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), AsyncExitStack() as stack:
                answer = await self._ask(stack, method, path, headers, body or None)
                return StateAnswer(answer.status, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StateUnavailable(self._record_failure(error)) from None

    async def forward(self, scope: Scope, receive: Receive, response: ClientResponse) -> None:
        """Pass a client's whole request on, and the answer back, both as they come.

        Raises:
            StateDown: State cannot be reached, or its answer broke off.
            UnsupportedEncoding: the body is compressed.
            ClientDisconnected: the client has left, also before there was an answer.
        """
        if fields_of(scope).get(CONTENT_ENCODING, b"identity") != b"identity":
            raise UnsupportedEncoding("Bodies of this route cannot be compressed.", "identity")
        upload = _Upload(receive) if has_body(scope) else None
        if upload is None:
            await receive()  # the end of no body: what comes next is that the client has left
        rest = receive if upload is None else upload.receive_rest
        try:
            async with UntilDisconnect(rest, response), AsyncExitStack() as stack:
                headers = _headers_for_state(scope, response)
                parts = None if upload is None else upload.parts()
                is_head = scope["method"] == "HEAD"
                method = "GET" if is_head else scope["method"]
                answer = await self._ask(stack, method, _target(scope), headers, parts)
                await _relay(answer, response, upload, is_head=is_head)
        except (aiohttp.ClientError, StateUnavailable, TimeoutError) as error:
            if upload is not None and upload.error is not None:
                raise upload.error from None
            self._record_failure(error)
            raise StateDown(DOWN) from error

    def _record_failure(self, error: Exception) -> str:
        """Look for State anew next time, and log why; returns that."""
        self._location = None
        reason = str(error) or type(error).__name__
        self._failures.log("State cannot be reached: %s", reason)
        return reason

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self,
        stack: AsyncExitStack,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> aiohttp.ClientResponse:
        """Send a request; once more, if State has moved and has got nothing of it."""
        location, is_new = await self._locate()
        try:
            answer = await self._send(stack, location, method, path, headers, body)
        except aiohttp.ClientConnectorError:
            if is_new:
                raise
        else:
            if answer.status != UNAUTHORIZED:
                return answer
            if is_new or isinstance(body, AsyncIterator):
                raise StateUnavailable("State has moved")  # what has been read is lost
        self._location = None
        location, _ = await self._locate()
        return await self._send(stack, location, method, path, headers, body)

    async def _send(
        self,
        stack: AsyncExitStack,
        location: StateLocation,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> aiohttp.ClientResponse:
        host = f"[{location.host}]" if ":" in location.host else location.host
        every = [(AUTHORIZATION, b"Bearer " + location.key.encode()), *headers]
        return await stack.enter_async_context(
            self._connections().request(
                method,
                URL(f"http://{host}:{location.port}{path}", encoded=True),
                headers=[(name.decode(), value.decode("latin-1")) for name, value in every],
                data=body,
                allow_redirects=False,
            )
        )

    async def _locate(self) -> tuple[StateLocation, bool]:
        """Where State is, and whether that has just been asked."""
        if self._location is not None:
            return self._location, False
        async with asyncio.timeout(LOCATE_TIMEOUT_S):
            self._location = await self._locator.locate()
        return self._location, True

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=IDLE_S, socket_factory=_socket
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class _Upload:
    """A client's body on its way to State."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._completed = asyncio.Event()
        self.error: BaseException | None = None
        """Why it broke off, where that was the client."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it has been read."""
        return self._completed.is_set()

    async def receive_rest(self) -> Message:
        """What comes after the body: that the client has left."""
        await self._completed.wait()
        return await self._receive()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        try:
            async for part in body_parts(self._receive):
                yield part
        except Exception as error:
            self.error = error
            raise
        self._completed.set()


async def _relay(
    answer: aiohttp.ClientResponse,
    response: ClientResponse,
    upload: _Upload | None,
    *,
    is_head: bool,
) -> None:
    headers = client_headers([(name.lower(), value) for name, value in answer.raw_headers])
    is_read = upload is None or upload.is_complete
    await response.begin(answer.status, headers if is_read else [*headers, CONNECTION_CLOSE])
    if is_head:
        await response.finish()
        return
    if not is_read:  # an error, said before all has been read: it is short
        await response.finish(await answer.read())
        answer.close()  # the rest of the body would be the beginning of the next request
        return
    async for part in answer.content.iter_any():
        await response.send_part(part)
    await response.finish()


def _socket(address: AddrInfoType) -> socket.socket:
    """A socket that notices the end of State's machine, which nobody else may tell it."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    enable_tcp_keepalive(sock)
    set_tcp_option(sock, "TCP_USER_TIMEOUT", 1000 * UNREAD_S)
    return sock


def _headers_for_state(scope: Scope, response: ClientResponse) -> Headers:
    kept = [
        each
        for each in scope["headers"]
        if each[0] in FORWARDED_TO_STATE and b"\n" not in each[1] and b"\r" not in each[1]
    ]
    project = _project_value(identity_in(scope).project.id)
    return [*kept, (PROJECT, project), (REQUEST_ID, response.request_id)]


def _project_value(project: str) -> bytes:
    return quote(project, safe="").encode()


def _target(scope: Scope) -> str:
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope["query_string"]
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    return target.decode("latin-1")
