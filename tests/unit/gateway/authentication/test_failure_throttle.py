"""Throttle of failures by address."""

from gateway.authentication.failure_throttle import MAX_ADDRESSES, FailureThrottle
from tests.unit.conftest import Clock


def test_an_address_has_some_failures_a_minute(clock: Clock) -> None:
    """Beyond them it has to wait for the next one; others have their own."""
    throttle = FailureThrottle(clock)
    assert [throttle.record_failure(b"a", 3) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert throttle.record_failure(b"b", 3) == 0
    clock.now_s += 20
    assert [throttle.record_failure(b"a", 3) for _ in range(2)] == [0, 20]
    clock.now_s += 3600
    assert [throttle.record_failure(b"a", 3) for _ in range(4)] == [0, 0, 0, 20]


def test_a_limit_may_be_lowered(clock: Clock) -> None:
    """It holds at once."""
    throttle = FailureThrottle(clock)
    assert throttle.record_failure(b"a", 100) == 0
    assert [throttle.record_failure(b"a", 1) for _ in range(2)] == [0, 60]


def test_many_addresses_take_bounded_memory(clock: Clock) -> None:
    """The one that failed least recently is forgotten."""
    throttle = FailureThrottle(clock)
    for i in range(MAX_ADDRESSES + 1):
        assert throttle.record_failure(b"%d" % i, 1) == 0
    assert throttle.record_failure(b"%d" % MAX_ADDRESSES, 1) > 0
    assert throttle.record_failure(b"0", 1) == 0
    assert len(throttle._buckets) == MAX_ADDRESSES
