"""Faults: what went wrong with requests and what was done about it, counted and logged."""

import logging
from collections import Counter
from enum import StrEnum

import msgspec

from gateway.metrics import FAULTS, Recorder, Unrecorded

logger = logging.getLogger(__name__)


class Action(StrEnum):
    """What became of the request, or the replica."""

    RETRIED = "retried"
    """Sent to another replica; its client notices nothing."""
    RESUMED = "resumed"
    """Its stream was resumed on another replica."""
    FAILED = "failed"
    """Its client got an error instead of an answer."""
    TRUNCATED = "truncated"
    """Its stream ended with an error event."""
    SHED = "shed"
    """Rejected, to be retried later."""
    FELL_BACK = "fell back"
    """Sent to another model; its client notices by a header only."""
    EJECTED = "ejected"
    """The replica gets no requests for a while."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that went wrong."""

    model: str
    reason: str
    """A word from a small set: it is a label of the metric."""
    action: Action


class Faults:
    """Counts faults and logs each."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder or Unrecorded()
        self._counts: Counter[Fault] = Counter()

    @property
    def counts(self) -> list[tuple[Fault, int]]:
        """Each fault and how often it was recorded, the most frequent first."""
        return self._counts.most_common()

    def record(self, fault: Fault, *, request_id: str = "-", replica: str = "-", why: str) -> None:
        """Count a fault, and log it with the request, the replica and the reason in words."""
        self._counts[fault] += 1
        self._recorder.count(FAULTS, (fault.model, fault.reason, fault.action.value))
        logger.warning(
            "request %s: model %s: replica %s: %s (%s): %s",
            *(request_id, fault.model, replica, fault.reason, why, fault.action),
        )
