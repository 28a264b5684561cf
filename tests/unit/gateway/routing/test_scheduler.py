"""The scheduler: state of the replicas, and the decisions that follow from it."""

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
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision, DecisionLog, LoggedDecision
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.routing.policy import Candidate
from gateway.routing.replica_state import NO_LOAD
from gateway.routing.scheduler import Scheduler
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import (
    Finished,
    Load,
    Update,
    UpdateReader,
    encode_update,
    pack_keys,
    pack_tokens,
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
    """A prompt with these keys, 64 tokens each."""
    return Prompt(array("Q", keys), size=KEY_BYTES * len(keys), seed=5, reply_start=b"")


TEN = prompt(*range(1, 11))


def routed_by(policy: str) -> ServingOptions:
    """Serving options with a routing policy."""
    return ServingOptions.model_validate({"routing": {"policy": policy}})


class Scene:
    """A scheduler for replicas `a`, `b`..., their engines, and a clock that tests set."""

    def __init__(self, names: Iterable[str], policy: str = "marginal") -> None:
        self.now_s = 1000.0
        self.model = ServedModel("m", created_s=1, options=routed_by(policy))
        self.model.replace_replicas([Replica(name, METADATA) for name in names])
        self.log = DecisionLog()
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(self.model, self.log, rng, lambda: self.now_s)
        self.engines = {name: EngineTracker(FACTS, lambda: self.now_s) for name in names}

    def follow(self, *names: str) -> None:
        """Send the snapshots of these replicas, or of all, to the scheduler."""
        for name in names or self.engines:
            self.send(name, self.engines[name].snapshot())

    def report(self, name: str) -> None:
        """Send an engine's changes to the scheduler."""
        if update := self.engines[name].pop_update():
            self.send(name, update)

    def send(self, name: str, update: Update) -> None:
        """Send a frame to the scheduler, over the wire."""
        for frame in UpdateReader().feed(encode_update(update)):
            self.scheduler.record_update(name, frame)

    def candidates(self, asked: Prompt = TEN) -> dict[str, Candidate]:
        """Return the candidates for a prompt, by their ids."""
        return {c.replica.id: c for c in self.scheduler.choose(target_of(asked)).candidates}

    def back_off(self, name: str) -> None:
        """Put a replica in backoff for a second."""
        self.scheduler.replicas.back_off(self.model.replicas[name], 1)

    def eject(self, name: str) -> None:
        """Let requests to a replica fail until it is ejected."""
        replica = self.model.replicas[name]
        failures = range(CONSECUTIVE_FAILURES)
        assert any(self.scheduler.replicas.record_failure(replica) for _ in failures)

    @contextlib.contextmanager
    def sending(self, name: str, sent: Prompt = TEN) -> Iterator[Dispatch]:
        """Send a prompt to a replica, whatever the policy chooses."""
        chosen = self.scheduler.choose(target_of(sent))
        ids = [candidate.replica.id for candidate in chosen.candidates]
        decision = msgspec.structs.replace(chosen, index=ids.index(name))
        with self.scheduler.sending(decision, target_of(sent)) as dispatch:
            yield Dispatch.decode(dispatch.encode())

    def answer(self, name: str, sent: Prompt = TEN, tokens: int = 640) -> LoggedDecision:
        """Have a replica answer a prompt, and report on it."""
        engine = self.engines[name]
        with self.sending(name, sent) as dispatch:
            tracked = engine.record_arrival(dispatch, tokens)
            self.now_s += 0.25
            engine.record_first_token(tracked, cached_tokens=0)
            self.now_s += 0.5
            engine.record_finished(tracked, completion_tokens=11)
            self.report(name)
        return self.log.latest()[0]


@pytest.mark.parametrize("is_followed", [True, False])
def test_unconfirmed_requests_count_from_when_they_are_sent_to_their_end(is_followed: bool) -> None:
    """A burst is spread before any engine reports; a failed request leaves nothing behind."""
    scene = Scene("ab")
    if is_followed:
        scene.follow()

    with contextlib.suppress(ConnectionError), scene.sending("a"):
        during = scene.candidates()
        raise ConnectionError

    a, b = during["a"], during["b"]
    assert (a.running, a.cached_keys, a.pending_tokens > 500) == (1, 10, True)
    assert (b.running, b.cached_keys, b.pending_tokens) == (0, 0, 0)
    after = scene.candidates()["a"]
    assert (after.running, after.cached_keys, after.pending_tokens) == (0, 0, 0)
    assert len(scene.scheduler.replicas.prefix_index) == 0


def test_keys_of_an_answered_request_stay_until_telemetry_must_have_included_them() -> None:
    """The next turn may come before the engine's next frame; then unreported keys are dropped."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a"):
        pass
    at_once = scene.candidates()["a"]
    scene.now_s += 1
    scene.send("a", Update())
    later = scene.candidates()["a"]
    assert (at_once.cached_keys, at_once.running) == (10, 0)
    assert later.cached_keys == 0


@pytest.mark.parametrize("is_followed", [True, False])
def test_a_refused_request_brings_no_keys(is_followed: bool) -> None:
    """The engine computes nothing of it, so its keys are not expected for another moment."""
    scene = Scene("a")
    if is_followed:
        scene.follow()
    decision = scene.scheduler.choose(target_of(TEN))
    with scene.scheduler.sending(decision, target_of(TEN)):
        scene.scheduler.record_refused(decision)
        during = scene.candidates()["a"]
    assert (during.cached_keys, during.running) == (0, 1)
    assert scene.candidates()["a"].cached_keys == 0


def test_keys_confirmed_after_the_answer_are_dropped_with_the_engines() -> None:
    """Once the engine has reported them, they go when the engine drops them."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        tracked = scene.engines["a"].record_arrival(dispatch, 640)
        scene.engines["a"].record_first_token(tracked, cached_tokens=0)
        scene.engines["a"].record_finished(tracked, completion_tokens=1)
    scene.report("a")
    held = scene.candidates()["a"].cached_keys
    scene.engines["a"].record_cache_reset()
    scene.report("a")
    assert held == 10
    assert scene.candidates()["a"].cached_keys == 0


def test_a_failed_request_leaves_no_keys() -> None:
    """Only the engine knows what it did with the request."""
    scene = Scene("a")
    scene.follow()
    with contextlib.suppress(OSError), scene.sending("a"):
        raise OSError
    assert scene.candidates()["a"].cached_keys == 0


def test_a_confirmed_request_is_counted_once() -> None:
    """Once accepted, a request is part of the engine's load and no longer added to it."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        scene.engines["a"].record_arrival(dispatch, 700)
        scene.report("a")
        seen = scene.candidates()["a"]
    assert (seen.running, seen.pending_tokens) == (1, 700)
    assert seen.cached_keys == 10
    still = scene.candidates()["a"]
    assert (still.running, still.cached_keys) == (1, 10)


def test_requests_of_other_routers_are_known_from_telemetry() -> None:
    """Another router's request counts in the load and leaves its keys in the cache."""
    scene, other = Scene("a"), Scene("a")
    scene.follow()
    with other.sending("a") as dispatch:
        scene.engines["a"].record_arrival(dispatch, 640)
        scene.report("a")
    seen = scene.candidates()["a"]
    assert (seen.running, seen.cached_keys, seen.cached_tokens) == (1, 10, 624)


def test_requests_missing_from_a_snapshot_still_count() -> None:
    """A request sent while the telemetry was broken off may not have arrived yet."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as arrived, scene.sending("a", prompt(11)):
        scene.engines["a"].record_arrival(arrived, 640)
        scene.report("a")
        scene.follow()
        assert scene.candidates()["a"].running == 2
        scene.send("a", Update(is_snapshot=True, load=NO_LOAD))
        assert scene.candidates()["a"].running == 2


def test_a_finished_request_counts_as_confirmed() -> None:
    """It may arrive and end between two frames."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch:
        scene.send("a", Update(finished=[finished(dispatch.id)]))
        assert scene.candidates()["a"].running == 0


def test_evicted_keys_are_no_longer_held() -> None:
    """A cache of 10,000 tokens holds the last 15 prompts of 640 tokens."""
    scene = Scene("a")
    scene.follow()
    for first in range(0, 300, 10):
        scene.answer("a", prompt(*range(first, first + 10)))
    assert scene.candidates(prompt(*range(10)))["a"].cached_keys == 0
    assert scene.candidates(prompt(*range(290, 300)))["a"].cached_keys == 10
    assert len(scene.scheduler.replicas.prefix_index) * 64 <= FACTS.kv_tokens


def test_replicas_are_added_and_removed() -> None:
    """A new replica is a candidate at once; nothing is kept of a removed one."""
    scene = Scene("ab")
    scene.follow()
    scene.answer("a")
    with scene.sending("a"):
        scene.model.replace_replicas([Replica("b", METADATA), Replica("c", METADATA)])
        assert scene.candidates().keys() == {"b", "c"}
        assert len(scene.scheduler.replicas.prefix_index) == 0
    scene.send("a", Update(added=pack_keys([1]), added_tokens=pack_tokens([64])))
    scene.scheduler.record_telemetry_lost("a")
    assert len(scene.scheduler.replicas.prefix_index) == 0


def test_a_request_may_be_sent_to_a_removed_replica() -> None:
    """It will fail at the replica; the scheduler's state stays consistent."""
    scene = Scene("ab")
    decision = scene.scheduler.choose(target_of(TEN))
    scene.model.replace_replicas([])
    scene.scheduler.replicas.sync()
    with scene.scheduler.sending(decision, target_of(TEN)) as dispatch:
        assert dispatch.id == decision.id
    assert len(scene.scheduler.replicas.prefix_index) == 0


def test_draining_replicas_are_avoided() -> None:
    """They are candidates only if all replicas drain."""
    scene = Scene("ab")
    scene.follow()
    scene.engines["a"].record_draining()
    scene.report("a")
    assert scene.candidates().keys() == {"b"}
    scene.engines["b"].record_draining()
    scene.report("b")
    assert scene.candidates().keys() == {"a", "b"}


def test_a_replica_in_backoff_is_avoided_for_a_while() -> None:
    """A replica that refuses connections looks idle, and must not attract all requests."""
    scene = Scene("ab")
    scene.back_off("a")
    assert scene.candidates().keys() == {"b"}
    scene.back_off("b")
    assert scene.candidates().keys() == {"a", "b"}
    scene.now_s += 1
    assert scene.candidates().keys() == {"a", "b"}


AVOIDING = [
    # draining, in backoff, ejected, avoided: the candidates among a to d
    ("", "", "", "", "abcd"),
    ("", "", "", "a", "bcd"),
    ("a", "b", "c", "", "d"),
    ("a", "b", "c", "d", "c"),  # an ejected one rather than the one that has just failed
    ("a", "bc", "", "d", "bc"),
    ("abc", "", "", "d", "d"),  # draining ones reject everything
    ("", "ab", "cd", "", "cd"),
    ("abcd", "", "", "ab", "abcd"),
    ("", "", "", "abcd", "abcd"),
]


@pytest.mark.parametrize(("draining", "backoff", "ejected", "avoided", "left"), AVOIDING)
def test_candidates_are_the_replicas_in_the_best_health(
    draining: str, backoff: str, ejected: str, avoided: str, left: str
) -> None:
    """Ready before ejected before backoff; avoided ones only if all others drain."""
    scene = Scene("abcd")
    scene.follow()
    for name in draining:
        scene.engines[name].record_draining()
        scene.report(name)
    for name in backoff:
        scene.back_off(name)
    for name in ejected:
        scene.eject(name)
    candidates = scene.scheduler.choose(target_of(TEN), avoid=tuple(avoided)).candidates
    assert "".join(candidate.replica.id for candidate in candidates) == left
    assert scene.scheduler.replicas.healthy() == set("abcd") - set(draining + backoff + ejected)


def test_an_ejected_replica_is_probed_with_one_request() -> None:
    """During the probe the others are preferred; a replica that returns starts afresh."""
    scene = Scene("ab")
    scene.eject("a")
    scene.now_s += 60
    before = scene.candidates().keys()
    with scene.sending("a"):
        during = scene.candidates().keys()
    scene.model.replace_replicas([Replica("b", METADATA)])
    scene.scheduler.replicas.sync()
    scene.model.replace_replicas([Replica("a", METADATA), Replica("b", METADATA)])
    assert before == {"a", "b"}
    assert during == {"b"}
    assert scene.candidates().keys() == {"a", "b"}


def load(running: int, waiting: int = 0, free_tokens: int = 10_000) -> Load:
    """The load of an engine."""
    return Load(running=running, waiting=waiting, pending_tokens=0, free_tokens=free_tokens)


@pytest.mark.parametrize(
    ("tokens", "kv_tokens", "prefill", "room"),
    [
        (4096, 10_000, 4096, 4096),
        (4097, 10_000, 4096, 4096),
        (8192, 10_000, 4096, 4096),
        (8193, 10_000, 4096, 0),  # surely rejected
        (3000, 2000, 2000, 2000),
        (3000, 0, 3000, 3000),
    ],
)
def test_estimates_are_limited_to_what_an_engine_takes(
    tokens: int, kv_tokens: int, prefill: float, room: float
) -> None:
    """Estimates are rough: only a prompt far above the limit is sure to be rejected."""
    scene = Scene("a")
    facts = msgspec.structs.replace(FACTS, kv_tokens=kv_tokens)
    scene.model.replace_replicas([Replica("z", msgspec.structs.replace(METADATA, facts=facts))])
    decision = scene.scheduler.choose(target_of(Prompt(array("Q"), size=4 * tokens)))
    assert decision.prefill_tokens == prefill
    assert decision.kv_demand_tokens == room


@pytest.mark.parametrize("is_reported_first", [True, False])
def test_a_slot_is_free_when_its_answer_ends(is_reported_first: bool) -> None:
    """It is freed before the next frame, and not twice if that frame has already come."""
    scene = Scene("a")
    scene.follow()
    with contextlib.ExitStack() as others:
        with scene.sending("a") as dispatch:
            engine = scene.engines["a"]
            tracked = engine.record_arrival(dispatch, 640)
            for number in range(8):
                engine.record_arrival(others.enter_context(scene.sending("a", prompt(number))), 64)
            scene.report("a")
            full = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
            engine.record_finished(tracked, completion_tokens=1)
            if is_reported_first:
                engine.record_arrival(Dispatch(id=77), 64)
                scene.report("a")
        ended = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
        engine.record_arrival(Dispatch(id=78), 64)
        scene.report("a")
        taken = scene.scheduler.has_room(scene.scheduler.choose(target_of(prompt(99))))
    assert not full
    assert ended == (not is_reported_first)
    assert not taken


def test_a_held_request_counts_until_it_is_dropped() -> None:
    """It counts as waiting, then as running once released, with its keys expected."""
    scene = Scene("a")
    scene.follow()
    decision = scene.scheduler.choose(target_of(TEN))
    scene.scheduler.hold(decision, target_of(TEN))
    seen = [scene.candidates()["a"]]
    scene.scheduler.release(decision)
    seen.append(scene.candidates()["a"])
    scene.scheduler.discard(decision)
    seen.append(scene.candidates()["a"])
    counts = [(c.running, c.waiting, round(c.pending_tokens), c.cached_keys) for c in seen]
    assert counts == [(0, 1, 640, 10), (1, 0, 640, 10), (0, 0, 0, 0)]


def test_a_request_held_for_a_removed_replica_leaves_nothing() -> None:
    """It may still be released and dropped."""
    scene = Scene("ab")
    decision = scene.scheduler.choose(target_of(TEN))
    scene.scheduler.hold(decision, target_of(TEN))
    scene.model.replace_replicas([])
    scene.scheduler.replicas.sync()
    scene.scheduler.release(decision)
    scene.scheduler.discard(decision)
    assert len(scene.scheduler.replicas.prefix_index) == 0


def test_listeners_hear_of_replicas_whose_room_or_health_may_change() -> None:
    """Telemetry, its loss, the end of an answer, and added and removed replicas notify them."""
    scene = Scene("ab")
    scene.follow()
    notified: list[str] = []
    listener = notified.append
    scene.scheduler.replicas.subscribe(listener)
    with scene.sending("a"):
        assert notified == []
    scene.send("b", Update(load=load(1)))
    scene.scheduler.record_telemetry_lost("b")
    scene.model.replace_replicas([Replica("c", METADATA), Replica("b", METADATA)])
    scene.scheduler.replicas.sync()
    scene.scheduler.replicas.unsubscribe(listener)
    scene.send("b", Update(load=load(2)))
    assert notified == ["a", "b", "b", "a", "c"]


def test_engines_learn_whose_request_it_is() -> None:
    """So that they can share out what one client could take from the others."""
    scene, tenant = Scene("a"), Tenant(b"10.0.0.1", b"key")
    target = target_of(TEN, tenant=tenant)
    decision = scene.scheduler.choose(target)
    with scene.scheduler.sending(decision, target) as dispatch:
        assert Dispatch.decode(dispatch.encode()).tenant == tenant


def test_batch_requests_have_a_lower_priority_than_all_others() -> None:
    """They start after interactive ones that come years later, and by cost among themselves."""
    scene = Scene("a")
    batch = scene.scheduler.choose(target_of(prompt(1), is_batch=True))
    later_batch = scene.scheduler.choose(target_of(TEN, is_batch=True))
    scene.now_s += 10 * 365 * 86_400
    other = scene.scheduler.choose(target_of(TEN))
    with (
        scene.scheduler.sending(batch, target_of(prompt(1))) as first,
        scene.scheduler.sending(later_batch, target_of(TEN)) as second,
        scene.scheduler.sending(other, target_of(TEN)) as third,
    ):
        assert third.priority < first.priority < second.priority
        assert (first.is_batch, third.is_batch) == (True, False)


def test_small_requests_go_before_large_ones_for_a_while() -> None:
    """A request of many sequences lets others pass, but not for ever."""
    scene = Scene("a")

    def priority_s(sequences: int) -> float:
        decision = scene.scheduler.choose(target_of(TEN, sequences=sequences))
        return scene.scheduler.priority_s(decision)

    large, huge = priority_s(100), priority_s(10_000)
    assert priority_s(1) < priority_s(2) < large < huge
    scene.now_s += 20
    assert priority_s(1) < large
    scene.now_s += 31
    assert priority_s(1) > huge


def test_without_telemetry_the_cache_is_predicted_from_own_requests() -> None:
    """Answered prompts count as cached, up to the capacity of the replica's cache."""
    scene = Scene("ab")
    with scene.sending("a"):
        pass
    seen = scene.candidates()
    assert (seen["a"].cached_keys, seen["a"].cached_tokens, seen["a"].running) == (10, 624, 0)
    assert seen["b"].cached_keys == 0
    for first in range(100, 300, 10):
        with scene.sending("a", prompt(*range(first, first + 10))):
            pass
    assert scene.candidates()["a"].cached_keys == 0
    assert len(scene.scheduler.replicas.prefix_index) * 64 <= FACTS.kv_tokens


def test_after_telemetry_is_lost_only_own_requests_are_known() -> None:
    """Load and keys from other routers are forgotten; this router's requests are kept."""
    scene = Scene("a")
    scene.follow()
    scene.answer("a", prompt(50, 51))
    with scene.sending("a") as dispatch:
        scene.engines["a"].record_arrival(dispatch, 640)
        scene.report("a")
        scene.scheduler.record_telemetry_lost("a")
        lost = scene.candidates()["a"]
        assert scene.candidates(prompt(50, 51))["a"].cached_keys == 0
    assert (lost.running, lost.waiting) == (1, 0)
    ended = scene.candidates()["a"]
    assert (ended.running, ended.pending_tokens, ended.cached_keys) == (0, 0, 10)


def test_the_prediction_is_kept_until_telemetry_returns() -> None:
    """A failed reconnection changes nothing; a snapshot replaces the predicted keys."""
    scene = Scene("a")
    scene.follow()
    scene.scheduler.record_telemetry_lost("a")
    with scene.sending("a"):
        pass
    scene.scheduler.record_telemetry_lost("a")
    assert scene.candidates()["a"].cached_keys == 10
    scene.follow()
    assert scene.candidates()["a"].cached_keys == 0


def test_the_last_token_of_a_prompt_is_never_cached() -> None:
    """Engines cache whole blocks, and always compute the last token of a prompt."""
    scene = Scene("a")
    scene.follow()
    scene.answer("a", TEN, tokens=650)
    longer = Prompt(array("Q", [*TEN.keys, 77]), size=11 * KEY_BYTES)
    assert scene.candidates(TEN)["a"].cached_tokens == 640
    assert scene.candidates(longer)["a"].cached_tokens == 640
    assert scene.scheduler.choose(target_of(TEN)).prompt_tokens == 650
    assert scene.scheduler.choose(target_of(longer)).prompt_tokens == pytest.approx(714, rel=0.01)


def test_a_prompt_without_keys_is_routed_by_load() -> None:
    """Nothing is known to be cached, so the less loaded replica is chosen."""
    scene = Scene("ab")
    scene.follow()
    with scene.sending("a"):
        decision = scene.scheduler.choose(target_of(NO_PROMPT))
    assert decision.replica.id == "b"
    assert decision.cached_tokens == 0


def test_costs_are_learned_from_finished_requests() -> None:
    """These engines take 0.25 s for 1280 tokens of 2560 bytes."""
    scene = Scene("a")
    scene.follow()
    for number in range(60):
        scene.answer("a", prompt(*range(100 * number, 100 * number + 10)), tokens=1280)
    estimates = scene.scheduler.cost_model.estimates
    assert estimates.prefill_s * 1280 + 0.01 == pytest.approx(0.25, rel=0.2)
    assert estimates.tokens_per_byte == pytest.approx(0.5, rel=0.2)


def test_a_decision_is_explained_with_its_outcome() -> None:
    """The JSON has candidates, costs and choice, and the engine's report once there is one."""
    scene = Scene("ab")
    scene.follow()
    asked = scene.scheduler.choose(target_of(TEN, request_id="r\u00e9\n1", max_tokens=20))

    before = json.loads(asked.encode())
    after = json.loads(json.dumps(scene.answer("b").explanation()))

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


def test_the_log_keeps_the_latest_decisions_and_all_in_flight() -> None:
    """Reports are matched with decisions in flight and with recently ended ones, no others."""
    scene = Scene("a")
    reported: list[Decision] = []
    log = DecisionLog(size=2, observer=lambda decision, _: reported.append(decision))
    decisions = [scene.scheduler.choose(target_of(TEN)) for _ in range(3)]
    late, *_ = others = [scene.scheduler.choose(target_of(TEN)) for _ in range(4)]
    for decision in (*decisions, *others):
        log.record_sent(decision)
    for decision in (*decisions, *others[1:]):
        log.record_ended(decision)
    assert [logged.decision for logged in log.latest()] == others[:1:-1]

    for decision in (*decisions, *others):
        log.record_finished(finished(decision.id))

    assert reported == [late, *others[2:]]
    assert [logged.finished for logged in log.latest()] == [
        finished(logged.decision.id) for logged in log.latest()
    ]


def finished(id_: int) -> Finished:
    """An engine's report on that request."""
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
        Update(added=pack_keys([1]), added_tokens=b"123"),
        Update(added=pack_keys([1, 2]), added_tokens=pack_tokens([1])),
        Update(added_tokens=pack_tokens([1])),
        Update(dropped=b"1"),
        Update(is_snapshot=True, added=pack_keys([1])),
    ],
)
def test_a_malformed_frame_is_rejected(update: Update) -> None:
    """Truncated keys and keys without tokens raise, so that the client subscribes again."""
    scene = Scene("a")
    with pytest.raises(ValueError, match=r"multiple|without"):
        scene.send("a", update)


