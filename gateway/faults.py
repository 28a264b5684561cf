"""Counts and logs the faults of requests, each with the action that was taken."""

import logging
from collections import Counter
from enum import StrEnum

import msgspec

from gateway.metrics import FAULTS, NullRecorder, Recorder

logger = logging.getLogger(__name__)


class Action(StrEnum):
    """Action that was taken on a fault."""

    RETRIED = "retried"
    """The request was sent to another replica; its client notices nothing."""
    RESUMED = "resumed"
    """Another replica continued the stream; its client notices nothing."""
    FAILED = "failed"
    """The client got an error instead of an answer."""
    TRUNCATED = "truncated"
    """The stream ended with an error event."""
    SHED = "shed"
    """The request was rejected; its client may retry later."""
    FELL_BACK = "fell back"
    """The request was sent to another model; only a response header shows it."""
    BLAMED = "blamed"
    """The request fails wherever it is sent: its client got the error, no replica is at fault."""
    EJECTED = "ejected"
    """The replica gets no requests for a while."""


class Fault(msgspec.Struct, frozen=True):
    """Kind of fault: the labels of its counter."""

    model: str
    reason: str
    """One of a small set of words, because it is a label."""
    action: Action


class Faults:
    """Counts faults and logs each."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder or NullRecorder()
        self._counts: Counter[Fault] = Counter()

    @property
    def counts(self) -> list[tuple[Fault, int]]:
        """Each kind of fault and its count, the most frequent first."""
        return self._counts.most_common()

    def record(
        self, fault: Fault, *, request_id: str = "-", replica: str = "-", message: str
    ) -> None:
        """Count a fault, and log it with the request, the replica and a message."""
        self.count(fault)
        logger.warning(
            "request %s: model %s: replica %s: %s (%s): %s",
            *(request_id, fault.model, replica, fault.reason, message, fault.action),
        )

    def count(self, fault: Fault) -> None:
        """Count a fault of which another log line tells."""
        self._counts[fault] += 1
        self._recorder.count(FAULTS, (fault.model, fault.reason, fault.action.value))
