"""Counts and logs the faults of requests, each with the action that was taken."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import StrEnum

import msgspec

from gateway.metrics import FAULTS, NullRecorder, Recorder

NO_REPLICA = "-"
"""Stands for the replica of a fault that belongs to none."""
KEPT_REPLICAS = 1000
"""Replicas whose faults are kept apart; of more, those that failed last."""

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


class LatestFault(msgspec.Struct, frozen=True):
    """Fault of one request at a replica."""

    at_s: float
    """When it was recorded, in seconds since the epoch."""
    reason: str
    action: Action
    request: str
    """Id of the request, and its project."""
    message: str


class ReplicaFaults(msgspec.Struct, frozen=True):
    """Faults of one replica."""

    count: int = 0
    last: LatestFault | None = None


NO_FAULTS = ReplicaFaults()


class Faults:
    """Counts faults and logs each; `time_of_day`: seconds since the epoch."""

    def __init__(
        self,
        recorder: Recorder | None = None,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder or NullRecorder()
        self._time_of_day = time_of_day
        self._counts: Counter[Fault] = Counter()
        self._by_replica: OrderedDict[str, ReplicaFaults] = OrderedDict()

    @property
    def counts(self) -> list[tuple[Fault, int]]:
        """Each kind of fault and its count, the most frequent first."""
        return self._counts.most_common()

    def of_replica(self, replica: str) -> ReplicaFaults:
        """Return the faults of a replica, ejections included."""
        return self._by_replica.get(replica, NO_FAULTS)

    def record(
        self, fault: Fault, *, request_id: str = "-", replica: str = NO_REPLICA, message: str
    ) -> None:
        """Count a fault, and log it with the request, the replica and a message."""
        self.count(fault)
        if replica != NO_REPLICA:
            latest = LatestFault(
                self._time_of_day(), fault.reason, fault.action, request_id, message
            )
            self._by_replica[replica] = ReplicaFaults(self.of_replica(replica).count + 1, latest)
            self._by_replica.move_to_end(replica)
            if len(self._by_replica) > KEPT_REPLICAS:
                self._by_replica.popitem(last=False)
        logger.warning(
            "request %s: model %s: replica %s: %s (%s): %s",
            *(request_id, fault.model, replica, fault.reason, message, fault.action),
        )

    def count(self, fault: Fault) -> None:
        """Count a fault of which another log line tells."""
        self._counts[fault] += 1
        self._recorder.count(FAULTS, (fault.model, fault.reason, fault.action.value))
