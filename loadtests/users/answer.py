"""A streamed chat completion, read event by event, with a note of when its tokens came."""

from typing import Any

import msgspec

DATA = b"data:"
DONE = b"[DONE]"
LONGEST_REASON = 160


class Broken(Exception):
    """The answer is not what was asked for; the message says why."""


class PromptDetails(msgspec.Struct):
    """What of a prompt was in a cache."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """OpenAI's usage."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were not computed anew."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_events = msgspec.json.Decoder(_Event)


class Answer:
    """What has come of an answer so far; times are those of the caller's clock."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.first_s: float | None = None
        """When its first token came."""
        self.last_s = 0.0
        self.is_done = False
        """Whether the last event has come."""
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What the model says, thoughts excepted."""
        return "".join(self._parts)

    @property
    def itl_s(self) -> float | None:
        """Seconds from one token to the next, on average."""
        gaps = self.usage.completion_tokens - 1
        if self.first_s is None or gaps < 1:
            return None
        return (self.last_s - self.first_s) / gaps

    def read(self, event: bytes, now_s: float) -> None:
        """Take the next event, or the next line, as each of their events is one.

        Raises:
            Broken: it says that the answer has failed, or nothing that can be understood.
        """
        data = event.strip()
        if not data.startswith(DATA):
            return  # a comment, which keeps the connection
        data = data.removeprefix(DATA).strip()
        if data == DONE:
            self.is_done = True
            return
        try:
            read = _events.decode(data)
        except msgspec.DecodeError as error:
            raise Broken(f"an event that is not one: {error}") from None
        if bytes(read.error) not in {b"", b"null"}:
            raise Broken(f"error event: {reason_of(data)}")
        self._take(read, now_s)

    def _take(self, event: _Event, now_s: float) -> None:
        for choice in event.choices:
            delta = choice.delta
            if delta.content:
                self._parts.append(delta.content)
            if delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls:
                self.first_s = now_s if self.first_s is None else self.first_s
                self.last_s = now_s
        self.usage = event.usage or self.usage


def reason_of(body: bytes) -> str:
    """An error in OpenAI's shape, in one line; the beginning of anything else."""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except msgspec.DecodeError:
        said = body.decode(errors="replace")
    else:
        kind = error.code or error.type
        said = f"{kind}: {error.message}" if kind else error.message
    return " ".join(said.split())[:LONGEST_REASON]