def test_telemetry_of_an_unknown_replica_is_ignored() -> None:
    """The last frame of a replica may arrive after its removal."""
    scene = Scene("a")
    scene.send("x", Update(added=pack_keys([1]), added_tokens=pack_tokens([64])))
    assert len(scene.scheduler.replicas.prefix_index) == 0


def test_a_dispatch_has_keys_and_priority() -> None:
    """The engine gets the prompt's keys for its shadow cache, and the request's priority."""
    scene = Scene("a")
    scene.follow()
    with scene.sending("a") as dispatch, scene.sending("a", prompt(91)) as short:
        assert dispatch.keys == pack_keys(TEN.keys)
        assert (dispatch.key_bytes, dispatch.prompt_bytes) == (KEY_BYTES, 2560)
        assert (dispatch.seed, dispatch.reply_start, dispatch.is_token_ids) == (5, b"", False)
        assert dispatch.id != short.id
        assert short.priority < dispatch.priority
        scene.now_s += 1
        with scene.sending("a", prompt(92)) as later:
            assert later.priority == short.priority + 200


def test_a_changed_policy_takes_effect() -> None:
    """The policy of a running model may change between two requests."""
    scene = Scene("ab", policy="round-robin")
    assert [scene.scheduler.choose(target_of(TEN)).replica.id for _ in range(4)] == ["a", "b"] * 2
    scene.model.options = routed_by("least-pending")
    assert scene.scheduler.choose(target_of(TEN)).policy == "least-pending"


