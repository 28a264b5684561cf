"""Outliers: who is taken out, for how long, and how it comes back."""

import pytest

from gateway.routing.outliers import FIRST_S, IN_A_ROW, LAST_S, MEMORY_S, PROBE_S, WINDOW, Outliers
from tests.unit.conftest import Clock


def ejected(outliers: Outliers, replica: str = "a", among: int = 4) -> None:
    """Let a replica fail until it is out."""
    assert any(outliers.fail(replica, among) for _ in range(IN_A_ROW))


def test_failures_in_a_row_take_a_replica_out() -> None:
    """The fifth failure in a row does, and not the fourth."""
    outliers = Outliers(Clock())
    verdicts = [outliers.fail("a", 2) for _ in range(IN_A_ROW)]
    assert verdicts == [False] * (IN_A_ROW - 1) + [True]
    assert outliers.out == {"a"}


def test_a_success_starts_the_count_again() -> None:
    """Failures that are not in a row do not add up to a row."""
    outliers = Outliers(Clock())
    for _ in range(WINDOW // 4):
        outliers.fail("a", 2)
        outliers.succeed("a")
    assert not outliers.is_out("a")


def test_failing_more_often_than_not_takes_a_replica_out() -> None:
    """Two failures for each success, never five in a row."""
    outliers = Outliers(Clock())
    outcomes = [False, False, True] * WINDOW
    for is_good in outcomes:
        if is_good:
            outliers.succeed("a")
        elif outliers.fail("a", 2):
            break
    assert outliers.is_out("a")


@pytest.mark.parametrize(("replicas", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (8, 4)])
def test_at_most_half_are_out(replicas: int, most: int) -> None:
    """Where all fail, half of them go on being tried."""
    outliers = Outliers(Clock())
    for _ in range(2 * IN_A_ROW):
        for replica in range(replicas):
            outliers.fail(str(replica), replicas)
    assert len(outliers.out) == most


def test_one_request_at_a_time_probes() -> None:
    """After its time a replica gets a single request, and more once that has succeeded."""
    clock = Clock()
    outliers = Outliers(clock)
    ejected(outliers)
    clock.now_s += FIRST_S - 0.1
    assert outliers.is_out("a")
    clock.now_s += 0.2
    assert not outliers.is_out("a")
    outliers.begin("a")
    assert outliers.is_out("a")
    outliers.succeed("a")
    outliers.begin("a")
    assert not outliers.is_out("a")


def test_a_lost_probe_does_not_keep_a_replica_out_for_ever() -> None:
    """A probe that nothing is heard of makes room for another."""
    clock = Clock()
    outliers = Outliers(clock)
    ejected(outliers)
    clock.now_s += FIRST_S
    outliers.begin("a")
    clock.now_s += PROBE_S
    assert not outliers.is_out("a")


def test_a_failed_probe_takes_it_out_for_longer_each_time() -> None:
    """The times double, up to a limit."""
    clock = Clock()
    outliers = Outliers(clock)
    ejected(outliers)
    for ejections in range(1, 9):
        time_s = min(LAST_S, FIRST_S * 2 ** (ejections - 1))
        clock.now_s += time_s - 0.1
        assert outliers.is_out("a")
        clock.now_s += 0.1
        assert not outliers.is_out("a")
        assert outliers.fail("a", 4)


def test_late_news_of_a_replica_that_is_out_changes_nothing() -> None:
    """Requests that were under way when it was taken out neither free nor hold it."""
    clock = Clock()
    outliers = Outliers(clock)
    ejected(outliers)
    outliers.succeed("a")
    assert outliers.is_out("a")
    assert not outliers.fail("a", 4)
    clock.now_s += FIRST_S
    assert not outliers.is_out("a")


def test_old_ejections_are_forgotten() -> None:
    """A replica that has done well for long is taken out for as short as the first time."""
    clock = Clock()
    outliers = Outliers(clock)
    ejected(outliers)
    clock.now_s += MEMORY_S + 1
    outliers.succeed("a")
    ejected(outliers)
    clock.now_s += FIRST_S
    assert not outliers.is_out("a")


def test_a_replica_that_has_gone_is_forgotten() -> None:
    """Its successor of the same name begins anew."""
    outliers = Outliers(Clock())
    ejected(outliers)
    outliers.forget("a")
    assert not outliers.is_out("a")
