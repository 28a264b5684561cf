"""Projects that other routers hold requests of, as engines repeat it."""

from gateway.routing.held_elsewhere import HeldElsewhere


def test_what_other_routers_hold_is_known_by_replica() -> None:
    """What this router holds itself is left out, and what no longer waits is forgotten."""
    held = HeldElsewhere("me")
    joined: list[str] = []
    held.before_join = joined.append
    held.record("r", {"me": {"own": 1}, "x": {"a": 2}, "y": {"a": 1, "b": 1}})
    held.record("s", {"x": {"b": 1}})
    assert held.projects("r") == {"a", "b"}
    held.record("r", {"x": {}, "y": {"b": 1}})
    assert (held.projects("r"), held.all_projects) == ({"b"}, {"b"})
    assert sorted(joined) == ["a", "b"]


def test_a_snapshot_replaces_all_and_a_lost_replica_holds_nothing() -> None:
    """Routers that are gone are not in it."""
    held = HeldElsewhere("me")
    held.record("r", {"x": {"a": 1}})
    held.record("r", {"y": {"b": 1}}, is_snapshot=True)
    assert held.projects("r") == {"b"}
    held.drop_replica("r")
    held.drop_replica("unknown")
    assert (held.projects("r"), set(held.all_projects)) == (frozenset(), set())
