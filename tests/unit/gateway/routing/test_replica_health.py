"""Tests of a replica's health: when others are preferred to it, for how long, how it comes back."""

import pytest

from gateway.request.tenant import Tenant
from gateway.routing.outlier_detector import (
    CONSECUTIVE_FAILURES,
    FIRST_EJECTION_S,
    MAX_EJECTION_S,
    MEMORY_S,
    PROBE_S,
    WINDOW,
    OutlierDetector,
    may_eject,
)
from gateway.routing.replica_health import HealthState, ReplicaHealth


class Scene:
    """An outlier detector and a clock."""

    def __init__(self) -> None:
        self.detector = OutlierDetector()
        self.now_s = 1000.0

    def is_ejected(self) -> bool:
        """Whether the replica is ejected now."""
        return self.detector.excluded_until_s > self.now_s

    def succeed(self) -> None:
        """Record a success."""
        self.detector.record_success(self.now_s)

    def fail(self, *, may_eject: bool = True) -> bool:
        """Record a failure; return whether it ejects the replica."""
        return self.detector.record_failure(self.now_s, may_eject=may_eject)

    def eject(self) -> None:
        """Let the replica fail until it is ejected."""
        assert any(self.fail() for _ in range(CONSECUTIVE_FAILURES))

    def probe(self) -> None:
        """Send a request."""
        self.detector.record_sent(self.now_s)


@pytest.fixture
def scene() -> Scene:
    """A replica that has not failed."""
    return Scene()


def test_consecutive_failures_eject_a_replica(scene: Scene) -> None:
    """The fifth failure in a row does, and no earlier one."""
    ejects = [scene.fail() for _ in range(CONSECUTIVE_FAILURES)]
    assert ejects == [False] * (CONSECUTIVE_FAILURES - 1) + [True]
    assert scene.is_ejected()


