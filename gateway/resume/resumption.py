"""Carries on a stream that broke: what another engine is asked, and what is made of its answer.

Method: before anything was said, ask again. A text goes on: the new prompt is the old one and the
text, the allowance is what is left of it. At temperature 0 the text is first cut back to where a
word ends, since tokens end there too; the engine says the rest again, and that must be the same.
Whatever else gives the same answer twice is asked for again from its beginning, compared with what
was sent, and passed on from where that ends. The rest cannot be carried on: `docs/reliability.md`
has the table.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from gateway.request.routes import CHAT, COMPLETIONS
from gateway.resume.completion_params import (
    CompletionParams,
    Unresumable,
    check_continuable,
    choices,
    limits,
    read_params,
)
from gateway.resume.continuation import Continuation, Tokenize, continuation
from gateway.resume.ending import TokenCounts, ending
from gateway.resume.fields import Fields, raw
from gateway.resume.splice import Overlaps, Splice
from gateway.resume.stream_log import StreamLog
from gateway.resume.transcript import CONTENT, ChoiceTranscript, Transcript

REPLACEMENT = "\ufffd"
"""What engines write for bytes that are no text: it has other tokens than they."""
UNCOUNTED = "The engine cannot count the answer's tokens."


class Resumption(msgspec.Struct, frozen=True):
    """How a stream goes on."""

    path: str
    body: bytes | None
    """What another engine is asked; None if none is needed."""
    splice: Splice
    """Makes the engine's events into the rest of the stream."""
    answered_bytes: int = 0
    """Bytes of the answer that stand at the end of the prompt; four for each token id."""
    ending: bytes = b""
    """The rest of the stream, where no engine is needed."""


class _BrokenStream(msgspec.Struct, frozen=True):
    """Where a stream of a completion broke."""

    path: str
    body: bytes
    params: CompletionParams
    fields: Fields
    transcript: Transcript

    @property
    def is_finished(self) -> bool:
        return self.transcript.is_finished(choices(self.path, self.params))

    @property
    def is_counting(self) -> bool:
        """Whether the client is told the tokens; engines may do so without being asked."""
        return self.params.wants_usage or self.transcript.usage is not None

    @property
    def lacks_usage(self) -> bool:
        return self.is_counting and not self.transcript.has_usage

    @property
    def counted(self) -> TokenCounts | None:
        """The usage that is missing, where the finish came with one."""
        usage = self.transcript.usage
        if usage is None or not self.lacks_usage or len(self.transcript.choices) > 1:
            return None
        return TokenCounts(usage.prompt_tokens, usage.completion_tokens or 0)


async def resumption(
    path: str, body: bytes, stream_log: StreamLog, tokenize: Tokenize
) -> Resumption:
    """How to carry on the answer to `body`, of which a client has what is in `stream_log`.

    `tokenize`: POSTs a body to an engine's `/tokenize`, for the tokens; None if it has no answer.

    Raises:
        Unresumable: there is no sound way.
    """
    transcript = stream_log.transcript
    if not transcript.is_empty:
        _check(path, transcript)
    if transcript.is_blank:
        return Resumption(path, body, Splice(transcript))
    broken = _BrokenStream(path, body, *read_params(body), transcript)
    if broken.is_finished and (broken.counted or not broken.lacks_usage):
        return _ended(broken, broken.counted)
    try:
        return await _continued(broken, tokenize)
    except Unresumable:
        if broken.params.is_repeatable:
            return Resumption(path, body, Splice(transcript))
        if broken.is_finished:
            return _ended(broken)
        raise


def _check(path: str, transcript: Transcript) -> None:
    if path not in (CHAT, COMPLETIONS):
        raise Unresumable("Streams of this route cannot be carried on.")
    if not transcript.is_readable:
        raise Unresumable("What was sent cannot be read.")


def cut(text: str) -> str:
    """The text up to the end of a word after which a space follows; empty if there is none.

    Tokenizers split before a space that follows upon something else, whatever comes after it.
    """
    end = len(text)
    while (end := text.rfind(" ", 0, end)) > 0:
        if not text[end - 1].isspace():
            return text[:end]
    return ""


