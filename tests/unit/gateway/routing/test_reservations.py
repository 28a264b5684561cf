"""Tests of a model's reservations."""

import pytest

from gateway.routing.reservations import CONFIRMATION_S, Reservations
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.update import Update
from gateway.telemetry.usage import Reservation, UsageRecord

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

    def record_settled(self, reservation: Reservation, usage: UsageRecord | None) -> None:
        """Record that a request has ended."""
        self.told.append(("settled", reservation.id, usage is not None))


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
