"""A router with a State in the same process, and engines that answer requests for responses."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gateway.asgi import Message, Receive, Scope
from gateway.config.state import StateConfig
from gateway.errors.state import StateDown
from gateway.header_names import PROJECT
from gateway.http.state.app import StateApp
from gateway.serving.client_identity import identity_in
from gateway.serving.client_response import ClientResponse
from gateway.serving.state_client import StateAnswer, StateUnavailable
from gateway.store.database import Database
from gateway.store.file_storage import FileStorage
from gateway.store.project_state import ProjectState
from tests.unit.conftest import Visit, answer, chunked

RESPONSES = "/v1/responses"
DATABASE = "state.db"
Json = dict[str, Any]


class Clock:
    """The time of day, which tests set."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now_s


class InProcessState:
    """`StateClient` without a server between; tests send it away."""

    def __init__(self, state: ProjectState) -> None:
        self.state = state
        self.app = StateApp(state)
        self.is_away = False
        self.before: Callable[[str], None] = lambda path: None
        """Called with the path of each request."""

    async def request(self, project: str, method: str, path: str, body: bytes = b"") -> StateAnswer:
        """Ask for JSON."""
        self.before(path)
        if self.is_away:
            raise StateUnavailable("away")
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://state") as client:
            headers = {PROJECT.decode(): quote(project, safe="")}
            found = await client.request(method, path, content=body, headers=headers)
        return StateAnswer(found.status_code, found.content)

    async def forward(self, scope: Scope, receive: Receive, response: ClientResponse) -> None:
        """Pass a request on."""
        if self.is_away:
            raise StateDown("away")
        project = quote(identity_in(scope).project.id, safe="").encode()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                await response.begin(message["status"], list(message["headers"]))
            elif message.get("more_body"):
                await response.send_part(message.get("body", b""))
            else:
                await response.finish(message.get("body", b""))

        headers = [each for each in scope["headers"] if each[0] != PROJECT]
        asked = {name: value for name, value in scope.items() if not name.startswith("gateway.")}
        await self.app(dict(asked, headers=[*headers, (PROJECT, project)]), receive, send)


@asynccontextmanager
async def in_process_state(
    folder: Path, clock: Clock | None = None
) -> AsyncIterator[InProcessState]:
    """A State with a database in a folder, which may be there already."""
    database = await Database.open(f"sqlite:///{folder}/{DATABASE}")
    files = FileStorage(str(folder / "files"))
    state = ProjectState(database, files, StateConfig(), clock or Clock())
    yield InProcessState(state)
    await state.close()


def sent_body(request: bytes) -> Json:
    """The body of a request as an engine got it."""
    found: Json = json.loads(request.partition(b"\r\n\r\n")[2])
    return found


def sent_header(request: bytes, name: bytes) -> str:
    """A header of a request as an engine got it."""
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = (line.partition(b": ") for line in lines)
    return next(value.decode() for key, _, value in fields if key.lower() == name)


class ResponsesEngine:
    """Script of a `FakeEngine` that answers as vLLM's do; `bodies`: what it was asked."""

    def __init__(self, text: str = "Hello.") -> None:
        self.text = text
        self.bodies: list[Json] = []
        self.before_end: Callable[[], Any] = lambda: None
        """Called before the end of an answer; awaited if that can be."""
        self.chunk_size = 1
        """Letters of a chunk of a chat."""
        self.sends_at_once = False
        """Chunks of a chat and its end come in one part."""
        self.names_chats_by_request = False
        """As vLLM does."""

    async def __call__(self, visit: Visit) -> None:
        """Answer a request."""
        body = sent_body(visit.request)
        self.bodies.append(body)
        if "messages" in body:
            await self._chat(visit, body)
        elif body.get("stream"):
            await self._stream(visit, body)
        else:
            await self._end()
            whole = self.response(body)
            await visit.send(answer(json.dumps(whole).encode(), b"content-type: application/json"))

    def response(self, body: Json, status: str = "completed") -> Json:
        """The object that it answers with."""
        number = len(self.bodies)
        item = {
            "type": "message",
            "id": f"msg_{number}_{id(self)}",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": self.text, "annotations": []}],
        }
        return {
            "id": f"resp_engine_{number}",
            "object": "response",
            "created_at": 7,
            "status": status,
            "background": False,
            "model": body["model"],
            "output": [item] if status == "completed" else [],
            "previous_response_id": None,
            "store": False,
            "metadata": body.get("metadata", {}),
        }

    async def _stream(self, visit: Visit, body: Json) -> None:
        begun = self.response(body, "in_progress")
        events = [
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {"type": "response.in_progress", "sequence_number": 1, "response": begun},
            *(
                {"type": "response.output_text.delta", "sequence_number": place, "delta": letter}
                for place, letter in enumerate(self.text, 2)
            ),
        ]
        await visit.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n",
            *(chunked(_event(event)) for event in events),
        )
        await self._end()
        last = {
            "type": "response.completed",
            "sequence_number": 2 + len(self.text),
            "response": self.response(body),
        }
        await visit.send(chunked(_event(last)), b"0\r\n\r\n")

    async def _chat(self, visit: Visit, body: Json) -> None:
        name = str(len(self.bodies))
        if self.names_chats_by_request:
            name = sent_header(visit.request, b"x-request-id")
        head = {"id": f"chatcmpl-{name}", "created": 7, "model": body["model"]}
        if not body.get("stream"):
            await self._end()
            message = {"role": "assistant", "content": self.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**head, "object": "chat.completion", "choices": [choice]}
            await visit.send(answer(json.dumps(whole).encode(), b"content-type: application/json"))
            return
        size = self.chunk_size
        texts = [self.text[start : start + size] for start in range(0, len(self.text), size)]
        deltas: list[Json] = [{"role": "assistant"}, *({"content": each} for each in texts)]
        chunks = [
            {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
            for delta in deltas
        ]
        chunks[-1]["choices"][0]["finish_reason"] = "stop"
        start = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        parts = [b"data: " + _compact(chunk) + b"\n\n" for chunk in chunks]
        end = b"data: [DONE]\n\n"
        if self.sends_at_once:
            await visit.send(start + chunked(b"".join(parts) + end) + b"0\r\n\r\n")
            return
        await visit.send(start, *map(chunked, parts))
        await self._end()
        await visit.send(chunked(end), b"0\r\n\r\n")

    async def _end(self) -> None:
        waited = self.before_end()
        if waited is not None:
            await waited


def events_in(text: str) -> list[Json]:
    """The events of a stream."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def _event(fields: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), _compact(fields))


def _compact(fields: Json) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
