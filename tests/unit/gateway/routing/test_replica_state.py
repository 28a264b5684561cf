"""Tests of whether a replica can start one more request, by its load and this router's requests."""

import itertools
import random

import msgspec
import pytest

from gateway.kvcache.prefix_index import PrefixIndex
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.replica_state import AssignedRequest, ReplicaState
from gateway.routing.scheduler import Scheduler
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.update import Load, Update
from tests.unit.gateway.routing.test_scheduler import FACTS, METADATA, TEN, load
from tests.unit.targets import target_of


class Scene:
    """The state of a replica with eight slots and 10,000 tokens of KV cache."""

    def __init__(self, facts: EngineFacts = FACTS) -> None:
        replica = Replica("a", msgspec.structs.replace(METADATA, facts=facts))
        model = ServedModel("m", created_s=1)
        model.replace_replicas([replica])
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(model, DecisionLog(), rng, lambda: 1000.0)
        self.state = ReplicaState(replica, PrefixIndex(), lambda: 1000.0)

    def request(self, new_tokens: float = 0.0, sequences: int = 1) -> AssignedRequest:
        """A request with so many new tokens and sequences."""
        decision = self.scheduler.choose(target_of(TEN, sequences=sequences))
        return AssignedRequest(decision, TEN, new_tokens)

    def release(self, count: int = 1, new_tokens: float = 0.0, sequences: int = 1) -> None:
        """Let requests be on their way to the replica."""
        for _ in range(count):
            request = self.request(new_tokens, sequences)
            self.state.hold(request)
            self.state.release(request.decision.id)


ROOM = [
    # load, requests of 600 tokens on their way, new tokens, room for interactive, for batch
    (load(0), 0, 99_999, True, True),  # an idle replica takes anything
    (load(0), 1, 9_400, True, False),
    (load(0), 1, 9_401, False, False),
    (load(1, free_tokens=1000), 0, 1000, True, False),
    (load(1, free_tokens=1000), 0, 1001, False, False),
    (load(1, free_tokens=1000), 1, 400, True, False),
    (load(1, free_tokens=1000), 1, 401, False, False),
    (load(5), 0, 10, True, True),
    (load(6), 0, 10, True, False),  # batch leaves a quarter of eight slots free
    (load(3), 3, 10, True, False),
    (load(8), 0, 10, True, False),  # one may wait in the engine
    (load(7), 1, 10, True, False),
    (load(9), 0, 10, False, False),
    (load(8), 1, 10, False, False),
    (load(2, waiting=1), 0, 10, False, False),  # it cannot start what it has
    (None, 8, 10, True, False),  # without telemetry, only this router's requests are known
    (None, 9, 10, False, False),
    (None, 1, 9_400, True, False),
    (None, 1, 9_401, False, False),
]


@pytest.mark.parametrize(("reported", "coming", "new_tokens", "interactive", "batch"), ROOM)
def test_room_is_what_load_and_coming_requests_leave(
    reported: Load | None, coming: int, new_tokens: float, interactive: bool, batch: bool
) -> None:
    """Slots and KV cache in use and on their way to be used are not free."""
    scene = Scene()
    if reported is not None:
        scene.state.record_update(Update(is_snapshot=True, load=reported))
    scene.release(coming, new_tokens=600.0)
    assert scene.state.has_room(new_tokens, is_batch=False) == interactive
    assert scene.state.has_room(new_tokens, is_batch=True) == batch


@pytest.mark.parametrize(
    ("requests", "sequences", "interactive", "batch"),
    [
        (1, 8, True, False),
        (8, 8, True, False),  # one of nine: one may wait in the engine
        (9, 8, False, False),
        (2, 4, True, True),
        (3, 4, True, False),
        (0, 99, True, True),
        (8, 99, True, False),  # more than it can run counts as all that it can run
        (9, 99, False, False),
    ],
)
def test_a_large_request_needs_a_part_of_the_slots(
    requests: int, sequences: int, interactive: bool, batch: bool
) -> None:
    """Of its sequences, an eighth of the slots must be free for some; batch needs all of them."""
    scene = Scene()
    scene.release(requests)
    assert scene.state.has_room(1, sequences=sequences, is_batch=False) == interactive
    assert scene.state.has_room(1, sequences=sequences, is_batch=True) == batch


