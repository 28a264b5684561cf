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

    __slots__ = (
        *("_attempts", "_parts_before", "_pool", "_settlements", "_target", "_wall", "_writer"),
    )

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
        self._parts_before = 0
        """Parts that the client had before the attempt that runs."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        """Settle all attempts: the request has ended, however that is."""
        if self._attempts:
            is_complete = kind is None or not issubclass(kind, GatewayError)
            self._settlements.settle(self._attempts, is_complete=is_complete)

    def begin_attempt(
        self, decision: Decision, id_: int, origin: Origin, rest: ResumptionPlan | None
    ) -> None:
        """Remember an attempt that an engine is sent."""
        writer = self._writer
        self._parts_before = writer.parts
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

    def end_attempt(self, error: BaseException | None) -> None:
        """Note how far the attempt came that began last; `error`: what ended it."""
        attempt, writer = self._attempts[-1], self._writer
        attempt.is_answered = error is None
        attempt.ended_s = self._wall()
        attempt.parts = writer.parts
        attempt.has_delivered = writer.parts > self._parts_before or writer.is_committed
        if error is not None and attempt.has_delivered and isinstance(error, GatewayError):
            attempt.count_delivered()  # the log goes on with the next attempt

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
