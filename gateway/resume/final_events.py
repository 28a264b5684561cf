"""Builds the events that end a stream where no engine is needed for them."""

import msgspec

from gateway.request.routes import CHAT
from gateway.resume.transcript import Transcript
from gateway.upstream.completion_chunk import TokenUsage
from gateway.upstream.sse import DONE


def final_events(
    path: str,
    transcript: Transcript,
    usage: TokenUsage | None = None,
    *,
    is_out_of_tokens: bool = False,
) -> bytes:
    """Return the missing events: a finish with `length`, the usage, `[DONE]`.

    `usage`: the usage to send, if any; the finish gets it, too, if earlier chunks had one.
    """
    events = b""
    if is_out_of_tokens:
        choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": "length"}
        choice["delta" if path == CHAT else "text"] = {} if path == CHAT else ""
        finish_usage = usage if transcript.usage is not None else None
        events += _chunk(path, transcript, [choice], finish_usage)
    if usage is not None:
        events += _chunk(path, transcript, [], usage)
    return events if transcript.is_done else events + DONE


def _chunk(
    path: str, transcript: Transcript, choices: list[dict[str, object]], usage: TokenUsage | None
) -> bytes:
    chunk: dict[str, object] = {
        "object": "chat.completion.chunk" if path == CHAT else "text_completion",
        **transcript.identity,
        "choices": choices,
    }
    if usage is not None:
        chunk["usage"] = usage.with_total()
    return b"data: %b\n\n" % msgspec.json.encode(chunk)
