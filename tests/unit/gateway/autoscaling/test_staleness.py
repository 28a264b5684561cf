"""Which replicas still tell their load."""

from gateway.autoscaling.staleness import MEMORY_S, Staleness


def test_who_tells_nothing_new_is_not_heard_any_more() -> None:
    """And is again as soon as it does."""
    hearing = Staleness[str]()
    assert hearing.hear(0, {"a": 1, "b": 1}) == {"a", "b"}
    assert hearing.hear(MEMORY_S, {"a": 2, "b": 1}) == {"a", "b"}
    assert hearing.hear(MEMORY_S + 1, {"a": 3, "b": 1}) == {"a"}
    assert hearing.hear(MEMORY_S + 2, {"a": 4, "b": 5}) == {"a", "b"}


def test_clocks_are_not_compared() -> None:
    """A replica on a node whose clock is an hour behind is heard as well."""
    hearing = Staleness[str]()
    for now_s in range(100):
        assert hearing.hear(now_s, {"late": now_s - 3600, "early": now_s + 3600}) == {
            "late",
            "early",
        }


def test_who_has_gone_is_forgotten() -> None:
    """One of its name that comes later is heard."""
    hearing = Staleness[str]()
    hearing.hear(0, {"a": 1})
    assert hearing.hear(50, {}) == set()
    assert hearing.hear(100, {"a": 1}) == {"a"}
