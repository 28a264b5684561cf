"""Plans how a broken stream is resumed: the request for another engine, and the use of its events.

Method: if no output was sent, the request is sent again. A text is continued: the new prompt is the
old one plus the text, and the token limit is what is left of it. At temperature 0 the text is first
cut back to the end of a word, since tokens end there, too; the engine repeats the last word, which
must be the same. Any other answer that an engine generates the same way twice is requested again
from its beginning, compared with what was sent, and forwarded from there on. Other streams cannot
be resumed: `docs/reliability.md` has the table.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from gateway.request.routes import CHAT, COMPLETIONS
from gateway.resume.completion_params import (
    CompletionParams,
    Unresumable,
    check_continuable,
    choice_count,
    has_stop_strings,
    parse_params,
    token_limits,
)
from gateway.resume.continuation import Continuation, Tokenize, build_continuation
from gateway.resume.final_events import final_events
from gateway.resume.raw_json import RawObject, to_raw
from gateway.resume.splice import ChoiceOverlap, Splice
from gateway.resume.stream_log import StreamLog
from gateway.resume.transcript import ChoiceTranscript, Transcript
from gateway.upstream.completion_chunk import CONTENT, TokenUsage

REPLACEMENT_CHARACTER = "\ufffd"
"""Engines write it for bytes that are no text, but its tokens are not those of the bytes."""
CANNOT_COUNT = "The engine cannot count the answer's tokens."


class ResumptionPlan(msgspec.Struct, frozen=True):
    """Plan for the rest of a stream."""

    path: str
    body: bytes | None
    """Request for another engine; None if no engine is needed."""
    splice: Splice
    """Turns the engine's events into the rest of the stream."""
    answered_bytes: int = 0
    """Bytes of the answer at the end of the prompt; four for each token id."""
    final_events: bytes = b""
    """Rest of the stream, if no engine is needed."""
    kept_tokens: int | None = None
    """Tokens of these `answered_bytes`; None if they are not known, or there are none."""


class _BrokenStream(msgspec.Struct, frozen=True):
    """Broken stream of a completion: its request, and what the client was sent."""

    path: str
    body: bytes
    params: CompletionParams
    fields: RawObject
    transcript: Transcript

    @property
    def is_finished(self) -> bool:
        return self.transcript.is_finished(choice_count(self.path, self.params))

    @property
    def reports_usage(self) -> bool:
        """Whether the stream reports token counts; engines may do so without a request."""
        return self.params.wants_usage or self.transcript.usage is not None

    @property
    def lacks_usage(self) -> bool:
        return self.reports_usage and not self.transcript.has_usage

    @property
    def known_usage(self) -> TokenUsage | None:
        """The missing usage, if the event with the finish had one."""
        usage = self.transcript.usage
        if usage is None or not self.lacks_usage or len(self.transcript.choices) > 1:
            return None
        return usage


async def plan_resumption(
    path: str, body: bytes, stream_log: StreamLog, tokenize: Tokenize
) -> ResumptionPlan:
    """Plan the rest of the response to `body`, whose events so far are in `stream_log`.

    Raises:
        Unresumable: no sound way exists.
    """
    transcript = stream_log.transcript
    if not transcript.is_empty:
        _check_resumable(path, transcript)
    if not transcript.has_output:
        return ResumptionPlan(path, body, Splice(transcript))
    broken = _BrokenStream(path, body, *parse_params(body), transcript)
    if broken.is_finished and (broken.known_usage or not broken.lacks_usage):
        return _without_engine(broken, broken.known_usage)
    try:
        return await _continue(broken, tokenize)
    except Unresumable:
        if broken.params.is_deterministic:
            return ResumptionPlan(path, body, Splice(transcript))
        if broken.is_finished:
            return _without_engine(broken)
        raise


def _check_resumable(path: str, transcript: Transcript) -> None:
    if path not in (CHAT, COMPLETIONS):
        raise Unresumable("Streams of this route cannot be resumed.")
    if not transcript.is_readable:
        raise Unresumable("The events sent so far cannot be parsed.")


def cut_at_word_end(text: str) -> str:
    """Return the text up to the last end of a word before a space; empty if there is none.

    Tokenizers split before a space after another character, whatever follows the space.
    """
    end = len(text)
    while (end := text.rfind(" ", 0, end)) > 0:
        if not text[end - 1].isspace():
            return text[:end]
    return ""


