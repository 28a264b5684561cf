"""Staleness: which replicas still report their load."""

from gateway.autoscaling.staleness import STALE_AFTER_S, Staleness


def test_a_replica_without_a_new_report_is_stale_until_its_next_one() -> None:
    """A repeated report does not count; a new one makes the replica fresh at once."""
    staleness = Staleness[str]()
    assert staleness.update(0, {"a": 1, "b": 1}) == {"a", "b"}
    assert staleness.update(STALE_AFTER_S, {"a": 2, "b": 1}) == {"a", "b"}
    assert staleness.update(STALE_AFTER_S + 1, {"a": 3, "b": 1}) == {"a"}
    assert staleness.update(STALE_AFTER_S + 2, {"a": 4, "b": 5}) == {"a", "b"}


def test_clock_skew_between_nodes_does_not_matter() -> None:
    """A replica on a node whose clock is an hour off is as fresh as any."""
    staleness = Staleness[str]()
    for now_s in range(100):
        reported_s = {"late": now_s - 3600, "early": now_s + 3600}
        assert staleness.update(now_s, reported_s) == {"late", "early"}


def test_a_replica_that_has_gone_is_forgotten() -> None:
    """A later replica of the same name is fresh, even with the same report."""
    staleness = Staleness[str]()
    staleness.update(0, {"a": 1})
    assert staleness.update(50, {}) == set()
    assert staleness.update(100, {"a": 1}) == {"a"}
