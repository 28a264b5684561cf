"""Outcome of one request: its status, durations and tokens."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from loadtests.loadgen.sse import ChatStream, error_reason


class Status(StrEnum):
    """Status of a request at its end."""

    ANSWERED = "answered"
    """It got a whole stream."""
    REJECTED = "rejected"
    """It got a 429, which is load shedding and no failure."""
    FAILED = "failed"
    CUT = "cut"
    """It was still in flight when the test ended."""


class RequestEnd(msgspec.Struct, frozen=True):
    """Status of a request at its end, and the reason."""

    status: Status
    http_status: int = 0
    """0 without a response."""
    reason: str = ""

    @classmethod
    def of_response(cls, http_status: int, body: bytes) -> "RequestEnd":
        """The end of a request whose response is no stream."""
        status = Status.REJECTED if http_status == 429 else Status.FAILED
        return cls(status, http_status, f"{http_status} {error_reason(body)}")

    @classmethod
    def of_error(cls, error: Exception) -> "RequestEnd":
        """The end of a request without a response."""
        return cls(Status.FAILED, reason=f"{type(error).__name__}: {error}".rstrip(": "))


class RequestOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a request; durations are in seconds, from the time when it was due."""

    model: str = ""
    request_id: str = ""
    due_s: float
    """Time when it was due, by the load generator's clock."""
    late_s: float = 0.0
    """Delay until it was sent, caused by the load generator itself."""
    status: Status
    http_status: int = 0
    """0 without a response."""
    reason: str = ""
    """Why it was rejected or failed."""
    e2e_s: float = 0.0
    ttft_s: float | None = None
    itl_s: float | None = None
    """Mean inter-token latency; None for an answer of one token."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(
        cls, end: "RequestEnd", stream: ChatStream, *, due_s: float, sent_s: float, end_s: float
    ) -> "RequestOutcome":
        """The outcome of a request; times are of the clock that timed the stream."""
        return cls(
            due_s=due_s,
            late_s=sent_s - due_s,
            status=end.status,
            http_status=end.http_status,
            reason=end.reason,
            e2e_s=end_s - due_s,
            ttft_s=None if stream.first_token_s is None else stream.first_token_s - due_s,
            itl_s=stream.itl_s,
            prompt_tokens=stream.usage.prompt_tokens,
            cached_tokens=stream.usage.cached_tokens,
            completion_tokens=stream.usage.completion_tokens,
        )

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer arrived."""
        return self.status is Status.ANSWERED

    @property
    def tokens_per_s(self) -> float:
        """Output speed as the user sees it, waiting included."""
        return self.completion_tokens / self.e2e_s if self.e2e_s else 0.0


def answered(outcomes: Iterable[RequestOutcome]) -> list[RequestOutcome]:
    """Requests that got their whole answer."""
    return [outcome for outcome in outcomes if outcome.is_answered]


def with_status(outcomes: Iterable[RequestOutcome], status: Status) -> list[RequestOutcome]:
    """Requests that ended with this status."""
    return [outcome for outcome in outcomes if outcome.status is status]
