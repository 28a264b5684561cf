"""What a router knows of its replicas: their telemetry, its own books, and its decisions."""

import contextlib
import json
import random
from array import array
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from gateway.config.serving_options import ServingOptions
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.kvcache.prefix import KEY_BYTES, NO_PROMPT, Prompt
from gateway.kvcache.prefix_index import packed, packed_tokens
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.policies.policy import Candidate
from gateway.routing.replica_state import (
    IDLE,
    ReplicaState,
    SentRequest,
    prefill_tokens,
    room_tokens,
)
from gateway.routing.scheduler import Scheduler
from gateway.telemetry import (
    Dispatch,
    EngineFacts,
    Finished,
    Load,
    ReplicaMetadata,
    Update,
    UpdateReader,
    encode_update,
)
from tests.unit.targets import target_of

FACTS = EngineFacts(
    engine="fake",
    routes=(),
    kv_tokens=10_000,
    block_size=16,
    max_sequences=8,
    max_model_len=4096,
)
METADATA = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)


def prompt(*keys: int) -> Prompt:
    """A prompt of these keys, 64 tokens each."""
    return Prompt(array("Q", keys), size=KEY_BYTES * len(keys), seed=5, reply_start=b"")


TEN = prompt(*range(1, 11))


def routed_by(policy: str) -> ServingOptions:
    """What a model's entry says that names a policy."""
    return ServingOptions.model_validate({"routing": {"policy": policy}})


class Scene:
    """A dispatcher for replicas `a`, `b`..., their engines, and a clock that stands still."""

    def __init__(self, names: Iterable[str], policy: str = "marginal") -> None:
        self.now_s = 1000.0
        self.model = ServedModel("m", created_s=1, options=routed_by(policy))
        self.model.replace_replicas([Replica(name, METADATA) for name in names])
        self.log = DecisionLog()
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(self.model, self.log, rng, lambda: self.now_s)
        self.engines = {name: EngineTracker(FACTS, lambda: self.now_s) for name in names}

    def follow(self, *names: str) -> None:
        """Subscribe to the telemetry of these replicas, or of all."""
        for name in names or self.engines:
            self.tell(name, self.engines[name].snapshot())

    def report(self, name: str) -> None:
        """Let an engine tell what has changed."""
        if update := self.engines[name].take():
            self.tell(name, update)

    def tell(self, name: str, update: Update) -> None:
        """Send a frame over the wire."""
        for frame in UpdateReader().feed(encode_update(update)):
            self.scheduler.hear(name, frame)

    def seen(self, asked: Prompt = TEN) -> dict[str, Candidate]:
        """What is known of each replica that may take a prompt."""
        return {c.replica.id: c for c in self.scheduler.choose(target_of(asked)).candidates}

    @contextlib.contextmanager
    def sending(self, name: str, sent: Prompt = TEN) -> Iterator[Dispatch]:
        """Send a prompt to a replica, whatever the policy says."""
        decision = self.scheduler.choose(target_of(sent))
        ids = [candidate.replica.id for candidate in decision.candidates]
        decision.index = ids.index(name)
        with self.scheduler.sending(decision, target_of(sent)) as dispatch:
            yield Dispatch.decode(dispatch.encode())

    def answer(self, name: str, sent: Prompt = TEN, tokens: int = 640) -> Decision:
        """Have a prompt answered by a replica, from its arrival to its end, and told of."""
        engine = self.engines[name]
        with self.sending(name, sent) as dispatch:
            tracked = engine.arrive(dispatch, tokens)
            self.now_s += 0.25
            engine.start(tracked, cached_tokens=0)
            self.now_s += 0.5
            engine.finish(tracked, completion_tokens=11)
            self.report(name)
        return self.log.latest()[0]


@pytest.mark.parametrize("is_followed", [True, False])
def test_unconfirmed_requests_count_at_once_and_vanish_with_their_end(is_followed: bool) -> None:
    """A burst is spread before any engine has said a word; what fails leaves nothing behind."""
    scene = Scene("ab")
    if is_followed:
        scene.follow()

    with contextlib.suppress(ConnectionError), scene.sending("a"):
        during = scene.seen()
        raise ConnectionError

    a, b = during["a"], during["b"]
    assert (a.running, a.cached_keys, a.pending_tokens > 500) == (1, 10, True)
    assert (b.running, b.cached_keys, b.pending_tokens) == (0, 0, 0)
    after = scene.seen()["a"]
    assert (after.running, after.cached_keys, after.pending_tokens) == (0, 0, 0)
    assert len(scene.scheduler.prefix_index) == 0


