"""The table of requests: each with the status, the shape and the values of its right answer.

`table/*.yaml` has a file for each API. A file has groups, a group has the method and path of its
requests, their shape, the body that they share, and the requests:

    with       fields of the body beside the shared ones, or in their place
    without    shared fields that are left out
    raw        a body that is not JSON, instead
    path       another path than the group's
    headers    of the request
    status     200 if it is not given
    shape      of the answer; by default the group's, or its `error` for another status than 200
    value      what stands at a path of the answer: a literal, or `~` and a regular expression
    has        paths that must be there, whatever their value
    hasnt      paths that must not
    answered   headers of the answer
    asked_for  fields of vLLM that the request asks for
    known      why the answer is another one, as long as it is

`LONG` in a body stands for a text that no context holds. A stream is looked at as
{events, first, last, types, text, arguments}.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from conformance.http_answers import DONE, Answer, ask
from conformance.shapes import SHAPES, deviations

TABLE = Path(__file__).parent / "table"
_STEP = re.compile(r"[^.\[\]]+")
_LONG = json.dumps("word " * 40_000)
_MISSING = object()


class TableRow(BaseModel):
    """A request and its right answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    with_: dict[str, Any] = Field({}, alias="with")
    without: list[str] = []
    raw: str | None = None
    path: str | None = None
    headers: dict[str, str] = {}
    status: int = 200
    shape: str | None = None
    value: dict[str, Any] = {}
    has: list[str] = []
    hasnt: list[str] = []
    answered: dict[str, str] = {}
    asked_for: list[str] = []
    known: str | None = None


class TableGroup(BaseModel):
    """Requests of one route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    route: str
    shape: str
    error: str = "error"
    body: dict[str, Any] = {}
    headers: dict[str, str] = {}
    requests: list[TableRow]


class TableCase:
    """One row of the table within its group."""

    def __init__(self, group: TableGroup, row: TableRow) -> None:
        self._group, self._row = group, row
        self.name = f"{group.name}: {row.name}"
        self.known = row.known

    def deviations(self, url: str) -> list[str]:
        """Send the request to a gateway; what is wrong with the answer."""
        method, _, path = self._group.route.partition(" ")
        headers = {**self._group.headers, **self._row.headers}
        answer = ask(url, method, self._row.path or path, self._body(method), headers)
        try:
            return list(self._wrongs(answer))
        except (ValueError, KeyError) as error:
            return [f"unreadable ({error}): {answer.body[:300]!r}"]

    def _body(self, method: str) -> bytes | None:
        if method in {"GET", "DELETE"}:
            return None
        if self._row.raw is not None:
            return self._row.raw.encode("latin-1")
        shared = {k: v for k, v in self._group.body.items() if k not in self._row.without}
        return json.dumps({**shared, **self._row.with_}).replace('"LONG"', _LONG).encode()

    def _wrongs(self, answer: Answer) -> Iterator[str]:
        row = self._row
        if answer.status != row.status:
            yield f"status {answer.status}, not {row.status}: {answer.body[:300]!r}"
            return
        name = row.shape or (self._group.shape if row.status == 200 else self._group.error)
        shape = SHAPES[name]
        extras = shape.extras | set(row.asked_for)
        if answer.is_stream:
            value, wrongs = read_stream(answer, name)
            yield from wrongs
            for i, event in enumerate(value["events"]):
                yield from (f"event {i}{d}" for d in deviations(event, shape.event, extras))
        else:
            value = answer.json
            yield from deviations(value, shape.answer, extras)
        yield from _wrong_values(value, row)
        for header, wanted in row.answered.items():
            if not _is(answer.headers.get(header), wanted):
                yield f"header {header}: {answer.headers.get(header)!r}, not {wanted!r}"


def table_cases() -> list[TableCase]:
    """All requests of the table."""
    return [
        TableCase(group, row)
        for path in sorted(TABLE.glob("*.yaml"))
        for group in map(TableGroup.model_validate, yaml.safe_load(path.read_text()))
        for row in group.requests
    ]


def read_stream(answer: Answer, shape: str) -> tuple[dict[str, Any], list[str]]:
    """A stream as one value, and what is wrong with how it is put together."""
    events = answer.events
    wrongs = []
    if shape in {"chat", "completion"}:
        if not events or events[-1].data != DONE:
            wrongs.append("the stream does not end with [DONE]")
        events = [event for event in events if event.data != DONE]
    values = [json.loads(event.data) for event in events]
    if shape in {"response", "message"}:
        named = [
            (event.name, value.get("type")) for event, value in zip(events, values, strict=True)
        ]
        wrongs += [f"event {name!r} has type {type_!r}" for name, type_ in named if name != type_]
    if shape == "response":
        numbers = [value.get("sequence_number") for value in values]
        if numbers != list(range(len(numbers))):
            wrongs.append(f"sequence numbers {numbers[:10]}")
    return {
        "events": values,
        "first": values[0] if values else None,
        "last": values[-1] if values else None,
        "types": [value.get("type") for value in values],
        "text": "".join(_texts(values)),
        "arguments": "".join(_arguments(values)),
    }, wrongs


def _texts(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        for choice in event.get("choices") or ():
            yield choice.get("text") or choice.get("delta", {}).get("content") or ""
        delta = event.get("delta")
        if event.get("type") == "response.output_text.delta":
            yield str(delta)
        elif isinstance(delta, dict):
            yield delta.get("text") or ""


def _arguments(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        for choice in event.get("choices") or ():
            for call in choice.get("delta", {}).get("tool_calls") or ():
                yield call.get("function", {}).get("arguments") or ""
        delta = event.get("delta")
        if event.get("type") == "response.function_call_arguments.delta":
            yield str(delta)
        elif isinstance(delta, dict):
            yield delta.get("partial_json") or ""


def _wrong_values(value: object, row: TableRow) -> Iterator[str]:
    for path, wanted in row.value.items():
        found = _at(value, path)
        if not _is(found, wanted):
            shown = "missing" if found is _MISSING else repr(found)
            yield f"{path}: {shown[:200]}, not {wanted!r}"
    yield from (f"{path}: missing" for path in row.has if _at(value, path) is _MISSING)
    for path in row.hasnt:
        found = _at(value, path)
        if found is not _MISSING:
            yield f"{path}: {found!r:.200}, should not be there"


def _is(found: object, wanted: object) -> bool:
    if isinstance(wanted, str) and wanted.startswith("~") and found not in (None, _MISSING):
        text = found if isinstance(found, str) else json.dumps(found, default=str)
        return re.search(wanted[1:], text, re.DOTALL) is not None
    return type(found) is type(wanted) and found == wanted


def _at(value: Any, path: str) -> object:
    """What stands at a path such as `choices[0].message.content`."""
    for step in _STEP.findall(path):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return _MISSING
    return value
