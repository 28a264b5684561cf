"""Fairness among projects: whose turn it is, and who yields to what other routers hold."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.project_fairness import YIELD_S, ProjectFairness
from gateway.admission.queue_item import QueueItem
from gateway.admission.virtual_counters import HALF_LIFE_S
from gateway.request.tenant import Tenant
from gateway.routing.cost_model import CostModel
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.replica_set import ReplicaSet
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.usage import Reservation, UsageRecord
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=0, block_size=16, max_sequences=4, max_model_len=1000
)
NAMES = "abc"
numbers = itertools.count()


class Scene:
    """A model with one replica `r`, in the eyes of one router."""

    def __init__(self, clock: Clock) -> None:
        model = ServedModel("m", created_s=0)
        metadata = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)
        model.replace_replicas([Replica("r", metadata)])
        self.replicas = ReplicaSet(model, clock, "me")
        self.replicas.sync()
        self.fairness = ProjectFairness(self.replicas, CostModel(), clock)

    def item(self, project: str, *, weight: float = 1.0, cost_s: float = 1.0) -> QueueItem:
        """A request of a project."""
        return QueueItem(
            tenant=Tenant(project.encode()),
            tokens=1.0,
            priority_s=0.0,
            number=next(numbers),
            project=project,
            weight=weight,
            cost_s=cost_s,
        )

    def queue(self, project: str, **fields: float) -> QueueItem:
        """A request of a project that waits in this router."""
        item = self.item(project, **fields)
        self.fairness.record_queued(item, "r")
        return item

    def reserve(self, project: str, cost_s: float, weight: float = 1.0) -> Reservation:
        """A request of a project that starts somewhere."""
        reservation = Reservation(id=next(numbers), project=project, cost_s=cost_s, weight=weight)
        self.fairness.record_reserved(reservation)
        return reservation

    def lead_s(self, project: str, others: str) -> float:
        """How far a project is ahead of the last of others."""
        assert self.fairness.uses  # all that has started is charged
        return self.fairness._interactive.lead_s(project, others)

    def hold(self, *projects: str, router: str = "other") -> None:
        """Have another router hold these projects' requests."""
        self.replicas.held_elsewhere.record("r", {router: dict.fromkeys(projects, 1)})

    def yields(self, project: str, *, is_batch: bool = False) -> bool:
        """Whether a project's request yields."""
        return self.fairness.yields(project, "r", is_batch=is_batch)


@pytest.fixture
def scene(clock: Clock) -> Scene:
    """A scene."""
    return Scene(clock)


@given(
    st.lists(st.floats(0.01, 3.0), min_size=30, max_size=120),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=3, max_size=3),
)
def test_what_projects_that_wait_are_served_differs_by_little(
    costs: list[float], weights: list[float]
) -> None:
    """By the window and two of the largest requests at most, divided by weight, at any time."""
    scene = Scene(Clock())
    items = {n: scene.queue(n, weight=w) for n, w in zip(NAMES, weights, strict=True)}
    served, largest = dict.fromkeys(NAMES, 0.0), max(costs) / min(weights)
    for cost_s in costs:
        project = scene.fairness.next_project("r", items, is_batch=False)
        scene.reserve(project, cost_s, items[project].weight)
        served[project] += cost_s / items[project].weight
        spread = max(served[n] for n in NAMES) - min(served[n] for n in NAMES)
        assert spread <= scene.fairness.window_s + 2 * largest


def test_within_the_window_the_request_due_first_is_next(scene: Scene) -> None:
    """Beyond it, the project that was served less."""
    first, second = scene.queue("a"), scene.queue("b")
    second.priority_s = -1.0
    heads = {"a": first, "b": second}
    within = scene.fairness.next_project("r", heads, is_batch=False)
    scene.reserve("b", 2 * scene.fairness.window_s)
    beyond = scene.fairness.next_project("r", heads, is_batch=False)
    assert (within, beyond) == ("b", "a")


def test_a_project_ahead_yields_to_what_others_hold(scene: Scene) -> None:
    """One that is not ahead does not, nor does it while nobody holds anything."""
    scene.queue("a")
    scene.hold("b")
    near = scene.yields("a")
    scene.reserve("a", 100.0)
    ahead = scene.yields("a")
    scene.hold()
    alone = scene.yields("a")
    assert (near, ahead, alone) == (False, True, False)


def test_what_this_router_holds_itself_does_not_count_as_others(scene: Scene) -> None:
    """Engines repeat it, too, but later."""
    scene.queue("a")
    scene.reserve("a", 100.0)
    scene.hold("b", router="me")
    assert not scene.yields("a")