def test_an_answer_is_remembered_until_telemetry_can_have_spoken_of_it() -> None:
    """The next turn may come before the engine's next frame; what it never speaks of is dropped."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a"):
        pass
    at_once = scene.seen()["a"]
    scene.now_s += 1
    scene.tell("a", Update())
    later = scene.seen()["a"]
    assert (at_once.cached_keys, at_once.running) == (10, 0)
    assert later.cached_keys == 0


def test_an_answer_confirmed_late_is_held_once() -> None:
    """Its keys are the engine's from then on, and go when it drops them."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        tracked = scene.engines["a"].arrive(dispatch, 640)
        scene.engines["a"].start(tracked, cached_tokens=0)
        scene.engines["a"].finish(tracked, completion_tokens=1)
    scene.report("a")
    held = scene.seen()["a"].cached_keys
    scene.engines["a"].forget()
    scene.report("a")
    assert held == 10
    assert scene.seen()["a"].cached_keys == 0


def test_a_request_that_failed_leaves_nothing() -> None:
    """Nobody knows what the engine did with it, but for the engine."""
    scene = Scene("a")
    scene.follow()
    with contextlib.suppress(OSError), scene.sending("a"):
        raise OSError
    assert scene.seen()["a"].cached_keys == 0


def test_confirmed_requests_are_counted_by_their_engine_alone() -> None:
    """From `accepted` on its load has them, and its keys come with their tokens."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        scene.engines["a"].arrive(dispatch, 700)
        scene.report("a")
        seen = scene.seen()["a"]
    assert (seen.running, seen.pending_tokens) == (1, 700)
    assert seen.cached_keys == 10
    still = scene.seen()["a"]
    assert (still.running, still.cached_keys) == (1, 10)


def test_requests_of_others_count_by_telemetry() -> None:
    """Another router's requests, and what they leave in the cache, are known like our own."""
    scene, other = Scene("a"), Scene("a")
    scene.follow()
    with other.sending("a") as dispatch:
        scene.engines["a"].arrive(dispatch, 640)
        scene.report("a")
    seen = scene.seen()["a"]
    assert (seen.running, seen.cached_keys, seen.cached_tokens) == (1, 10, 624)


def test_a_new_snapshot_counts_what_it_does_not_account_for() -> None:
    """While a subscription was broken a request was sent: it may not have arrived yet."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as arrived, scene.sending("a", prompt(11)):
        scene.engines["a"].arrive(arrived, 640)
        scene.report("a")
        scene.follow()
        assert scene.seen()["a"].running == 2
        scene.tell("a", Update(is_snapshot=True, load=IDLE))
        assert scene.seen()["a"].running == 2


def test_a_finished_request_is_confirmed_as_well() -> None:
    """It may come and go between two frames."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        scene.tell("a", Update(finished=[finished(dispatch.id)]))
        assert scene.seen()["a"].running == 0


def test_what_an_engine_evicts_is_held_no_more() -> None:
    """A cache of 10,000 tokens has room for 15 prompts of 640, the last ones."""
    scene = Scene("a")
    scene.follow()
    for first in range(0, 300, 10):
        scene.answer("a", prompt(*range(first, first + 10)))
    assert scene.seen(prompt(*range(10)))["a"].cached_keys == 0
    assert scene.seen(prompt(*range(290, 300)))["a"].cached_keys == 10
    assert len(scene.scheduler.prefix_index) * 64 <= FACTS.kv_tokens


def test_replicas_come_and_go() -> None:
    """A new one is a candidate at once; one that leaves takes along all that was known of it."""
    scene = Scene("ab")
    scene.follow()
    scene.answer("a")
    with scene.sending("a"):
        scene.model.replace_replicas([Replica("b", METADATA), Replica("c", METADATA)])
        assert scene.seen().keys() == {"b", "c"}
        assert len(scene.scheduler.prefix_index) == 0
    scene.tell("a", Update(added=packed([1]), added_tokens=packed_tokens([64])))
    scene.scheduler.lose("a")
    assert len(scene.scheduler.prefix_index) == 0


