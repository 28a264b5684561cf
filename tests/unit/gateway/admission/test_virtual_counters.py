"""Virtual counters of projects: who is behind, and what being idle is worth."""

from collections.abc import Iterator

import pytest

from gateway.admission.virtual_counters import (
    HALF_LIFE_S,
    KEPT_S,
    LAG_S,
    MAX_DOUBLINGS,
    MAX_PROJECTS,
    VirtualCounters,
)
from tests.unit.conftest import Clock


@pytest.fixture
def counters(clock: Clock) -> VirtualCounters:
    """Counters of a router without others."""
    return VirtualCounters(clock)


def serve(counters: VirtualCounters, clock: Clock, project: str, seconds: float) -> None:
    """Serve a project second by second, at a charge of a virtual second each."""
    for _ in range(round(seconds / LAG_S)):
        counters.charge(project, LAG_S)
        clock.now_s += LAG_S


def test_the_lead_is_what_a_project_was_served_more(counters: VirtualCounters) -> None:
    """Of projects that wait, as long as nothing has faded."""
    for project in "ab":
        counters.record_queued(project)
    counters.charge("a", 3.0)
    counters.charge("b", 1.0)
    assert counters.lead_s("a", "ab") == pytest.approx(2.0)
    assert counters.lead_s("b", "ab") == 0


def test_the_leads_of_many_projects_ask_for_the_least_counter_once(
    counters: VirtualCounters,
) -> None:
    """So that choosing one of them is linear in their number."""
    names = [f"p{number}" for number in range(200)]
    asked = 0

    def others() -> Iterator[str]:
        nonlocal asked
        for name in names:
            asked += 1
            yield name

    for number, name in enumerate(names):
        counters.record_queued(name)
        counters.charge(name, 1.0 + number)
    leads = counters.leads_s(names, others())
    assert [leads[name] for name in names] == pytest.approx(list(map(float, range(200))))
    assert leads["p7"] == counters.lead_s("p7", names)
    assert asked == len(names)


def test_nobody_gains_by_having_been_idle(counters: VirtualCounters, clock: Clock) -> None:
    """A project that comes back starts where those are that waited, or were a moment before."""
    counters.record_queued("a")
    serve(counters, clock, "a", 6.0)
    counters.record_queued("b")
    assert 0 <= counters.lead_s("a", "ab") <= 2 * LAG_S


def test_nobody_gains_by_having_been_idle_while_nobody_waited(
    counters: VirtualCounters, clock: Clock
) -> None:
    """Then it starts where the latest request has started."""
    serve(counters, clock, "a", 6.0)
    counters.record_queued("b")
    counters.record_queued("a")
    assert 0 <= counters.lead_s("a", "ab") <= 2 * LAG_S


def test_a_debt_is_not_lost_by_being_idle_for_a_moment(counters: VirtualCounters) -> None:
    """A project that is ahead, and leaves and comes back, is as far ahead as before."""
    for project in "ab":
        counters.record_queued(project)
    counters.charge("a", 5.0)
    counters.record_unqueued("a")
    counters.record_queued("a")
    assert counters.lead_s("a", "ab") == pytest.approx(5.0)


def test_routers_agree_on_projects_that_begin_at_the_same_time(clock: Clock) -> None:
    """Though each learns of the other's requests after it has started many of its own."""
    one, other = VirtualCounters(clock, {"b"}), VirtualCounters(clock, {"a"})
    one.record_queued("a")
    other.record_queued("b")
    one.charge("a", 10.0)
    other.charge("b", 40.0)
    clock.now_s += LAG_S / 2
    one.charge("b", 40.0)
    other.charge("a", 10.0)
    assert one.lead_s("b", "ab") == pytest.approx(other.lead_s("b", "ab"), rel=0.01)
    assert one.lead_s("b", "ab") == pytest.approx(30.0, rel=0.01)


def test_a_correction_takes_the_place_of_what_is_left_of_a_charge(
    counters: VirtualCounters, clock: Clock
) -> None:
    """So a project is charged what its request took, however long it ran."""
    for project in "ab":
        counters.record_queued(project)
    counters.charge("a", 8.0)
    clock.now_s += HALF_LIFE_S
    counters.correct("a", 1.0 - 8.0 / 2)
    assert counters.lead_s("a", "ab") == pytest.approx(1.0)


def test_credit_and_debt_fade(counters: VirtualCounters, clock: Clock) -> None:
    """By half in each half-life, also when the scale has to be changed."""
    for project in "ab":
        counters.record_queued(project)
    counters.charge("a", 8.0)
    clock.now_s += 2 * HALF_LIFE_S
    assert counters.lead_s("a", "ab") == pytest.approx(2.0)
    clock.now_s += (MAX_DOUBLINGS + 1) * HALF_LIFE_S
    counters.charge("b", 1.0)
    assert counters.lead_s("b", "ab") == pytest.approx(1.0)
    assert counters.is_over_mean("b")
    assert not counters.is_over_mean("a")


def test_a_project_alone_is_never_over_the_mean(counters: VirtualCounters) -> None:
    """It need not leave anything free."""
    counters.charge("a", 1.0)
    assert not counters.is_over_mean("a")


def test_a_project_that_has_gone_does_not_count_in_the_mean(
    counters: VirtualCounters, clock: Clock
) -> None:
    """A project alone need not leave anything free, once the other has used nothing for a while."""
    counters.charge("b", 1.0)
    serve(counters, clock, "a", KEPT_S / 2)
    beside = counters.is_over_mean("a")
    serve(counters, clock, "a", KEPT_S)
    assert (beside, counters.is_over_mean("a"), len(counters)) == (True, False, 1)


def test_a_project_that_was_there_long_ago_does_not_count_in_the_mean(
    counters: VirtualCounters, clock: Clock
) -> None:
    """Though nothing has happened since, and its counter is above the floor still."""
    counters.charge("b", 1.0)
    clock.now_s += 100 * KEPT_S
    counters.charge("a", 1.0)
    counters.record_queued("a")
    assert not counters.is_over_mean("a")


def test_a_project_that_waits_counts_in_the_mean(counters: VirtualCounters, clock: Clock) -> None:
    """However long it has waited without anything being started for it."""
    counters.record_queued("b")
    clock.now_s += 2 * KEPT_S
    counters.charge("a", 1.0)
    clock.now_s += 2 * KEPT_S
    counters.charge("a", 1.0)
    assert counters.is_over_mean("a")
    assert not counters.is_over_mean("b")


def test_the_mean_is_that_of_the_counters(counters: VirtualCounters, clock: Clock) -> None:
    """Whatever has been charged, lifted, dropped or scaled down meanwhile."""
    for number in range(400):
        counters.charge(f"p{number % 7}", 1.0 + number % 5)
        counters.correct(f"p{number % 3}", -0.5)
        clock.now_s += HALF_LIFE_S * (MAX_DOUBLINGS + 1 if number % 100 == 99 else 0.1)
        counters.is_over_mean("p0")
        known = sum(counters._counters[name] for name in counters._recent)
        assert counters._sum == pytest.approx(known, abs=1e-6 * counters._scale)


def test_the_number_of_counters_is_bounded(counters: VirtualCounters) -> None:
    """Those that wait, and those that were served most, are kept."""
    counters.record_queued("waiting")
    for number in range(2 * MAX_PROJECTS):
        counters.charge(f"p{number}", 1.0 + number)
    assert len(counters) <= MAX_PROJECTS
    assert "waiting" in counters.waiting
    assert counters.lead_s(f"p{2 * MAX_PROJECTS - 1}", ["waiting"]) > MAX_PROJECTS
