"""Turns another engine's stream into the rest of a stream that broke."""

from collections.abc import Callable, Mapping

import msgspec

from gateway.resume.raw_json import RawObject, has_value, to_raw
from gateway.resume.transcript import ChoiceTranscript, Transcript
from gateway.upstream.completion_chunk import (
    CONTENT,
    DELTA_TEXT_FIELDS,
    NULL,
    REASONING,
    TEXT_CHANNELS,
    Channel,
    LogProbs,
    TokenUsage,
    logprobs_count,
)
from gateway.upstream.sse import DONE, DONE_DATA, event_data, split_events

_fields = msgspec.json.Decoder(RawObject)
_choices = msgspec.json.Decoder(list[RawObject])
_text = msgspec.json.Decoder(str)
_token_ids = msgspec.json.Decoder(list[msgspec.Raw])
_logprobs = msgspec.json.Decoder(LogProbs)


class StreamDiverged(Exception):
    """The other engine's answer contradicts what the client was sent."""


class TextOverlap:
    """Text that was sent and that the new stream is to repeat at its start.

    `is_lenient`: the new text may differ; it then replaces the part that it does not repeat.
    """

    __slots__ = ("_is_lenient", "_position", "_text")

    def __init__(self, text: str, *, is_lenient: bool = False) -> None:
        self._text = text
        self._position = 0
        self._is_lenient = is_lenient

    @property
    def is_repeated(self) -> bool:
        """Whether all of it was repeated, so that the rest is new."""
        return self._is_lenient or self._position == len(self._text)

    def remove_from(self, text: str) -> str:
        """Return the part of `text` that the client does not have.

        Raises:
            Diverged: the text contradicts what the client has.
        """
        known = self._text[self._position : self._position + len(text)]
        if text.startswith(known):
            self._position += len(known)
            return text[len(known) :]
        if not self._is_lenient:
            raise StreamDiverged("The other engine's answer differs from what was sent.")
        self._position = len(self._text)
        pairs = zip(known, text, strict=False)
        return text[next(i for i, (old, new) in enumerate(pairs) if old != new) :]


class ChoiceOverlap:
    """Part of one choice that was sent and that the new stream is to repeat."""

    def __init__(self, sent: ChoiceTranscript, texts: Mapping[Channel, TextOverlap]) -> None:
        self.texts = dict(texts)
        self.started_calls = {number for kind, number in sent.texts if kind == "name"}
        """Indices of tool calls whose ids the client has."""
        self.has_role = sent.has_role
        self.is_finished = sent.finish_reason is not None
        self.logprobs = 0
        """Number of log probabilities still to be repeated."""
        self.token_ids = 0
        """Number of token ids still to be repeated."""
        self.forbidden: Channel | None = None
        """Channel that cannot get more text."""

    @classmethod
    def whole(cls, sent: ChoiceTranscript) -> "ChoiceOverlap":
        """Overlap of a new stream that begins at the beginning."""
        overlap = cls(sent, {channel: TextOverlap(text) for channel, text in sent.texts.items()})
        overlap.logprobs, overlap.token_ids = sent.logprobs, sent.token_ids
        return overlap

    @classmethod
    def tail(cls, sent: ChoiceTranscript, text: str, *, is_lenient: bool) -> "ChoiceOverlap":
        """Overlap of a new stream that repeats only `text`, the end of the content."""
        overlap = cls(sent, {CONTENT: TextOverlap(text, is_lenient=is_lenient)})
        overlap.forbidden = REASONING
        return overlap

    @property
    def is_repeated(self) -> bool:
        """Whether all texts were repeated, so that the rest is new."""
        return all(text.is_repeated for text in self.texts.values())

    def remove_from(self, channel: Channel, text: str) -> str:
        """Return the part of `text` that the client does not have.

        Raises:
            Diverged: the text contradicts what the client has.
        """
        if text and channel == self.forbidden:
            raise StreamDiverged("The other engine treats the rest of the answer as reasoning.")
        overlap = self.texts.get(channel)
        return text if overlap is None else overlap.remove_from(text)


