"""Entries of one request for the ledger: its attempts at one model, and how they ended."""

import time
from collections.abc import Callable

from gateway.errors.gateway_error import GatewayError
from gateway.kvcache.prefix import TOKEN_ID_BYTES
from gateway.ledger.charging import AttemptEnd, earlier_attempts
from gateway.resume.resumption import ResumptionPlan
from gateway.routing.decision import Decision
from gateway.routing.target import Target
from gateway.serving.pool import ModelPool
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.sent_attempt import SentAttempt
from gateway.serving.settlements import Settlements
from gateway.telemetry.dispatch import EarlierAttempt, Origin


class LedgerEntries:
    """Attempts of one request at one model; `wall`: the time of day."""

    __slots__ = ("_attempts", "_pool", "_settlements", "_target", "_wall", "_writer")

    def __init__(
        self,
        target: Target,
        pool: ModelPool,
        settlements: Settlements,
        writer: ResponseWriter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settlements = settlements
        self._target = target
        self._pool = pool
        self._writer = writer
        self._wall = wall
        self._attempts: list[SentAttempt] = []

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        """Settle all attempts: the request has ended, however that is."""
        if self._attempts:
            is_complete = kind is None or not issubclass(kind, GatewayError)
            self._settlements.settle(self._attempts, is_complete=is_complete)

    def attempt(
        self, decision: Decision, id_: int, origin: Origin, rest: ResumptionPlan | None
    ) -> "EntryOfAttempt":
        """Remember an attempt while an engine answers it, and how far it came."""
        writer = self._writer
        attempt = SentAttempt(
            id=id_,
            engine=decision.replica.id,
            model=self._target.model.name,
            origin=origin,
            sent_s=self._wall(),
            prompt_tokens=decision.prompt_tokens,
            output_tokens=decision.answer_tokens,
            tokens_per_byte=self._pool.scheduler.cost_model.estimates.tokens_per_byte,
            stream_log=writer.stream_log,
        )
        if rest is not None and rest.answered_bytes:
            attempt.kept_tokens = self._kept_tokens(rest, attempt.tokens_per_byte)
        self._attempts.append(attempt)
        self._settlements.record_sent(attempt)
        return EntryOfAttempt(attempt, writer, self._wall)

    @property
    def earlier(self) -> tuple[EarlierAttempt, ...]:
        """What becomes of the attempts before the last one, if that ends the answer."""
        *before, last = self._attempts
        if not before:
            return ()
        # How far the last one will come is not known, and does not matter for the others.
        end = AttemptEnd(id=last.id, engine=last.engine, kept_tokens=last.kept_tokens)
        return earlier_attempts([*(attempt.end() for attempt in before), end])

    def _kept_tokens(self, rest: ResumptionPlan, tokens_per_byte: float) -> int:
        if rest.kept_tokens is not None:
            return rest.kept_tokens
        if self._target.prompt.is_token_ids:
            return rest.answered_bytes // TOKEN_ID_BYTES
        return round(rest.answered_bytes * tokens_per_byte)


class EntryOfAttempt:
    """Records how one attempt ends."""

    __slots__ = ("_attempt", "_parts_before", "_wall", "_writer")

    def __init__(
        self, attempt: SentAttempt, writer: ResponseWriter, wall: Callable[[], float]
    ) -> None:
        self._attempt = attempt
        self._writer = writer
        self._wall = wall
        self._parts_before = writer.parts

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        """Note how far the attempt came."""
        attempt, writer = self._attempt, self._writer
        attempt.is_answered = kind is None
        attempt.ended_s = self._wall()
        attempt.parts = writer.parts
        attempt.has_delivered = writer.parts > self._parts_before or writer.is_committed
        if kind is not None and attempt.has_delivered and issubclass(kind, GatewayError):
            attempt.count_delivered()  # the log goes on with the next attempt