def test_a_request_may_be_sent_to_a_replica_that_has_just_left() -> None:
    """It will fail as it must; the books do not break."""
    scene = Scene("ab")
    decision = scene.scheduler.choose(target_of(TEN))
    scene.model.replace_replicas([])
    scene.scheduler.sync()
    with scene.scheduler.sending(decision, target_of(TEN)) as dispatch:
        assert dispatch.id == decision.id
    assert len(scene.scheduler.prefix_index) == 0


def test_draining_replicas_are_avoided() -> None:
    """They take nothing more, as long as there is another."""
    scene = Scene("ab")
    scene.follow()
    scene.engines["a"].drain()
    scene.report("a")
    assert scene.seen().keys() == {"b"}
    scene.engines["b"].drain()
    scene.report("b")
    assert scene.seen().keys() == {"a", "b"}


def test_a_replica_that_could_not_be_reached_is_left_out_for_a_while() -> None:
    """It looks idle because it refuses everything: it must not draw all requests."""
    scene = Scene("ab")
    scene.model.replicas["a"].shunned_until_s = scene.now_s + 1
    assert scene.seen().keys() == {"b"}
    scene.model.replicas["b"].shunned_until_s = scene.now_s + 1
    assert scene.seen().keys() == {"a", "b"}
    scene.now_s += 1
    assert scene.seen().keys() == {"a", "b"}


AVOIDING = [
    # draining, shunned, out, avoided: who is left of a to d
    ("", "", "", "", "abcd"),
    ("", "", "", "a", "bcd"),
    ("a", "b", "c", "", "d"),
    ("a", "b", "c", "d", "c"),  # one that fails at times rather than the one that just did
    ("a", "bc", "", "d", "bc"),
    ("abc", "", "", "d", "d"),  # those that drain take nothing at all
    ("", "ab", "cd", "", "cd"),
    ("abcd", "", "", "ab", "abcd"),
    ("", "", "", "abcd", "abcd"),
]


@pytest.mark.parametrize(("draining", "shunned", "out", "avoided", "left"), AVOIDING)
def test_who_is_chosen_among(
    draining: str, shunned: str, out: str, avoided: str, left: str
) -> None:
    """The best standing that any replica has; one that has just failed only if all others drain."""
    scene = Scene("abcd")
    scene.follow()
    for name in draining:
        scene.engines[name].drain()
        scene.report(name)
    for name in shunned:
        scene.model.replicas[name].shunned_until_s = scene.now_s + 1
    for name in out:
        eject(scene, name)
    candidates = scene.scheduler.choose(target_of(TEN), avoid=tuple(avoided)).candidates
    assert "".join(candidate.replica.id for candidate in candidates) == left
    assert scene.scheduler.sound == set("abcd") - set(draining + shunned + out)


def eject(scene: Scene, name: str) -> None:
    """Let requests to a replica fail until it is taken out."""
    while not scene.scheduler.outliers.is_out(name):
        scene.scheduler.outliers.fail(name, among=len(scene.engines))


def test_a_replica_taken_out_is_tried_with_one_request() -> None:
    """While that is under way the others are preferred; with its replica the record goes."""
    scene = Scene("ab")
    eject(scene, "a")
    scene.now_s += 60
    before = scene.seen().keys()
    with scene.sending("a"):
        during = scene.seen().keys()
    scene.model.replace_replicas([Replica("b", METADATA)])
    scene.scheduler.sync()
    scene.model.replace_replicas([Replica("a", METADATA), Replica("b", METADATA)])
    assert before == {"a", "b"}
    assert during == {"b"}
    assert scene.seen().keys() == {"a", "b"}


def load(running: int, waiting: int = 0, free_tokens: int = 10_000) -> Load:
    """What an engine tells of itself."""
    return Load(running=running, waiting=waiting, pending_tokens=0, free_tokens=free_tokens)


def sent(new_tokens: float) -> SentRequest:
    """A request with so many new tokens."""
    return SentRequest(Scene("a").scheduler.choose(target_of(TEN)), TEN, new_tokens)