async def _continued(broken: _BrokenStream, tokenize: Tokenize) -> Resumption:
    params = broken.params
    check_continuable(params, broken.fields)
    text = _content(broken.transcript)
    if broken.is_finished and not params.is_greedy:
        return await _counted(broken, text, tokenize)
    kept = cut(text) if params.is_greedy else text.rstrip()
    overlaps = partial(Overlaps.tail, text=text[len(kept) :], is_lenient=not params.is_greedy)
    if kept:
        grown = await continuation(broken.path, params, broken.fields, kept, tokenize)
        return _asked(broken, grown, overlaps)
    if params.is_greedy:
        raise Unresumable("There is no whole word to go on from.")
    return Resumption(broken.path, broken.body, Splice(broken.transcript, overlaps))


def _content(transcript: Transcript) -> str:
    said = transcript.choices.get(0, ChoiceTranscript())
    text = said.texts.get(CONTENT, "")
    if REPLACEMENT in text:
        raise Unresumable("The answer has bytes that are no text.")
    kinds = {kind for kind, _ in said.texts} - {CONTENT[0]}
    if kinds:
        what = "reasoning" if "reasoning" in kinds else "a tool call" if "name" in kinds else "more"
        raise Unresumable(f"The answer has {what} beside its text.")
    return text


def _asked(
    broken: _BrokenStream, grown: Continuation, overlaps: Callable[[ChoiceTranscript], Overlaps]
) -> Resumption:
    params, transcript = broken.params, broken.transcript
    kept_tokens = grown.kept_tokens or 0
    counts = limits(broken.path, params, broken.fields, kept_tokens)
    limit = next(iter(counts.values()), None)
    is_limited = limit is not None or bool(params.min_tokens)
    if grown.kept_tokens is None and (is_limited or broken.is_counting):
        raise Unresumable(UNCOUNTED)
    if limit is not None and limit <= kept_tokens:
        if params.is_greedy:
            raise Unresumable("The answer's tokens can be counted in two ways.")
        return _out_of_tokens(broken, limit, grown.prompt_tokens)
    left = {name: raw(max(1, tokens - kept_tokens)) for name, tokens in counts.items()}
    if params.min_tokens:
        left["min_tokens"] = raw(max(0, params.min_tokens - kept_tokens))
    body = msgspec.json.encode(broken.fields | grown.fields | left)
    # What `/tokenize` renders of a conversation may lack something, but of a text nothing.
    prompt_tokens = grown.prompt_tokens if broken.path == COMPLETIONS else None
    splice = Splice(transcript, overlaps, kept_tokens, prompt_tokens)
    return Resumption(broken.path, body, splice, grown.kept_bytes)


def _out_of_tokens(broken: _BrokenStream, limit: int, prompt_tokens: int | None) -> Resumption:
    """The end of an answer that has all the tokens it may have, and lacks only its finish."""
    is_counted = broken.lacks_usage and prompt_tokens is not None
    tokens = TokenCounts(prompt_tokens or 0, limit) if is_counted else None
    return _ended(broken, tokens, is_out_of_tokens=True)


async def _counted(broken: _BrokenStream, text: str, tokenize: Tokenize) -> Resumption:
    """The usage of an answer that was said to its end."""
    said = broken.transcript.choices[0]
    stop = said.stop_reason if isinstance(said.stop_reason, str) else ""
    grown = await continuation(broken.path, broken.params, broken.fields, text + stop, tokenize)
    if grown.prompt_tokens is None or grown.kept_tokens is None:
        raise Unresumable(UNCOUNTED)
    completion_tokens = grown.kept_tokens
    if said.finish_reason == "length":
        counts = limits(broken.path, broken.params, broken.fields, completion_tokens)
        completion_tokens = next(iter(counts.values()), completion_tokens)
    elif not stop:
        completion_tokens += 1  # the one that ends an answer has no text
    return _ended(broken, TokenCounts(grown.prompt_tokens, completion_tokens))


def _ended(
    broken: _BrokenStream, tokens: TokenCounts | None = None, *, is_out_of_tokens: bool = False
) -> Resumption:
    events = ending(
        broken.path,
        broken.transcript,
        tokens,
        is_out_of_tokens=is_out_of_tokens,
    )
    return Resumption(broken.path, None, Splice(broken.transcript), ending=events)
