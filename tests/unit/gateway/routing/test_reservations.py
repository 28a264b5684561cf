"""Tests of a model's reservations."""

import math
from collections.abc import Sequence

import pytest

from gateway.routing.reservations import CONFIRMATION_S, RECENT_S, Reservations, Settled
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.update import Update
from gateway.telemetry.usage import RecentUse, Reservation, UsageRecord

A, B = Reservation(id=1, project="a"), Reservation(id=2, project="b")


class Clock:
    """A clock that is set by hand."""

    time_s = 0.0

    def __call__(self) -> float:
        """Time in seconds."""
        return self.time_s


class Listener:
    """Records what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, bool]] = []

    def record_reserved(self, reservation: Reservation) -> None:
        """Record a request that runs from now on."""
        self.told.append(("reserved", reservation.id, False))

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Record that requests have ended."""
        self.told += [("settled", each.id, usage is not None) for each, usage in settled]


@pytest.fixture
def clock() -> Clock:
    """A clock at 0."""
    return Clock()


@pytest.fixture
def reservations(clock: Clock) -> Reservations:
    """Reservations of a model without requests."""
    return Reservations(clock)


@pytest.fixture
def listener(reservations: Reservations) -> Listener:
    """A listener to these reservations."""
    listener = Listener()
    reservations.add_listener(listener)
    return listener


def usage(id_: int) -> UsageRecord:
    """The usage of a request."""
    return UsageRecord(epoch=1, seq=id_, id=id_, origin=Origin(), model="m", arrived_s=0, ended_s=0)


def test_counts_a_request_once_that_its_engine_repeats(
    reservations: Reservations, listener: Listener
) -> None:
    """A request that this router has sent is not reserved again when its engine accepts it."""
    reservations.record_sent("r", A)
    reservations.record_update("r", Update(reserved=[A]))
    reservations.record_ended("r", A.id)
    reservations.record_update("r", Update(usage=[usage(A.id)]))
    assert listener.told == [("reserved", 1, False), ("settled", 1, True)]


def test_counts_the_requests_of_other_routers(
    reservations: Reservations, listener: Listener
) -> None:
    """A request that this router has not sent is reserved and settled by telemetry alone."""
    reservations.record_update("r", Update(reserved=[B], usage=[usage(B.id)]))
    assert listener.told == [("reserved", 2, False), ("settled", 2, True)]


def test_settles_a_request_that_its_engine_never_reports(
    reservations: Reservations, listener: Listener, clock: Clock
) -> None:
    """A request that was refused is settled without usage, once its engine cannot report it."""
    reservations.record_sent("r", A)
    reservations.record_ended("r", A.id)
    reservations.record_update("r", Update())
    assert listener.told == [("reserved", 1, False)]
    clock.time_s = CONFIRMATION_S
    reservations.record_update("r", Update())
    assert listener.told[1:] == [("settled", 1, False)]


def test_a_late_report_of_an_ended_request_counts(
    reservations: Reservations, listener: Listener
) -> None:
    """An answer may end before the frame that accepts its request."""
    reservations.record_sent("r", A)
    reservations.record_ended("r", A.id)
    reservations.record_update("r", Update(reserved=[A], usage=[usage(A.id)]))
    assert listener.told == [("reserved", 1, False), ("settled", 1, True)]


def test_a_snapshot_settles_what_has_ended_unheard(
    reservations: Reservations, listener: Listener
) -> None:
    """After a gap in the telemetry, requests that no longer run are settled without usage."""
    reservations.record_update("r", Update(reserved=[A, B]))
    reservations.record_update("r", Update(is_snapshot=True, reserved=[B]))
    assert listener.told[2:] == [("settled", 1, False)]


def test_settles_all_requests_of_a_replica_that_has_gone(
    reservations: Reservations, listener: Listener
) -> None:
    """Whether its engine has accepted them or not."""
    reservations.record_update("r", Update(reserved=[A]))
    reservations.record_sent("r", B)
    reservations.drop_replica("r")
    reservations.record_ended("r", B.id)
    assert sorted(listener.told[2:]) == [("settled", 1, False), ("settled", 2, False)]


class RecentListener:
    """Records what it is told of the time in which an engine was not heard."""

    def __init__(self) -> None:
        self.told: list[tuple[float, list[int]]] = []

    def record_recent(
        self, uses: Sequence[RecentUse], within_s: float, own: Sequence[Reservation]
    ) -> None:
        """Record how long it was, and which requests were this router's own."""
        self.told.append((within_s, [each.id for each in own]))


RECENT = RecentUse(
    project="a", key="k", model="m", age_s=1.0, requests=2, uncached_tokens=9, cached_tokens=0
)


@pytest.fixture
def recent(reservations: Reservations) -> RecentListener:
    """A listener to what came before snapshots."""
    recent = RecentListener()
    reservations.add_recent_listener(recent)
    return recent


def test_requests_of_a_replica_that_finishes_what_it_has_are_settled_when_they_end(
    reservations: Reservations, listener: Listener
) -> None:
    """It has left the fleet, and is followed still; in the end all others are settled."""
    reservations.follow("r")
    reservations.record_update("r", Update(is_snapshot=True, reserved=[A, B]))
    reservations.drop_replica("r")
    assert not reservations.is_idle("r")
    reservations.record_update("r", Update(usage=[usage(1)]))
    reservations.record_left("r")
    assert listener.told[2:] == [("settled", 1, True), ("settled", 2, False)]
    assert reservations.is_idle("r")


def test_knows_which_of_its_requests_all_routers_have_heard_of(reservations: Reservations) -> None:
    """A replica that hangs or goes may never have reported them."""
    reservations.record_sent("r", A)
    reservations.record_sent("r", B)
    assert not reservations.is_reported("r", A.id)
    reservations.record_update("r", Update(reserved=[A]))
    reservations.drop_replica("r")
    assert reservations.is_reported("r", A.id)
    assert not reservations.is_reported("r", B.id)


def test_own_requests_of_a_gap_are_told_apart(
    reservations: Reservations, recent: RecentListener, clock: Clock
) -> None:
    """Those that have ended there, and were not heard of, not those that run."""
    reservations.record_update("r", Update(is_snapshot=True))
    for id_ in (1, 2, 3):
        reservations.record_sent("r", Reservation(id=id_, project="a"))
    reservations.record_ended("r", 1)
    clock.time_s = 2 * CONFIRMATION_S
    reservations.record_ended("r", 2)
    running = Reservation(id=3, project="a")
    snapshot = Update(is_snapshot=True, recent=[RECENT], reserved=[running])
    reservations.record_update("r", snapshot)
    assert recent.told == [(2 * CONFIRMATION_S, [1, 2])]
    reservations.record_update("r", snapshot)
    assert recent.told[1] == (0.0, [2])


def test_a_replica_that_returns_was_heard_before(
    reservations: Reservations, recent: RecentListener, clock: Clock
) -> None:
    """Its whole last minute is news only where it was gone for longer."""
    snapshot = Update(is_snapshot=True, recent=[RECENT])
    reservations.record_update("r", Update(is_snapshot=True))
    reservations.record_sent("r", A)
    reservations.drop_replica("r")
    clock.time_s = 3.0
    reservations.record_update("r", snapshot)
    clock.time_s = 4.0 + RECENT_S
    reservations.drop_replica("r")
    reservations.record_update("r", snapshot)
    assert recent.told == [(3.0, [1]), (math.inf, [])]