ROOM = [
    # load, requests on their way there of 600 tokens each, new tokens, for others, for batch
    (load(0), 0, 99_999, True, True),  # an idle one takes anything
    (load(0), 1, 9_400, True, False),
    (load(0), 1, 9_401, False, False),
    (load(1, free_tokens=1000), 0, 1000, True, False),
    (load(1, free_tokens=1000), 0, 1001, False, False),
    (load(1, free_tokens=1000), 1, 400, True, False),
    (load(1, free_tokens=1000), 1, 401, False, False),
    (load(5), 0, 10, True, True),
    (load(6), 0, 10, True, False),  # a quarter of eight slots is kept for others
    (load(3), 3, 10, True, False),
    (load(8), 0, 10, True, False),  # one may wait in the engine
    (load(7), 1, 10, True, False),
    (load(9), 0, 10, False, False),
    (load(8), 1, 10, False, False),
    (load(2, waiting=1), 0, 10, False, False),  # it cannot start what it has
    (IDLE, 8, 10, True, False),  # it tells nothing: our own requests are all we know
    (IDLE, 9, 10, False, False),
    (IDLE, 1, 9_400, True, False),
    (IDLE, 1, 9_401, False, False),
]


@pytest.mark.parametrize(("told", "coming", "new_tokens", "others", "batch"), ROOM)
def test_room(told: Load, coming: int, new_tokens: float, others: bool, batch: bool) -> None:
    """Eight slots and 10,000 tokens of KV cache, less what is there and on its way."""
    state = ReplicaState(Replica("a", METADATA), load=told)
    state.released = dict.fromkeys(range(coming), sent(600.0))
    assert state.has_room(new_tokens, is_batch=False) == others
    assert state.has_room(new_tokens, is_batch=True) == batch


@pytest.mark.parametrize(
    ("requests", "sequences", "others", "batch"),
    [
        (1, 8, True, False),  # one of nine: one may wait in the engine
        (2, 8, False, False),
        (5, 4, True, False),
        (6, 4, False, False),
        (2, 4, True, True),
        (3, 4, True, False),
        (0, 99, True, True),
        (1, 99, True, False),  # more than it can run is all that it can run
        (2, 99, False, False),
    ],
)
def test_room_for_many_answers(requests: int, sequences: int, others: bool, batch: bool) -> None:
    """Each takes one of the eight slots."""
    state = ReplicaState(Replica("a", METADATA), released={n: sent(0.0) for n in range(requests)})
    assert state.has_room(1, sequences=sequences, is_batch=False) == others
    assert state.has_room(1, sequences=sequences, is_batch=True) == batch


def test_many_answers_under_way_are_as_many_requests() -> None:
    """Until the engine counts them itself."""
    state = ReplicaState(
        Replica("a", METADATA), released={1: sent(0.0)}, unconfirmed={2: sent(0.0)}
    )
    state.released[1].decision.sequences = 3
    assert state.requests == 4


@pytest.mark.parametrize(
    ("tokens", "kv_tokens", "prefill", "room"),
    [
        (4096, 10_000, 4096, 4096),
        (4097, 10_000, 4096, 4096),
        (8192, 10_000, 4096, 4096),
        (8193, 10_000, 4096, 0),  # surely refused, with 400
        (3000, 2000, 2000, 2000),
        (3000, 0, 3000, 3000),
    ],
)
def test_no_more_is_counted_than_an_engine_takes(
    tokens: int, kv_tokens: int, prefill: float, room: float
) -> None:
    """Estimates are rough: only what is far too long is known to be refused."""
    scene = Scene("a")
    facts = msgspec.structs.replace(FACTS, kv_tokens=kv_tokens)
    scene.model.replace_replicas([Replica("z", msgspec.structs.replace(METADATA, facts=facts))])
    decision = scene.scheduler.choose(target_of(Prompt(array("Q"), size=4 * tokens)))
    assert prefill_tokens(decision) == prefill
    assert room_tokens(decision) == room


def test_no_room_where_nothing_is_taken() -> None:
    """The only replica drains: better to wait for the next one than to be refused."""
    scene = Scene("a")
    scene.tell("a", Update(is_snapshot=True, is_draining=True))
    assert not scene.scheduler.has_room(scene.scheduler.choose(target_of(TEN)))


