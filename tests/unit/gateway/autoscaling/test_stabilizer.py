"""Stabilizer and StabilizationWindow: when a change of the desired replicas is followed."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gateway.autoscaling.desired_replicas import DesiredReplicas
from gateway.autoscaling.stabilizer import ScalingSnapshot, StabilizationWindow, Stabilizer


class StabilizedModel:
    """A model whose stabilizer decides every second; tests say when its replicas arrive."""

    def __init__(self, target: int = 1, delay_s: float = 100, **fixed: float) -> None:
        self.stabilizer = Stabilizer(delay_s)
        self.target = self.running = target
        self.now_s = 1000.0
        self.start_s = fixed.pop("start_s", 1.0)
        self.bounds = {name: int(value) for name, value in fixed.items()}
        self.is_complete = True

    def decide(self, need: float, without_backlog: float | None = None) -> int:
        """One second later: the new target."""
        self.now_s += 1
        steady = need if without_backlog is None else without_backlog
        self.target = self.stabilizer.decide(
            ScalingSnapshot(
                now_s=self.now_s,
                desired=DesiredReplicas(sequences=need, without_backlog=steady),
                is_complete=self.is_complete,
                running=self.running,
                target=self.target,
                start_s=self.start_s,
                **self.bounds,
            )
        )
        return self.target

    def follow(self, needs: Iterable[float]) -> list[int]:
        """The target after each second, with replicas that arrive at once."""
        targets = []
        for need in needs:
            self.running = self.target
            targets.append(self.decide(need))
        return targets


def test_a_need_is_followed_once_it_has_lasted() -> None:
    """After two seconds the target is the mean of the need."""
    assert StabilizedModel().follow([2.5, 2.5, 3.5, 3.5]) == [1, 1, 3, 3]


def test_a_short_peak_is_not_followed() -> None:
    """A need of one second is ignored, however high."""
    assert set(StabilizedModel().follow([1, 1, 9, 1, 1, 9, 1, 1])) == {1}


def test_a_need_must_last_longer_where_starts_are_long() -> None:
    """It must last for a tenth of a start, and ten seconds at most."""
    model, slow = StabilizedModel(start_s=60), StabilizedModel(start_s=1000)
    assert model.follow([2.0] * 8) == [1] * 6 + [2] * 2
    assert slow.follow([2.0] * 12) == [1] * 10 + [2] * 2


def test_a_backlog_while_replicas_start_asks_for_no_more() -> None:
    """Only the need without it counts until the last replica has had time to help."""
    model = StabilizedModel()
    model.follow([3.0] * 3)
    model.running = 1
    waiting = [model.decide(9.0, without_backlog=1.4) for _ in range(30)]
    growing = [model.decide(9.0, without_backlog=4.4) for _ in range(4)]
    model.running = 5
    settling = [model.decide(9.0, without_backlog=4.4) for _ in range(9)]
    settled = [model.decide(9.0, without_backlog=4.4) for _ in range(4)]

    assert set(waiting) == {3}
    assert growing[-1] == 5
    assert set(settling) == {5}
    assert settled[-1] == 9


def test_a_lower_need_is_followed_after_the_delay_to_its_highest() -> None:
    """The replicas that remain must have a margin beyond the need."""
    model = StabilizedModel(target=5, delay_s=100)
    assert set(model.follow([2.0] * 100)) == {5}
    assert model.follow([2.0, 2.0]) == [3, 3]
    assert set(model.follow([2.0] * 300)) == {3}
    assert model.follow([1.7] * 101)[-1] == 2


def test_a_peak_restarts_the_scale_down_delay() -> None:
    """With a second of full load every minute, no replica is removed."""
    model = StabilizedModel(target=3, delay_s=100)
    assert set(model.follow(([2.5] + [0.5] * 59) * 5)) == {3}


def test_a_replica_is_kept_for_twice_the_time_its_start_took() -> None:
    """A shorter scale-down delay does not matter."""
    model = StabilizedModel(target=2, delay_s=5, start_s=100)
    assert set(model.follow([0.1] * 200)) == {2}
    assert model.follow([0.1] * 2)[-1] == 1


def test_only_an_idle_model_loses_replicas_within_a_minute() -> None:
    """A lower load must last for a minute; an idle model goes after its delay."""
    busy, idle = StabilizedModel(target=2, delay_s=5), StabilizedModel(target=2, delay_s=5)
    assert set(busy.follow([0.1] * 60)) == {2}
    assert idle.follow([0.0] * 7) == [2] * 5 + [1, 0]


def test_a_removed_replica_comes_back_within_a_minute_only_for_an_urgent_need() -> None:
    """For a minute a slight overload is tolerated."""
    model, urgent = (StabilizedModel(target=2, delay_s=5) for _ in range(2))
    model.follow([0.8] * 61)
    urgent.follow([0.8] * 61)
    assert model.target == urgent.target == 1

    assert set(model.follow([1.2] * 55)) == {1}
    assert model.follow([1.2] * 8)[-1] == 2
    assert urgent.follow([1.6] * 4)[-1] == 2


def test_the_last_replica_of_an_idle_model_goes_one_decision_after_the_others() -> None:
    """Serve would turn zero into one, which must not be taken for a new request."""
    model = StabilizedModel(target=4, delay_s=100)
    assert model.follow([0.0] * 103)[-4:] == [4, 1, 0, 0]


def test_nothing_is_removed_while_a_replica_does_not_report() -> None:
    """The delay begins once it has reported: its load was unknown before."""
    model = StabilizedModel(target=3, delay_s=100)
    model.is_complete = False
    assert set(model.follow([0.0] * 500)) == {3}
    model.is_complete = True
    assert set(model.follow([0.0] * 99)) == {3}
    assert model.follow([0.0] * 3)[-1] == 0


def test_the_target_stays_within_the_bounds() -> None:
    """It does so whatever the need, and also after the bounds have changed."""
    model = StabilizedModel(target=2, delay_s=5, min_replicas=1, max_replicas=3)
    assert model.follow([9.0] * 4)[-1] == 3
    assert model.follow([0.0] * 9)[-1] == 1
    model.bounds["min_replicas"] = 2
    assert model.decide(0.0) == 2


def test_a_replica_that_serve_has_asked_for_is_kept_for_the_delay() -> None:
    """Serve wakes a sleeping model: that it was idle before no longer counts."""
    model = StabilizedModel(target=0, delay_s=20)
    model.follow([0.0] * 100)
    model.target = 1
    assert set(model.follow([0.0] * 20)) == {1}
    assert model.follow([0.0] * 2)[-1] == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(0, 60))
def test_the_windows_peak_is_the_maximum_of_the_last_values(values: list[int], span_s: int) -> None:
    """It equals the maximum of the plain list, and is None if the list is shorter than the span."""
    window = StabilizationWindow()
    for now_s, value in enumerate(values):
        window.add(now_s, value)
        is_complete = now_s >= span_s
        expected = max(values[max(0, now_s - span_s) : now_s + 1]) if is_complete else None
        assert window.peak(now_s, span_s) == expected


def test_a_reset_window_is_empty() -> None:
    """The whole span has to pass again before there is a peak."""
    window = StabilizationWindow()
    window.add(0, 5)
    window.reset()
    window.add(10, 3)

    assert window.peak(10, 5) is None
    assert window.peak(10, 0) == 3
