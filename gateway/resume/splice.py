"""Another engine's stream made into the rest of one that broke."""

from collections.abc import Callable, Mapping

import msgspec

from gateway.resume.fields import NULL, Fields, is_given, raw
from gateway.resume.transcript import (
    CONTENT,
    DELTA_TEXTS,
    DONE_DATA,
    REASONING,
    TEXTS,
    Channel,
    ChoiceTranscript,
    LogProbs,
    Transcript,
    Usage,
    logprobs_length,
)
from gateway.upstream.sse import DONE, payload, split

_fields = msgspec.json.Decoder(Fields)
_choices = msgspec.json.Decoder(list[Fields])
_text = msgspec.json.Decoder(str)
_token_ids = msgspec.json.Decoder(list[msgspec.Raw])
_logprobs = msgspec.json.Decoder(LogProbs)


class Diverged(Exception):
    """The other engine's answer is not the one that the client has the beginning of."""


class Overlap:
    """The text that both streams have: the end of what was sent, and the start of what comes.

    `is_lenient`: what comes may be different, and replaces what it does not repeat.
    """

    __slots__ = ("_is_lenient", "_position", "_text")

    def __init__(self, text: str, *, is_lenient: bool = False) -> None:
        self._text = text
        self._position = 0
        self._is_lenient = is_lenient

    @property
    def is_over(self) -> bool:
        """Whether all that comes now is new."""
        return self._is_lenient or self._position == len(self._text)

    def pass_on(self, text: str) -> str:
        """The part of `text` that the client does not have.

        Raises:
            Diverged: it contradicts what the client has.
        """
        known = self._text[self._position : self._position + len(text)]
        if text.startswith(known):
            self._position += len(known)
            return text[len(known) :]
        if not self._is_lenient:
            raise Diverged("The other engine's answer differs from what was sent.")
        self._position = len(self._text)
        pairs = zip(known, text, strict=False)
        return text[next(i for i, (old, new) in enumerate(pairs) if old != new) :]


class Overlaps:
    """All that both streams have of one choice."""

    def __init__(self, said: ChoiceTranscript, texts: Mapping[Channel, Overlap]) -> None:
        self.texts = dict(texts)
        self.begun_calls = {number for kind, number in said.texts if kind == "name"}
        """Tool calls of which the client has the id."""
        self.has_role = said.has_role
        self.is_finished = said.finish_reason is not None
        self.logprobs = 0
        """Tokens whose probabilities the client has, and that come again."""
        self.token_ids = 0
        self.impossible: Channel | None = None
        """What cannot follow upon what was said."""

    @classmethod
    def whole(cls, said: ChoiceTranscript) -> "Overlaps":
        """For a stream that begins at the beginning."""
        overlaps = cls(said, {channel: Overlap(text) for channel, text in said.texts.items()})
        overlaps.logprobs, overlaps.token_ids = said.logprobs, said.token_ids
        return overlaps

    @classmethod
    def tail(cls, said: ChoiceTranscript, text: str, *, is_lenient: bool) -> "Overlaps":
        """For a stream that goes on where only the content's end, `text`, is missing."""
        overlaps = cls(said, {CONTENT: Overlap(text, is_lenient=is_lenient)})
        overlaps.impossible = REASONING
        return overlaps

    @property
    def is_over(self) -> bool:
        """Whether all that comes now is new."""
        return all(overlap.is_over for overlap in self.texts.values())

    def pass_on(self, channel: Channel, text: str) -> str:
        """The part of a text that the client does not have."""
        if text and channel == self.impossible:
            raise Diverged("The other engine takes the rest of the answer for reasoning.")
        overlap = self.texts.get(channel)
        return text if overlap is None else overlap.pass_on(text)


