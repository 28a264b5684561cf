"""Entries of one request for the ledger: its attempts at one model, and how they ended."""

import contextlib
import time
from collections.abc import Callable, Iterator

from gateway.errors.gateway_error import GatewayError
from gateway.kvcache.prefix import TOKEN_ID_BYTES
from gateway.resume.resumption import ResumptionPlan
from gateway.routing.decision import Decision
from gateway.routing.target import Target
from gateway.serving.pool import ModelPool
from gateway.serving.response_writer import ResponseWriter
from gateway.serving.sent_attempt import SentAttempt
from gateway.serving.settlements import Settlements
from gateway.telemetry.dispatch import Origin


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

    @contextlib.contextmanager
    def settling(self) -> Iterator[None]:
        """Settle all attempts when the request has ended, however that is."""
        is_complete = True
        try:
            yield
        except GatewayError:
            is_complete = False
            raise
        finally:
            if self._attempts:
                self._settlements.settle(self._attempts, is_complete=is_complete)

    @contextlib.contextmanager
    def attempt(
        self, decision: Decision, id_: int, origin: Origin, rest: ResumptionPlan | None
    ) -> Iterator[None]:
        """Remember an attempt while an engine answers it, and how far it came."""
        writer = self._writer
        attempt = SentAttempt(
            id=id_,
            engine=decision.replica.id,
            model=self._target.model.name,
            origin=origin,
            sent_s=self._wall(),
            prompt_tokens=decision.prompt_tokens,
            output_tokens=decision.sequences * decision.output_tokens,
            tokens_per_byte=self._pool.scheduler.cost_model.estimates.tokens_per_byte,
            stream_log=writer.stream_log,
        )
        if rest is not None and rest.answered_bytes:
            attempt.kept_tokens = self._kept_tokens(rest, attempt.tokens_per_byte)
        self._attempts.append(attempt)
        self._settlements.record_sent(attempt)
        parts_before = writer.parts
        is_broken = False
        try:
            yield
            attempt.is_answered = True
        except GatewayError:
            is_broken = True
            raise
        finally:
            attempt.ended_s = self._wall()
            attempt.parts = writer.parts
            attempt.has_delivered = writer.parts > parts_before or writer.is_committed
            if is_broken and attempt.has_delivered:
                attempt.count_delivered()  # the log goes on with the next attempt

    def _kept_tokens(self, rest: ResumptionPlan, tokens_per_byte: float) -> int:
        if rest.kept_tokens is not None:
            return rest.kept_tokens
        if self._target.prompt.is_token_ids:
            return rest.answered_bytes // TOKEN_ID_BYTES
        return round(rest.answered_bytes * tokens_per_byte)