def test_health_of_each_replica_is_counted() -> None:
    """Metrics show how many replicas are in each state."""
    scene = Scene("abcde")
    scene.follow("a", "b", "c")
    scene.engines["a"].record_draining()
    scene.report("a")
    scene.back_off("b")
    scene.eject("c")
    assert scene.scheduler.replicas.health_counts() == {
        "draining": 1,
        "backoff": 1,
        "ejected": 1,
        "no_telemetry": 2,
    }


def test_at_most_half_of_the_replicas_are_ejected() -> None:
    """If all fail, half of them are still used."""
    scene = Scene("abcde")
    scene.scheduler.replicas.sync()
    for _ in range(2 * CONSECUTIVE_FAILURES):
        for replica in scene.model.replicas.values():
            scene.scheduler.replicas.record_failure(replica)
    assert scene.scheduler.replicas.health_counts() == {"ejected": 2, "no_telemetry": 3}


def test_failures_of_an_unknown_replica_are_ignored() -> None:
    """A request may fail because its replica has been removed."""
    scene = Scene("a")
    stranger = Replica("x", METADATA)
    scene.scheduler.replicas.back_off(stranger)
    scene.scheduler.replicas.clear_backoff(stranger)
    scene.scheduler.replicas.record_success(stranger)
    assert not scene.scheduler.replicas.record_failure(stranger)
    assert scene.scheduler.replicas.health(stranger) is None