async def _continue(broken: _BrokenStream, tokenize: Tokenize) -> ResumptionPlan:
    params = broken.params
    check_continuable(params, broken.fields)
    text = _resumable_text(broken.transcript)
    if broken.is_finished and not params.is_greedy:
        return await _count_usage(broken, text, tokenize)
    kept = cut_at_word_end(text) if params.is_greedy else text.rstrip()
    make_overlap = partial(
        ChoiceOverlap.tail, text=text[len(kept) :], is_lenient=not params.is_greedy
    )
    if kept:
        continuation = await build_continuation(broken.path, params, broken.fields, kept, tokenize)
        return _with_engine(broken, continuation, make_overlap)
    if params.is_greedy:
        raise Unresumable("There is no whole word to continue from.")
    return ResumptionPlan(broken.path, broken.body, Splice(broken.transcript, make_overlap))


def _resumable_text(transcript: Transcript) -> str:
    sent = transcript.choices.get(0, ChoiceTranscript())
    text = sent.texts.get(CONTENT, "")
    if REPLACEMENT_CHARACTER in text:
        raise Unresumable("The answer has bytes that are no text.")
    kinds = {kind for kind, _ in sent.texts} - {CONTENT[0]}
    if kinds:
        kind = "reasoning" if "reasoning" in kinds else "a tool call" if "name" in kinds else "more"
        raise Unresumable(f"The answer has {kind} besides its text.")
    return text


def _with_engine(
    broken: _BrokenStream,
    continuation: Continuation,
    make_overlap: Callable[[ChoiceTranscript], ChoiceOverlap],
) -> ResumptionPlan:
    params, transcript = broken.params, broken.transcript
    kept_tokens = continuation.kept_tokens or 0
    limits = token_limits(broken.path, params, broken.fields, kept_tokens)
    limit = next(iter(limits.values()), None)
    is_limited = limit is not None or bool(params.min_tokens)
    if continuation.kept_tokens is None and (is_limited or broken.reports_usage):
        raise Unresumable(CANNOT_COUNT)
    if limit is not None and limit <= kept_tokens:
        if params.is_greedy:
            raise Unresumable("The answer's tokens, counted anew, exceed its limit.")
        return _finish_at_limit(broken, limit, continuation.prompt_tokens)
    changed = {name: to_raw(max(1, tokens - kept_tokens)) for name, tokens in limits.items()}
    if params.min_tokens:
        changed["min_tokens"] = to_raw(max(0, params.min_tokens - kept_tokens))
    body = msgspec.json.encode(broken.fields | continuation.fields | changed)
    # `/tokenize` may render a conversation incompletely, but never a text.
    prompt_tokens = continuation.prompt_tokens if broken.path == COMPLETIONS else None
    splice = Splice(transcript, make_overlap, kept_tokens, prompt_tokens)
    return ResumptionPlan(
        *(broken.path, body, splice, continuation.kept_bytes), kept_tokens=continuation.kept_tokens
    )


def _finish_at_limit(
    broken: _BrokenStream, limit: int, prompt_tokens: int | None
) -> ResumptionPlan:
    """End an answer that has all the tokens it may have, and lacks only its finish."""
    is_counted = broken.lacks_usage and prompt_tokens is not None
    usage = TokenUsage(prompt_tokens or 0, limit) if is_counted else None
    return _without_engine(broken, usage, is_out_of_tokens=True)


async def _count_usage(broken: _BrokenStream, text: str, tokenize: Tokenize) -> ResumptionPlan:
    """End a finished answer with the usage, counted by an engine's tokenizer."""
    choice = broken.transcript.choices[0]
    stop = choice.stop_reason if isinstance(choice.stop_reason, str) else ""
    if not stop and choice.finish_reason == "stop" and has_stop_strings(broken.params):
        raise Unresumable(CANNOT_COUNT)  # which of them ended it, if any, it does not say
    continuation = await build_continuation(
        broken.path, broken.params, broken.fields, text + stop, tokenize
    )
    if continuation.prompt_tokens is None or continuation.kept_tokens is None:
        raise Unresumable(CANNOT_COUNT)
    completion_tokens = continuation.kept_tokens
    if choice.finish_reason == "length":
        limits = token_limits(broken.path, broken.params, broken.fields, completion_tokens)
        completion_tokens = next(iter(limits.values()), completion_tokens)
    elif not stop:
        completion_tokens += 1  # the token that ends an answer has no text
    return _without_engine(broken, TokenUsage(continuation.prompt_tokens, completion_tokens))


def _without_engine(
    broken: _BrokenStream, usage: TokenUsage | None = None, *, is_out_of_tokens: bool = False
) -> ResumptionPlan:
    events = final_events(broken.path, broken.transcript, usage, is_out_of_tokens=is_out_of_tokens)
    return ResumptionPlan(broken.path, None, Splice(broken.transcript), final_events=events)