class Splice:
    """Turns the events of a new stream into the missing rest of an old one.

    It checks that the new stream repeats what the client has, and drops that. It gives all chunks
    the identity of the old stream, and counts `kept_tokens` of the new prompt as tokens of the
    answer. If the prompt ends within a word, prompt and answer have other tokens together than
    apart: `prompt_tokens` are then the tokens of the prompt alone.
    """

    def __init__(
        self,
        transcript: Transcript,
        make_overlap: Callable[[ChoiceTranscript], ChoiceOverlap] = ChoiceOverlap.whole,
        kept_tokens: int = 0,
        prompt_tokens: int | None = None,
    ) -> None:
        self._is_first = transcript.is_empty
        self._identity = transcript.identity
        self._overlaps = {i: make_overlap(sent) for i, sent in transcript.choices.items()}
        self._has_usage = transcript.has_usage
        self._is_done = transcript.is_done
        self._kept_tokens = kept_tokens
        self._prompt_tokens = prompt_tokens

    def feed(self, events: bytes) -> bytes:
        """Return what the client gets for whole events of the new stream.

        Raises:
            Diverged: the new stream contradicts what was sent; none of these events may be sent.
        """
        if self._is_first:
            return events
        try:
            return b"".join(self._splice_event(event) for event in split_events(events))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise StreamDiverged("The other engine's events cannot be parsed.") from None

    def _splice_event(self, event: bytes) -> bytes:
        data = event_data(event)
        if not data:
            return event + b"\n\n"
        if self._is_done:
            return b""
        if data == DONE_DATA:
            self._is_done = True
            return DONE
        chunk = _fields.decode(data)
        if "choices" in chunk and not self._rewrite_chunk(chunk):
            return b""
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _rewrite_chunk(self, chunk: RawObject) -> bool:
        """Make a chunk part of the old stream; return whether the client needs it."""
        choices = _choices.decode(chunk["choices"])
        new = [choice for choice in choices if self._rewrite_choice(choice)]
        usage = chunk.get("usage", NULL)
        if not choices:
            if self._has_usage:
                return False
            self._has_usage = usage != NULL
        elif not new:
            return False
        chunk.update(self._identity)
        chunk["choices"] = to_raw(new)
        if usage != NULL and self._kept_tokens:
            chunk["usage"] = self._rewrite_usage(usage)
        return True

    def _rewrite_choice(self, choice: RawObject) -> bool:
        """Remove what the client has from a choice; return whether anything is left."""
        index = msgspec.json.decode(choice.get("index", b"0"), type=int)
        overlap = self._overlaps.setdefault(index, ChoiceOverlap(ChoiceTranscript(), {}))
        has_text = _rewrite_texts(choice, overlap, ("text",))
        has_role = False
        if has_value(choice, "delta"):
            delta = _fields.decode(choice["delta"])
            has_role = _rewrite_role(delta, overlap)
            has_text = _rewrite_texts(delta, overlap, DELTA_TEXT_FIELDS) or has_text
            has_text = _rewrite_calls(delta, overlap) or has_text
            choice["delta"] = to_raw(delta)
        has_details = _rewrite_details(choice, overlap)
        is_end = has_value(choice, "finish_reason")
        _check_overlap(overlap, has_text=has_text, is_end=is_end)
        if overlap.is_finished:
            return False
        overlap.is_finished = is_end
        return has_text or has_role or has_details or is_end

    def _rewrite_usage(self, usage: msgspec.Raw) -> msgspec.Raw:
        counts = msgspec.json.decode(usage, type=TokenUsage)
        fields = _fields.decode(usage)
        prompt_tokens = self._prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = max(0, counts.prompt_tokens - self._kept_tokens)
        completion_tokens = (counts.completion_tokens or 0) + self._kept_tokens
        fields["prompt_tokens"] = to_raw(prompt_tokens)
        fields["completion_tokens"] = to_raw(completion_tokens)
        fields["total_tokens"] = to_raw(prompt_tokens + completion_tokens)
        if has_value(fields, "prompt_tokens_details"):
            details = _fields.decode(fields["prompt_tokens_details"])
            cached_tokens = msgspec.json.decode(details.get("cached_tokens", NULL), type=int | None)
            if cached_tokens is not None:
                details["cached_tokens"] = to_raw(min(cached_tokens, prompt_tokens))
                fields["prompt_tokens_details"] = to_raw(details)
        return to_raw(fields)


