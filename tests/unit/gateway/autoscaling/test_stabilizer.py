"""When a need for more or fewer replicas is followed."""

from collections.abc import Iterable

from gateway.autoscaling.desired_replicas import DesiredReplicas
from gateway.autoscaling.stabilizer import ScalingInput, Stabilizer


class Scene:
    """A governor that is asked every second, and whose replicas come when the test says."""

    def __init__(self, target: int = 1, delay_s: float = 100, **fixed: float) -> None:
        self.governor = Stabilizer(delay_s)
        self.target = self.running = target
        self.now_s = 1000.0
        self.start_s = fixed.pop("start_s", 1.0)
        self.bounds = {name: int(value) for name, value in fixed.items()}
        self.is_known = True

    def look(self, need: float, lasting: float | None = None) -> int:
        """One second later: what there is to be."""
        self.now_s += 1
        load = DesiredReplicas(sequences=need, lasting=need if lasting is None else lasting)
        self.target = self.governor.decide(
            ScalingInput(
                now_s=self.now_s,
                need=load,
                is_known=self.is_known,
                running=self.running,
                target=self.target,
                start_s=self.start_s,
                **self.bounds,
            )
        )
        return self.target

    def see(self, needs: Iterable[float]) -> list[int]:
        """Second by second, with replicas that come at once."""
        found = []
        for need in needs:
            self.running = self.target
            found.append(self.look(need))
        return found


def test_a_need_is_followed_once_it_has_lasted() -> None:
    """Two seconds, and to what it was on average."""
    assert Scene().see([2.5, 2.5, 3.5, 3.5]) == [1, 1, 3, 3]


def test_a_short_peak_is_not_followed() -> None:
    """A second of it is no need, however high."""
    assert set(Scene().see([1, 1, 9, 1, 1, 9, 1, 1])) == {1}


def test_where_starts_are_long_a_need_must_last_longer() -> None:
    """A tenth of a start, and ten seconds at most."""
    scene, slow = Scene(start_s=60), Scene(start_s=1000)
    assert scene.see([2.0] * 8) == [1] * 6 + [2] * 2
    assert slow.see([2.0] * 12) == [1] * 10 + [2] * 2


def test_what_piles_up_while_replicas_come_asks_for_no_more() -> None:
    """Only what lasts does, until the last one has come and has had time to help."""
    scene = Scene()
    scene.see([3.0] * 3)
    scene.running = 1
    waiting = [scene.look(9.0, lasting=1.4) for _ in range(30)]
    growing = [scene.look(9.0, lasting=4.4) for _ in range(4)]
    scene.running = 5
    settling = [scene.look(9.0, lasting=4.4) for _ in range(9)]
    settled = [scene.look(9.0, lasting=4.4) for _ in range(4)]

    assert set(waiting) == {3}
    assert growing[-1] == 5
    assert set(settling) == {5}
    assert settled[-1] == 9


def test_a_lower_need_is_followed_after_the_delay_to_its_highest() -> None:
    """And not while what is left would be more than nine tenths as full as wanted."""
    scene = Scene(target=5, delay_s=100)
    assert set(scene.see([2.0] * 100)) == {5}
    assert scene.see([2.0, 2.0]) == [3, 3]
    assert set(scene.see([2.0] * 300)) == {3}
    assert scene.see([1.7] * 101)[-1] == 2


def test_a_peak_begins_the_delay_anew() -> None:
    """Every minute something that needs all of them: none is taken away."""
    scene = Scene(target=3, delay_s=100)
    assert set(scene.see(([2.5] + [0.5] * 59) * 5)) == {3}


def test_a_replica_is_kept_for_twice_its_start() -> None:
    """However short the delay is."""
    scene = Scene(target=2, delay_s=5, start_s=100)
    assert set(scene.see([0.1] * 200)) == {2}
    assert scene.see([0.1] * 2)[-1] == 1


def test_nothing_is_taken_away_for_a_minute_but_from_the_idle() -> None:
    """A load that rests is not a load that is less."""
    busy, idle = Scene(target=2, delay_s=5), Scene(target=2, delay_s=5)
    assert set(busy.see([0.1] * 60)) == {2}
    assert idle.see([0.0] * 7) == [2] * 5 + [1, 0]


def test_what_was_just_taken_away_comes_back_only_for_an_urgent_need() -> None:
    """For a minute a little too much is borne."""
    scene, urgent = (Scene(target=2, delay_s=5) for _ in range(2))
    scene.see([0.8] * 61)
    urgent.see([0.8] * 61)
    assert scene.target == urgent.target == 1

    assert set(scene.see([1.2] * 55)) == {1}
    assert scene.see([1.2] * 8)[-1] == 2
    assert urgent.see([1.6] * 4)[-1] == 2


def test_all_but_one_go_at_once_and_that_one_right_after() -> None:
    """Serve would make one of none, which must not pass for somebody who asks for it."""
    scene = Scene(target=4, delay_s=100)
    assert scene.see([0.0] * 103)[-4:] == [4, 1, 0, 0]


def test_where_a_replica_is_silent_nothing_is_taken_away() -> None:
    """Nor for as long as usual after it has spoken: its load was not known."""
    scene = Scene(target=3, delay_s=100)
    scene.is_known = False
    assert set(scene.see([0.0] * 500)) == {3}
    scene.is_known = True
    assert set(scene.see([0.0] * 99)) == {3}
    assert scene.see([0.0] * 3)[-1] == 0


def test_the_bounds_are_kept() -> None:
    """Whatever the need, and also where they have changed."""
    scene = Scene(target=2, delay_s=5, least=1, most=3)
    assert scene.see([9.0] * 4)[-1] == 3
    assert scene.see([0.0] * 9)[-1] == 1
    scene.bounds["least"] = 2
    assert scene.look(0.0) == 2


def test_one_that_somebody_else_has_asked_for_gets_its_time() -> None:
    """Serve starts one for a sleeping model: that nothing was needed before counts no more."""
    scene = Scene(target=0, delay_s=20)
    scene.see([0.0] * 100)
    scene.target = 1
    assert set(scene.see([0.0] * 20)) == {1}
    assert scene.see([0.0] * 2)[-1] == 0