@pytest.mark.parametrize(
    ("slots", "rooms"), [(1, [2, 1, 1]), (2, [3, 1, 1]), (16, [17, 12, 15]), (64, [68, 48, 62])]
)
def test_room_by_slots(slots: int, rooms: list[int]) -> None:
    """A sixteenth may wait in the engine, batch has three quarters; one each at the least.

    Who has had a share leaves a thirty-second free.
    """
    facts = msgspec.structs.replace(FACTS, max_sequences=slots, kv_tokens=0, block_size=0)
    state = ReplicaState(Replica("a", msgspec.structs.replace(METADATA, facts=facts)))
    found = [0, 0, 0]
    for number in range(rooms[0] + 1):
        found[0] += state.has_room(999_999, is_batch=False)
        found[1] += state.has_room(999_999, is_batch=True)
        found[2] += state.has_room(999_999, is_batch=False, is_spared=True)
        state.released[number] = sent(0.0)
    assert found == rooms


@pytest.mark.parametrize(("new_tokens", "has_room"), [(9087, True), (9088, False)])
def test_a_share_ends_before_the_cache_does(new_tokens: int, has_room: bool) -> None:
    """Of 10,000 tokens of KV cache 600 are coming, and a thirty-second is left free."""
    state = ReplicaState(Replica("a", METADATA), released={1: sent(600.0)})
    assert state.has_room(new_tokens, is_batch=False, is_spared=True) == has_room
    assert state.has_room(new_tokens, is_batch=False)


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_slot_is_free_with_its_answer_s_end(is_told_first: bool) -> None:
    """Not only with the next frame of telemetry, and not twice when that has come already."""
    scene = Scene("a")
    scene.follow()
    with contextlib.ExitStack() as others:
        with scene.sending("a") as dispatch:
            engine = scene.engines["a"]
            tracked = engine.arrive(dispatch, 640)
            for number in range(8):
                engine.arrive(others.enter_context(scene.sending("a", prompt(number))), 64)
            scene.report("a")
            full = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
            engine.finish(tracked, completion_tokens=1)
            if is_told_first:
                engine.arrive(Dispatch(id=77), 64)
                scene.report("a")
        ended = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
        engine.arrive(Dispatch(id=78), 64)
        scene.report("a")
        taken = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
    assert not full
    assert ended == (not is_told_first)
    assert not taken


def test_what_has_ended_is_not_taken_off_what_is_not_known() -> None:
    """Telemetry has been lost since: there is no load that it was a part of."""
    state = ReplicaState(Replica("a", METADATA), ended_since=3, released={1: sent(10.0)})
    assert state.requests == 1


def test_what_is_held_counts_until_it_is_sent() -> None:
    """As waiting while it is held, then as running, with what it will leave in the cache."""
    scene = Scene("a")
    scene.follow()
    decision = scene.scheduler.choose(target_of(TEN))
    scene.scheduler.hold(decision, target_of(TEN))
    seen = [scene.seen()["a"]]
    scene.scheduler.release(decision)
    seen.append(scene.seen()["a"])
    scene.scheduler.drop(decision)
    seen.append(scene.seen()["a"])
    counts = [(c.running, c.waiting, round(c.pending_tokens), c.cached_keys) for c in seen]
    assert counts == [(0, 1, 640, 10), (1, 0, 640, 10), (0, 0, 0, 0)]


def test_what_is_held_for_a_replica_that_leaves_is_nobody_s() -> None:
    """It may be released or dropped all the same."""
    scene = Scene("ab")
    decision = scene.scheduler.choose(target_of(TEN))
    scene.scheduler.hold(decision, target_of(TEN))
    scene.model.replace_replicas([])
    scene.scheduler.sync()
    scene.scheduler.release(decision)
    scene.scheduler.drop(decision)
    assert len(scene.scheduler.prefix_index) == 0


def test_a_watcher_is_told_what_concerns_it() -> None:
    """Telemetry, its loss, the end of an answer, and replicas that come and go."""
    scene = Scene("ab")
    scene.follow()
    told: list[str] = []
    scene.scheduler.watcher = told.append
    with scene.sending("a"):
        assert told == []
    scene.tell("b", Update(load=load(1)))
    scene.scheduler.lose("b")
    scene.model.replace_replicas([Replica("c", METADATA), Replica("b", METADATA)])
    scene.scheduler.sync()
    scene.scheduler.watcher = None
    scene.tell("b", Update(load=load(2)))
    assert told == ["a", "b", "b", "a", "c"]


