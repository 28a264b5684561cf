"""Streamed chat completion (server-sent events), read line by line with the time of each token."""

from typing import Any

import msgspec

DATA = b"data:"
DONE = b"[DONE]"
MAX_REASON_LENGTH = 160


class IncompleteStream(Exception):
    """The stream is not a whole answer; the message says why."""


class CachedTokensDetails(msgspec.Struct):
    """OpenAI's `usage.prompt_tokens_details`."""

    cached_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """OpenAI's `usage`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: CachedTokensDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were served from a KV cache."""
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
    usage: ReportedUsage | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


class _ErrorEvent(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _ErrorFields(msgspec.Struct):
    error: _ErrorEvent


_events = msgspec.json.Decoder(_Event)


class ChatStream:
    """Streamed chat as received so far; times are those of the caller's clock."""

    def __init__(self) -> None:
        self.usage = ReportedUsage()
        self.first_token_s: float | None = None
        self.last_token_s = 0.0
        self.is_done = False
        """Whether `[DONE]` has arrived."""
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The answer's text, without reasoning."""
        return "".join(self._parts)

    @property
    def itl_s(self) -> float | None:
        """Mean inter-token latency; None for an answer of one token."""
        gaps = self.usage.completion_tokens - 1
        if self.first_token_s is None or gaps < 1:
            return None
        return (self.last_token_s - self.first_token_s) / gaps

    def read(self, event: bytes, now_s: float) -> None:
        """Read the next event, or the next line, as every event has one line of data.

        Raises:
            IncompleteStream: it is an error event, or cannot be parsed.
        """
        data = event.strip()
        if not data.startswith(DATA):
            return  # a comment that keeps the connection alive
        data = data.removeprefix(DATA).strip()
        if data == DONE:
            self.is_done = True
            return
        try:
            read = _events.decode(data)
        except msgspec.DecodeError as error:
            raise IncompleteStream(f"malformed event: {error}") from None
        if bytes(read.error) not in {b"", b"null"}:
            raise IncompleteStream(f"error event: {error_reason(data)}")
        for choice in read.choices:
            self._read_delta(choice.delta, now_s)
        self.usage = read.usage or self.usage

    def require_end(self) -> None:
        """Check that the stream is complete.

        Raises:
            IncompleteStream: `[DONE]` has not arrived.
        """
        if not self.is_done:
            raise IncompleteStream("the stream ended without [DONE]")

    def _read_delta(self, delta: _Delta, now_s: float) -> None:
        if delta.content:
            self._parts.append(delta.content)
        if delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls:
            self.first_token_s = now_s if self.first_token_s is None else self.first_token_s
            self.last_token_s = now_s


def error_reason(body: bytes) -> str:
    """An OpenAI error as one line; the beginning of anything else."""
    try:
        error = msgspec.json.decode(body, type=_ErrorFields).error
    except msgspec.DecodeError:
        text = body.decode(errors="replace")
    else:
        kind = error.code or error.type
        text = f"{kind}: {error.message}" if kind else error.message
    return " ".join(text.split())[:MAX_REASON_LENGTH]