def _check_overlap(overlap: ChoiceOverlap, *, has_text: bool, is_end: bool) -> None:
    if (has_text or is_end) and not overlap.is_repeated:
        raise StreamDiverged("The other engine's answer has less than what was sent.")
    if has_text and overlap.is_finished:
        raise StreamDiverged("The other engine's answer has more than what was sent.")


def _rewrite_role(delta: RawObject, overlap: ChoiceOverlap) -> bool:
    if not has_value(delta, "role"):
        return False
    if overlap.has_role:
        del delta["role"]
        return False
    overlap.has_role = True
    return True


def _rewrite_texts(fields: RawObject, overlap: ChoiceOverlap, names: tuple[str, ...]) -> bool:
    has_new = False
    for name in names:
        if has_value(fields, name):
            text = overlap.remove_from(TEXT_CHANNELS[name], _text.decode(fields[name]))
            fields[name] = to_raw(text)
            has_new = has_new or bool(text)
    return has_new


def _rewrite_calls(delta: RawObject, overlap: ChoiceOverlap) -> bool:
    if not has_value(delta, "tool_calls"):
        return False
    calls = [call for call in _choices.decode(delta["tool_calls"]) if _rewrite_call(call, overlap)]
    if calls:
        delta["tool_calls"] = to_raw(calls)
    else:
        del delta["tool_calls"]
    return bool(calls)


def _rewrite_call(call: RawObject, overlap: ChoiceOverlap) -> bool:
    index = msgspec.json.decode(call.get("index", b"0"), type=int)
    is_started = index in overlap.started_calls
    if is_started:
        # Ids are random. SDKs concatenate deltas, so what the client has must not be repeated.
        call.pop("id", None)
        call.pop("type", None)
    has_text = False
    for kind, text_field in (("function", "arguments"), ("custom", "input")):
        if has_value(call, kind):
            tool = _fields.decode(call[kind])
            has_new = _rewrite_tool(tool, text_field, index, overlap, is_started=is_started)
            has_text = has_text or has_new
            call[kind] = to_raw(tool)
    return has_text or not is_started


def _rewrite_tool(
    tool: RawObject, text_field: str, index: int, overlap: ChoiceOverlap, *, is_started: bool
) -> bool:
    """Remove what the client has from a call's name and text; return whether anything is left."""
    has_text = False
    for name, channel in (("name", "name"), (text_field, "arguments")):
        if has_value(tool, name):
            text = overlap.remove_from((channel, index), _text.decode(tool[name]))
            has_text = has_text or bool(text)
            tool[name] = to_raw(text)
            if is_started and not text:
                del tool[name]
    return has_text


def _rewrite_details(choice: RawObject, overlap: ChoiceOverlap) -> bool:
    """Remove what the client has from the lists with an entry per token."""
    token_ids = _token_ids.decode(choice["token_ids"]) if has_value(choice, "token_ids") else []
    known = min(len(token_ids), overlap.token_ids)
    overlap.token_ids -= known
    if known:
        choice["token_ids"] = to_raw(token_ids[known:])
    logprobs = _logprobs.decode(choice["logprobs"]) if has_value(choice, "logprobs") else {}
    length = logprobs_count(logprobs)
    known_logprobs = min(length, overlap.logprobs)
    overlap.logprobs -= known_logprobs
    if known_logprobs:
        choice["logprobs"] = to_raw(
            {k: v and v[known_logprobs:] for k, v in (logprobs or {}).items()}
        )
    return len(token_ids) > known or length > known_logprobs