def test_batch_is_due_after_all_others() -> None:
    """Also after those that come much later, and among each other like those."""
    scene = Scene("a")
    batch, later_batch = (
        scene.scheduler.choose(target_of(prompt(1))),
        scene.scheduler.choose(target_of(TEN)),
    )
    batch.is_batch = later_batch.is_batch = True
    scene.now_s += 10 * 365 * 86_400
    other = scene.scheduler.choose(target_of(TEN))
    with (
        scene.scheduler.sending(batch, target_of(prompt(1))) as first,
        scene.scheduler.sending(later_batch, target_of(TEN)) as second,
        scene.scheduler.sending(other, target_of(TEN)) as third,
    ):
        assert third.priority < first.priority < second.priority
        assert (first.is_batch, third.is_batch) == (True, False)


def test_without_telemetry_the_routers_own_books_are_used() -> None:
    """What was answered is in the replica's cache, up to its capacity."""
    scene = Scene("ab")
    with scene.sending("a"):
        pass
    seen = scene.seen()
    assert (seen["a"].cached_keys, seen["a"].cached_tokens, seen["a"].running) == (10, 624, 0)
    assert seen["b"].cached_keys == 0
    for first in range(100, 300, 10):
        with scene.sending("a", prompt(*range(first, first + 10))):
            pass
    assert scene.seen()["a"].cached_keys == 0
    assert len(scene.scheduler.prefix_index) * 64 <= FACTS.kv_tokens


def test_lost_telemetry_falls_back_to_own_books() -> None:
    """What others do there is not known any more; what this router does there is."""
    scene = Scene("a")
    scene.follow()
    scene.answer("a", prompt(50, 51))
    with scene.sending("a") as dispatch:
        scene.engines["a"].arrive(dispatch, 640)
        scene.report("a")
        scene.scheduler.lose("a")
        lost = scene.seen()["a"]
        assert scene.seen(prompt(50, 51))["a"].cached_keys == 0
    assert (lost.running, lost.waiting) == (1, 0)
    ended = scene.seen()["a"]
    assert (ended.running, ended.pending_tokens, ended.cached_keys) == (0, 0, 10)


def test_telemetry_that_stays_away_leaves_the_own_books() -> None:
    """Every attempt to subscribe again ends in a loss; a success replaces the books."""
    scene = Scene("a")
    scene.follow()
    scene.scheduler.lose("a")
    with scene.sending("a"):
        pass
    scene.scheduler.lose("a")
    assert scene.seen()["a"].cached_keys == 10
    scene.follow()
    assert scene.seen()["a"].cached_keys == 0


def test_a_whole_prompt_in_the_cache_still_has_a_token_to_compute() -> None:
    """Engines cache whole blocks, and never the last token of a prompt."""
    scene = Scene("a")
    scene.follow()
    scene.answer("a", TEN, tokens=650)
    longer = Prompt(array("Q", [*TEN.keys, 77]), size=11 * KEY_BYTES)
    assert scene.seen(TEN)["a"].cached_tokens == 640
    assert scene.seen(longer)["a"].cached_tokens == 640
    assert scene.scheduler.choose(target_of(TEN)).prompt_tokens == 650
    assert scene.scheduler.choose(target_of(longer)).prompt_tokens == pytest.approx(714, rel=0.01)


def test_a_prompt_without_keys_goes_by_load() -> None:
    """What cannot be read costs nothing to know."""
    scene = Scene("ab")
    scene.follow()
    with scene.sending("a"):
        decision = scene.scheduler.choose(target_of(NO_PROMPT))
    assert decision.replica.id == "b"
    assert decision.cached_tokens == 0


def test_what_engines_finish_is_learned() -> None:
    """Costs follow the engines: these take 0.25 s for 640 tokens of 2560 bytes."""
    scene = Scene("a")
    scene.follow()
    for number in range(60):
        scene.answer("a", prompt(*range(100 * number, 100 * number + 10)), tokens=1280)
    estimates = scene.scheduler.latency.estimates
    assert estimates.prefill_s * 1280 + 0.01 == pytest.approx(0.25, rel=0.2)
    assert estimates.tokens_per_byte == pytest.approx(0.5, rel=0.2)


