"""Plain HTTP to a gateway, and its answers read as a client without an SDK reads them."""

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60
DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    name: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        """Whether it is made of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def json(self) -> Any:
        """The body of a whole answer."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Event]:
        """The events of a stream, comments left out."""
        return list(_events(self.body.decode()))


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Send a request on a connection of its own, and read all of the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        sent = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, path, body, {**sent, **(headers or {})})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def _events(text: str) -> Iterator[Event]:
    for block in text.split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
        if "data" in fields:
            yield Event("".join(fields.get("event", [])), "\n".join(fields["data"]))
