"""One attempt of a project's request, as its router remembers it until the ledger has it."""

import msgspec

from gateway.ledger.charging import AttemptEnd
from gateway.ledger.settlement import Settlement
from gateway.resume.stream_log import StreamLog
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord

CHUNK_TOKENS = 2
"""Tokens for each chunk, by the size of a text, from which on chunks must have had several: below
that, engines have sent each token by itself."""


class SentAttempt(msgspec.Struct, eq=False):
    """An attempt that an engine was sent.

    `prompt_tokens` and `output_tokens` are what the router expects; `tokens_per_byte` as learned.
    """

    id: int
    engine: str
    """Id of the replica."""
    model: str
    """Name of the engine's model."""
    origin: Origin
    sent_s: float
    """In Unix time."""
    prompt_tokens: float
    output_tokens: float
    tokens_per_byte: float
    ended_s: float | None = None
    """When it ended, in Unix time."""
    kept_tokens: int | None = None
    """Tokens of the answer that it continues; None if it began anew."""
    has_delivered: bool = False
    is_answered: bool = False
    """It has ended the answer."""
    stream_log: StreamLog | None = None
    """What the client was sent, where that is kept."""
    parts: int = 0
    """Parts of a stream that the client had been sent at its end."""
    is_cut: bool = False
    """Its engine has reported that it ended before the answer did."""
    is_charged: bool = False
    """It has been settled: the client pays all of it."""
    delivered_tokens: int | None = None
    """Tokens of the whole answer that the client had at its end, once they have been counted."""

    def count_delivered(self) -> int:
        """Count the tokens that the client has of the answer, as well as they can be known."""
        if self.delivered_tokens is None:
            self.delivered_tokens = self._counted()
        return self.delivered_tokens

    def end(self) -> AttemptEnd:
        """How it went."""
        return AttemptEnd(
            id=self.id,
            engine=self.engine,
            kept_tokens=self.kept_tokens,
            has_delivered=self.has_delivered,
            delivered_tokens=self.count_delivered(),
            is_cut=self.is_cut or not self.is_answered,
        )

    def estimated(self) -> Settlement:
        """A record in place of the engine's, which has died: what was relayed of it."""
        adapter = "" if self.origin.model == self.model else self.origin.model
        has_answer = self.has_delivered or self.is_answered
        completion = max(0, self.count_delivered() - (self.kept_tokens or 0))
        record = UsageRecord(
            epoch=0,
            seq=0,
            id=self.id,
            origin=msgspec.structs.replace(
                self.origin, is_continuation=self.kept_tokens is not None
            ),
            model=self.model,
            adapter=adapter,
            arrived_s=self.sent_s,
            ended_s=self.ended_s or self.sent_s,
            prompt_tokens=round(self.prompt_tokens) if has_answer else 0,
            completion_tokens=completion if has_answer else 0,
            is_aborted=not self.is_answered,
        )
        return Settlement(id=self.id, engine=self.engine, record=record, is_estimated=True)

    def _counted(self) -> int:
        if self.stream_log is None:
            return self.parts or round(self.output_tokens) * self.is_answered
        transcript = self.stream_log.transcript
        if transcript.usage is not None and transcript.usage.completion_tokens:
            return transcript.usage.completion_tokens
        choices = transcript.choices.values()
        if ids := sum(choice.token_ids for choice in choices):
            return ids
        chunks = sum(choice.text_chunks for choice in choices)
        size = sum(len(text.encode()) for choice in choices for text in choice.texts.values())
        by_size = round(size * self.tokens_per_byte)
        return chunks if by_size <= CHUNK_TOKENS * chunks else by_size