def test_a_decision_explains_itself_and_learns_how_it_turned_out() -> None:
    """Candidates, costs and winner as JSON; the engine's own numbers once it has finished."""
    scene = Scene("ab")
    scene.follow()
    asked = scene.scheduler.choose(target_of(TEN, request_id="r\u00e9\n1", max_tokens=20))

    before = json.loads(asked.encode())
    after = json.loads(scene.answer("b").encode())

    costs = {candidate["replica"]: candidate["cost"] for candidate in before["candidates"]}
    assert b"\n" not in asked.encode()
    assert before["request_id"] == "r\u00e9\n1"
    assert (before["model"], before["policy"], before["actual"]) == ("m", "marginal", None)
    assert (before["prompt_tokens"], before["output_tokens"]) == (640, 20)
    assert costs.keys() == {"a", "b"}
    assert costs[before["replica"]] == min(costs.values())
    assert before["ttft_s"] == pytest.approx(640e-4 + 0.012)
    assert after["replica"] == "b"
    assert after["actual"] == {
        "prompt_tokens": 640,
        "cached_tokens": 0,
        "completion_tokens": 11,
        "ttft_s": 0.25,
        "is_aborted": False,
    }


def test_decisions_are_kept_newest_first_and_not_for_ever() -> None:
    """The log is as long as it was made; reports on forgotten ones are nobody's.

    None is forgotten whose request is still under way.
    """
    scene = Scene("a")
    log = DecisionLog(size=2)
    decisions = [scene.scheduler.choose(target_of(TEN)) for _ in range(3)]
    late, *_ = others = [scene.scheduler.choose(target_of(TEN)) for _ in range(4)]
    for decision in (*decisions, *others):
        log.add(decision)
    for decision in (*decisions, *others[1:]):
        log.end(decision)
    assert log.latest() == others[:1:-1]

    for decision in (*decisions, *others):
        log.finish(finished(decision.id))

    assert [d.id for d in (*decisions, *others) if d.finished] == [
        d.id for d in (late, *others[2:])
    ]


def finished(id_: int) -> Finished:
    """A report on that request."""
    return Finished(
        id=id_,
        prompt_tokens=1,
        cached_tokens=0,
        completion_tokens=1,
        prompt_bytes=4,
        queue_s=0,
        prefill_s=0.1,
        decode_s=0,
        running=1,
    )


@pytest.mark.parametrize(
    "update",
    [
        Update(added=b"1234567"),
        Update(added=packed([1]), added_tokens=b"123"),
        Update(added=packed([1, 2]), added_tokens=packed_tokens([1])),
        Update(added_tokens=packed_tokens([1])),
        Update(dropped=b"1"),
        Update(is_snapshot=True, added=packed([1])),
    ],
)
def test_a_frame_that_cannot_be_understood_is_refused(update: Update) -> None:
    """Keys cut short, or without their tokens: the subscription has to begin anew."""
    scene = Scene("a")
    with pytest.raises(ValueError, match=r"multiple|without"):
        scene.tell("a", update)


def test_what_a_stranger_tells_is_ignored() -> None:
    """The last frame of a replica may arrive after it has gone."""
    scene = Scene("a")
    scene.tell("x", Update(added=packed([1]), added_tokens=packed_tokens([64])))
    assert len(scene.scheduler.prefix_index) == 0


def test_dispatch_tells_the_engine_all_it_needs() -> None:
    """The keys and where they end, for the ledger; and how urgent the request is."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch, scene.sending("a", prompt(91)) as short:
        assert dispatch.keys == packed(TEN.keys)
        assert (dispatch.key_bytes, dispatch.prompt_bytes) == (KEY_BYTES, 2560)
        assert (dispatch.seed, dispatch.reply_start, dispatch.is_token_ids) == (5, b"", False)
        assert dispatch.id != short.id
        assert short.priority < dispatch.priority
        scene.now_s += 1
        with scene.sending("a", prompt(92)) as later:
            assert later.priority == short.priority + 200


def test_a_changed_policy_is_followed() -> None:
    """The configuration of a running model may change."""
    scene = Scene("ab", policy="round-robin")
    assert [scene.scheduler.choose(target_of(TEN)).replica.id for _ in range(4)] == ["a", "b"] * 2
    scene.model.options = routed_by("least-pending")
    assert scene.scheduler.choose(target_of(TEN)).policy == "least-pending"