def test_room_that_nobody_takes_is_used(scene: Scene, clock: Clock) -> None:
    """After a moment; and until the project that did not take it starts requests again."""
    scene.queue("a")
    scene.hold("b")
    scene.reserve("a", 100.0)
    at_first = scene.yields("a")
    retry_s = scene.fairness.retry_s("r")
    clock.now_s += YIELD_S
    later, still = scene.yields("a"), scene.yields("a")
    scene.reserve("b", 1.0)
    again = scene.yields("a")
    assert (at_first, later, still, again) == (True, False, False, True)
    assert retry_s == pytest.approx(YIELD_S)


def test_room_that_is_taken_shows_that_others_hold_really(scene: Scene, clock: Clock) -> None:
    """The next room is left to them, too."""
    scene.queue("a")
    scene.hold("b")
    scene.reserve("a", 100.0)
    scene.yields("a")
    clock.now_s += YIELD_S / 2
    scene.fairness.record_full("r")
    clock.now_s += YIELD_S / 2
    assert scene.yields("a")


def test_batch_requests_yield_to_all_that_others_hold(scene: Scene) -> None:
    """Interactive ones that is, of whatever project."""
    scene.hold("a")
    assert scene.yields("a", is_batch=True)


def test_a_request_is_charged_what_it_took(scene: Scene) -> None:
    """By what the engine computed; one that it refused, and a copy, nothing."""
    scene.queue("a")
    scene.queue("b")
    reservation = scene.reserve("a", 5.0)
    usage = UsageRecord(
        epoch=1,
        seq=1,
        id=reservation.id,
        origin=Origin(),
        model="m",
        arrived_s=0.0,
        ended_s=0.0,
        prompt_tokens=12_000,
        cached_tokens=2_000,
    )
    scene.fairness.record_settled([(reservation, usage)])
    lead_s = scene.lead_s("a", "ab")
    scene.fairness.record_settled([(scene.reserve("a", 5.0), None)])
    scene.fairness.record_settled([(scene.reserve("b", 5.0), None)])
    after_refusals_s = scene.lead_s("a", "ab")
    assert lead_s == pytest.approx(1.0)  # 10,000 tokens at the speed that is assumed at first
    assert after_refusals_s == pytest.approx(1.0)
    assert scene.fairness.uses["a"].served_s == pytest.approx(1.0)


def test_a_released_request_is_charged_once(scene: Scene) -> None:
    """From its release, though it is sent a moment later."""
    scene.queue("b")
    item = scene.queue("a", cost_s=2.0)
    scene.fairness.record_released(item)
    released_s = scene.lead_s("a", "b")
    scene.fairness.record_discarded(item)
    scene.reserve("a", 2.0)
    assert released_s == scene.lead_s("a", "b") == pytest.approx(2.0)


def test_a_request_that_is_lost_gives_back_what_is_left_of_its_charge(
    scene: Scene, clock: Clock
) -> None:
    """Which has faded since: its project gains nothing by it."""
    scene.queue("a")
    scene.queue("b")
    lost, ended = scene.reserve("a", 8.0), scene.reserve("a", 2.0)
    assert scene.fairness.uses["a"].starts == 2  # charged now
    clock.now_s += 3 * HALF_LIFE_S
    scene.fairness.record_settled([(lost, None)])
    left_s = scene.lead_s("a", "ab")
    scene.fairness.record_settled([(ended, None)])
    assert left_s == pytest.approx(2.0 / 2**3)
    assert scene.lead_s("a", "ab") == pytest.approx(0.0)
    assert not scene.fairness._reserved_s


def test_requests_that_start_in_a_row_count_as_if_charged_one_by_one(clock: Clock) -> None:
    """Whoever asks, at whatever moment, and whoever begins to wait in between."""
    lazy, eager = Scene(clock), Scene(clock)
    for number, project in enumerate("aaabbabbbbaacab" * 4):
        clock.now_s += 0.01
        for scene in (lazy, eager):
            scene.reserve(project, 1.0 + number % 3, weight=1.0 + number % 2)
            if number in {20, 30}:
                scene.queue("b" if number == 20 else "c")
        assert eager.fairness.uses
        asked = NAMES[number % 3]
        assert lazy.fairness.is_over_share(asked) == eager.fairness.is_over_share(asked)
        if number % 7 == 0:
            leads = [scene.lead_s("a", NAMES) for scene in (lazy, eager)]
            assert leads[0] == pytest.approx(leads[1], abs=0.01)