class Splice:
    """Turns the events of a new stream into what is missing of an old one.

    Drops what the client has, once it has been seen to be the same, gives all chunks the identity
    of the old stream, and counts `kept_tokens` of the new prompt as tokens of the answer. A text
    has other tokens together with the prompt if that ends within a word: `prompt_tokens` are then
    those of the prompt alone.
    """

    def __init__(
        self,
        transcript: Transcript,
        overlaps: Callable[[ChoiceTranscript], Overlaps] = Overlaps.whole,
        kept_tokens: int = 0,
        prompt_tokens: int | None = None,
    ) -> None:
        self._is_first = transcript.is_empty
        self._identity = transcript.identity
        self._overlaps = {i: overlaps(said) for i, said in transcript.choices.items()}
        self._has_usage = transcript.has_usage
        self._is_done = transcript.is_done
        self._kept_tokens = kept_tokens
        self._prompt_tokens = prompt_tokens

    def feed(self, events: bytes) -> bytes:
        """What the client gets for whole events of the new stream; nothing of it if this raises.

        Raises:
            Diverged: the new stream contradicts what was sent.
        """
        if self._is_first:
            return events
        try:
            return b"".join(self._event(event) for event in split(events))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Diverged("The other engine's events cannot be read.") from None

    def _event(self, event: bytes) -> bytes:
        data = payload(event)
        if not data:
            return event + b"\n\n"
        if self._is_done:
            return b""
        if data == DONE_DATA:
            self._is_done = True
            return DONE
        chunk = _fields.decode(data)
        if "choices" in chunk and not self._mend(chunk):
            return b""
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _mend(self, chunk: Fields) -> bool:
        """Make a chunk one of the old stream; whether the client needs it."""
        choices = _choices.decode(chunk["choices"])
        new = [choice for choice in choices if self._choice(choice)]
        usage = chunk.get("usage", NULL)
        if not choices:
            if self._has_usage:
                return False
            self._has_usage = usage != NULL
        elif not new:
            return False
        chunk.update(self._identity)
        chunk["choices"] = raw(new)
        if usage != NULL and self._kept_tokens:
            chunk["usage"] = self._usage(usage)
        return True

    def _choice(self, choice: Fields) -> bool:
        """Take from a choice what the client has; whether anything is left."""
        index = msgspec.json.decode(choice.get("index", b"0"), type=int)
        overlaps = self._overlaps.setdefault(index, Overlaps(ChoiceTranscript(), {}))
        has_text = _mend_texts(choice, overlaps, ("text",))
        has_role = False
        if is_given(choice, "delta"):
            delta = _fields.decode(choice["delta"])
            has_role = _mend_role(delta, overlaps)
            has_text = _mend_texts(delta, overlaps, DELTA_TEXTS) or has_text
            has_text = _mend_calls(delta, overlaps) or has_text
            choice["delta"] = raw(delta)
        has_details = _mend_details(choice, overlaps)
        is_end = is_given(choice, "finish_reason")
        _check(overlaps, has_text=has_text, is_end=is_end)
        if overlaps.is_finished:
            return False
        overlaps.is_finished = is_end
        return has_text or has_role or has_details or is_end

    def _usage(self, usage: msgspec.Raw) -> msgspec.Raw:
        counts = msgspec.json.decode(usage, type=Usage)
        fields = _fields.decode(usage)
        prompt_tokens = self._prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = max(0, counts.prompt_tokens - self._kept_tokens)
        completion_tokens = (counts.completion_tokens or 0) + self._kept_tokens
        fields["prompt_tokens"] = raw(prompt_tokens)
        fields["completion_tokens"] = raw(completion_tokens)
        fields["total_tokens"] = raw(prompt_tokens + completion_tokens)
        if is_given(fields, "prompt_tokens_details"):
            details = _fields.decode(fields["prompt_tokens_details"])
            cached_tokens = msgspec.json.decode(details.get("cached_tokens", NULL), type=int | None)
            if cached_tokens is not None:
                details["cached_tokens"] = raw(min(cached_tokens, prompt_tokens))
                fields["prompt_tokens_details"] = raw(details)
        return raw(fields)


def _check(overlaps: Overlaps, *, has_text: bool, is_end: bool) -> None:
    if (has_text or is_end) and not overlaps.is_over:
        raise Diverged("The other engine's answer has less than what was sent.")
    if has_text and overlaps.is_finished:
        raise Diverged("The other engine's answer has more than what was sent.")


def _mend_role(delta: Fields, overlaps: Overlaps) -> bool:
    if not is_given(delta, "role"):
        return False
    if overlaps.has_role:
        del delta["role"]
        return False
    overlaps.has_role = True
    return True


def _mend_texts(fields: Fields, overlaps: Overlaps, names: tuple[str, ...]) -> bool:
    has_new = False
    for name in names:
        if is_given(fields, name):
            text = overlaps.pass_on(TEXTS[name], _text.decode(fields[name]))
            fields[name] = raw(text)
            has_new = has_new or bool(text)
    return has_new


def _mend_calls(delta: Fields, overlaps: Overlaps) -> bool:
    if not is_given(delta, "tool_calls"):
        return False
    calls = [call for call in _choices.decode(delta["tool_calls"]) if _mend_call(call, overlaps)]
    if calls:
        delta["tool_calls"] = raw(calls)
    else:
        del delta["tool_calls"]
    return bool(calls)


def _mend_call(call: Fields, overlaps: Overlaps) -> bool:
    index = msgspec.json.decode(call.get("index", b"0"), type=int)
    is_begun = index in overlaps.begun_calls
    if is_begun:
        # Ids are random. SDKs add up what comes, so what the client has must not come again.
        call.pop("id", None)
        call.pop("type", None)
    has_text = False
    if is_given(call, "function"):
        function = _fields.decode(call["function"])
        for name in ("name", "arguments"):
            if is_given(function, name):
                text = overlaps.pass_on((name, index), _text.decode(function[name]))
                has_text = has_text or bool(text)
                function[name] = raw(text)
                if is_begun and not text:
                    del function[name]
        call["function"] = raw(function)
    return has_text or not is_begun


def _mend_details(choice: Fields, overlaps: Overlaps) -> bool:
    """Take from the lists that have an entry for each token what the client has."""
    token_ids = _token_ids.decode(choice["token_ids"]) if is_given(choice, "token_ids") else []
    known = min(len(token_ids), overlaps.token_ids)
    overlaps.token_ids -= known
    if known:
        choice["token_ids"] = raw(token_ids[known:])
    logprobs = _logprobs.decode(choice["logprobs"]) if is_given(choice, "logprobs") else {}
    length = logprobs_length(logprobs)
    known_logprobs = min(length, overlaps.logprobs)
    overlaps.logprobs -= known_logprobs
    if known_logprobs:
        choice["logprobs"] = raw({k: v and v[known_logprobs:] for k, v in (logprobs or {}).items()})
    return len(token_ids) > known or length > known_logprobs