@pytest.mark.parametrize(
    ("waiting", "coming", "small", "large"),
    [
        (0, 0, True, True),  # one may wait in the engine
        (1, 0, True, False),
        (4, 4, True, False),
        (4, 5, False, False),
        (9, 0, False, False),
    ],
)
def test_small_requests_pass_the_waiting_sequences_of_large_ones(
    waiting: int, coming: int, small: bool, large: bool
) -> None:
    """All slots are taken, but a small one gets the next: as many as there are slots may wait."""
    scene = Scene()
    full = Load(
        running=8, waiting=990 + waiting, yielding=990, pending_tokens=0, free_tokens=99_999
    )
    scene.state.record_update(Update(is_snapshot=True, load=full))
    scene.release(coming)
    assert scene.state.has_room(1, is_batch=False) == small
    assert scene.state.has_room(1, sequences=99, is_batch=False) == large
    assert not scene.state.has_room(1, is_batch=True)
    assert not scene.state.has_room(1, is_batch=False, is_over_share=True)


def test_a_large_request_without_telemetry_leaves_a_slot() -> None:
    """Where nothing is known of the engine, small requests are not turned away for its sake."""
    scene = Scene()
    scene.release(sequences=999)
    assert scene.state.has_room(1, is_batch=False)
    scene.release(2)
    assert not scene.state.has_room(1, is_batch=False)


def test_sequences_on_their_way_count_until_the_engine_counts_them() -> None:
    """Released and unconfirmed requests count with all their sequences."""
    scene = Scene()
    scene.release(sequences=3)
    scene.state.record_sent(scene.request())
    assert scene.state.sequences == 4


@pytest.mark.parametrize(
    ("slots", "rooms"), [(1, [2, 1, 1]), (2, [3, 1, 1]), (16, [17, 12, 15]), (64, [68, 48, 62])]
)
def test_room_is_a_share_of_the_slots(slots: int, rooms: list[int]) -> None:
    """A sixteenth may wait, batch leaves a quarter, tenants over their share a thirty-second."""
    scene = Scene(msgspec.structs.replace(FACTS, max_sequences=slots, kv_tokens=0, block_size=0))
    found = [0, 0, 0]
    for _ in range(rooms[0] + 1):
        found[0] += scene.state.has_room(999_999, is_batch=False)
        found[1] += scene.state.has_room(999_999, is_batch=True)
        found[2] += scene.state.has_room(999_999, is_batch=False, is_over_share=True)
        scene.release()
    assert found == rooms


@pytest.mark.parametrize(("new_tokens", "has_room"), [(9087, True), (9088, False)])
def test_tenants_over_their_share_leave_kv_cache_free(new_tokens: int, has_room: bool) -> None:
    """Of 10,000 tokens of KV cache 600 are coming, and a thirty-second is left free."""
    scene = Scene()
    scene.release(new_tokens=600.0)
    assert scene.state.has_room(new_tokens, is_batch=False, is_over_share=True) == has_room
    assert scene.state.has_room(new_tokens, is_batch=False)


def test_a_draining_replica_has_no_room() -> None:
    """It rejects new requests, so they wait for another replica instead."""
    scene = Scene()
    scene.state.record_update(Update(is_snapshot=True, is_draining=True))
    assert not scene.state.has_room(1, is_batch=False)


def test_ended_requests_are_not_subtracted_from_a_load_that_is_lost() -> None:
    """After telemetry is lost there is no load that they were a part of."""
    scene = Scene()
    requests = [scene.request() for _ in range(3)]
    for request in requests:
        scene.state.record_sent(request)
    ids = [request.decision.id for request in requests]
    scene.state.record_update(Update(is_snapshot=True, load=load(3), accepted=ids))
    for request in requests:
        scene.state.record_ended(request, is_answered=True)
    before = scene.state.sequences
    scene.state.lose_telemetry()
    scene.release()

    assert before == 0
    assert scene.state.sequences == 1


def test_a_closed_state_leaves_no_keys() -> None:
    """Held, sent and confirmed requests are forgotten with their replica."""
    index = PrefixIndex()
    scene = Scene()
    state = ReplicaState(scene.state.replica, index, itertools.count(1000.0).__next__)
    state.hold(scene.request())
    state.record_sent(scene.request())
    assert index.match(TEN.keys)
    state.close()
    assert len(index) == 0