def test_a_success_resets_consecutive_failures(scene: Scene) -> None:
    """Failures with successes between them do not add up."""
    for _ in range(WINDOW // 4):
        scene.fail()
        scene.succeed()
    assert not scene.is_ejected()


def test_a_majority_of_failures_ejects_a_replica(scene: Scene) -> None:
    """Two failures for each success eject it, although no five come in a row."""
    outcomes = [False, False, True] * WINDOW
    for is_success in outcomes:
        if is_success:
            scene.succeed()
        elif scene.fail():
            break
    assert scene.is_ejected()


def test_successes_before_the_first_failure_do_not_count(scene: Scene) -> None:
    """The window starts with the first failure, so a long healthy past delays nothing."""
    for _ in range(10 * WINDOW):
        scene.succeed()
    scene.eject()
    assert scene.is_ejected()


@pytest.mark.parametrize(("replicas", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (8, 4)])
def test_at_most_half_of_the_replicas_may_be_ejected(replicas: int, most: int) -> None:
    """If all fail, half of them are still used."""
    assert sum(may_eject(ejected, replicas) for ejected in range(replicas)) == most


def test_a_replica_is_not_ejected_if_too_many_are(scene: Scene) -> None:
    """Its failures are counted all the same, so the next one ejects it once that is allowed."""
    assert not any(scene.fail(may_eject=False) for _ in range(2 * CONSECUTIVE_FAILURES))
    assert not scene.is_ejected()
    assert scene.fail()


def test_one_request_at_a_time_probes_an_ejected_replica(scene: Scene) -> None:
    """After the ejection the replica gets one request, and more once that has succeeded."""
    scene.eject()
    scene.now_s += FIRST_EJECTION_S - 0.1
    assert scene.is_ejected()
    scene.now_s += 0.2
    assert not scene.is_ejected()
    scene.probe()
    assert scene.is_ejected()
    scene.succeed()
    scene.probe()
    assert not scene.is_ejected()


def test_a_lost_probe_does_not_eject_a_replica_for_ever(scene: Scene) -> None:
    """If the result of a probe is never recorded, another probe is sent."""
    scene.eject()
    scene.now_s += FIRST_EJECTION_S
    scene.probe()
    scene.now_s += PROBE_S
    assert not scene.is_ejected()


def test_a_probe_that_ends_without_a_result_makes_way_for_the_next(scene: Scene) -> None:
    """A client that leaves, or is refused, does not keep the replica out of use."""
    scene.eject()
    scene.now_s += FIRST_EJECTION_S
    scene.probe()
    assert scene.is_ejected()
    scene.detector.release_probe()
    assert not scene.is_ejected()


def test_one_client_s_failures_do_not_eject_a_replica_that_answers_another(scene: Scene) -> None:
    """Whatever the one sends, and how often; with a second one that fails, they do."""
    hostile, fine, other = Tenant(b"hostile"), Tenant(b"fine"), Tenant(b"other")
    for _ in range(2 * WINDOW):
        scene.detector.record_success(scene.now_s, fine)
        for _ in range(2 * CONSECUTIVE_FAILURES):
            assert not scene.detector.record_failure(scene.now_s, hostile, may_eject=True)
    scene.detector.record_failure(scene.now_s, other, may_eject=True)
    assert scene.is_ejected()


def test_a_replica_is_suspect_until_it_succeeds(scene: Scene) -> None:
    """Its last result counts."""
    suspects = [scene.detector.is_suspect]
    scene.fail()
    suspects.append(scene.detector.is_suspect)
    scene.succeed()
    suspects.append(scene.detector.is_suspect)
    scene.eject()
    scene.now_s += FIRST_EJECTION_S
    suspects.append(scene.detector.is_suspect)
    scene.succeed()
    assert [*suspects, scene.detector.is_suspect] == [False, True, False, True, False]


def test_failed_probes_double_the_ejection_time(scene: Scene) -> None:
    """The time doubles with each failed probe, up to a limit."""
    scene.eject()
    for ejections in range(1, 9):
        time_s = min(MAX_EJECTION_S, FIRST_EJECTION_S * 2 ** (ejections - 1))
        scene.now_s += time_s - 0.1
        assert scene.is_ejected()
        scene.now_s += 0.1
        assert not scene.is_ejected()
        assert scene.fail()


def test_results_of_earlier_requests_do_not_change_an_ejection(scene: Scene) -> None:
    """Requests that were in flight at the ejection neither end nor prolong it."""
    scene.eject()
    scene.succeed()
    assert scene.is_ejected()
    assert not scene.fail()
    scene.now_s += FIRST_EJECTION_S
    assert not scene.is_ejected()


def test_old_ejections_are_forgotten(scene: Scene) -> None:
    """After a long time without failures the next ejection is as short as the first."""
    scene.eject()
    scene.now_s += MEMORY_S + 1
    scene.succeed()
    scene.eject()
    scene.now_s += FIRST_EJECTION_S
    assert not scene.is_ejected()


def test_the_state_that_counts_most_is_shown() -> None:
    """Draining outranks backoff, which outranks ejection."""
    health = ReplicaHealth()
    states = [health.state(1000.0)]
    health.has_telemetry = True
    states.append(health.state(1000.0))
    for _ in range(CONSECUTIVE_FAILURES):
        health.outlier_detector.record_failure(1000.0, may_eject=True)
    states.append(health.state(1000.0))
    health.back_off(1001.0)
    states.append(health.state(1000.0))
    health.is_responding = False
    states.append(health.state(1000.0))
    health.is_draining = True
    states.append(health.state(1000.0))

    assert states == [
        HealthState.NO_TELEMETRY,
        HealthState.READY,
        HealthState.EJECTED,
        HealthState.BACKOFF,
        HealthState.NOT_RESPONDING,
        HealthState.DRAINING,
    ]


def test_backoff_ends_by_time_or_by_contact() -> None:
    """The later of two times counts, until the replica is reached."""
    health = ReplicaHealth()
    health.back_off(1010.0)
    health.back_off(1005.0)
    assert health.is_in_backoff(1009.0)
    assert not health.is_in_backoff(1010.0)
    health.clear_backoff()
    assert not health.is_in_backoff(1009.0)
