"""The end of a stream, where the router itself knows it."""

import msgspec

from gateway.request.routes import CHAT
from gateway.resume.transcript import Transcript
from gateway.upstream.sse import DONE


class TokenCounts(msgspec.Struct, frozen=True):
    """What an answer has come to, in the shape of OpenAI's usage."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        """With their sum."""
        total = self.prompt_tokens + self.completion_tokens
        return {**msgspec.structs.asdict(self), "total_tokens": total}


def ending(
    path: str,
    transcript: Transcript,
    tokens: TokenCounts | None = None,
    *,
    is_out_of_tokens: bool = False,
) -> bytes:
    """The events that are missing: a finish for want of tokens, the usage, `[DONE]`.

    `tokens`: for the usage, if one is to be sent; in the finish, too, where earlier chunks had one.
    """
    events = b""
    if is_out_of_tokens:
        choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": "length"}
        choice["delta" if path == CHAT else "text"] = {} if path == CHAT else ""
        events += _chunk(
            path, transcript, [choice], tokens if transcript.usage is not None else None
        )
    if tokens is not None:
        events += _chunk(path, transcript, [], tokens)
    return events if transcript.is_done else events + DONE


def _chunk(
    path: str, transcript: Transcript, choices: list[dict[str, object]], tokens: TokenCounts | None
) -> bytes:
    chunk: dict[str, object] = {
        "object": "chat.completion.chunk" if path == CHAT else "text_completion",
        **transcript.identity,
        "choices": choices,
    }
    if tokens is not None:
        chunk["usage"] = tokens.usage
    return b"data: %b\n\n" % msgspec.json.encode(chunk)
