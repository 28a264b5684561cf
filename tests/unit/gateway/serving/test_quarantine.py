"""The quarantine of requests that may have halted or killed engines."""

import msgspec
import pytest

from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.replica_set import ReplicaSet
from gateway.serving.quarantine import (
    MAX_ANSWERED,
    MAX_KEPT_BYTES,
    MAX_REQUESTS,
    MEMORY_S,
    QUARANTINE_S,
    STRIKE_FACTOR,
    Quarantine,
)
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=0, block_size=16, max_sequences=4, max_model_len=100
)
LONG_S = 5 * QUARANTINE_S
"""A hang that lasts much longer than a quarantine."""
START_S = 10 * LONG_S
"""How long an engine's start takes."""


def request(body: bytes = b"{}", client: bytes = b"a", path: str = "/v1/x") -> InferenceRequest:
    """A request of a client."""
    head = RequestHead("m")
    return InferenceRequest(head=head, path=path, body=body, tenant=Tenant(client))


class Bench:
    """A model with replicas `a`, `b` and `c`, and the quarantine of its requests."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.model = ServedModel("m", created_s=0)
        self.replicas = ReplicaSet(self.model, clock)
        self.quarantine = Quarantine(self.model, self.replicas, clock)
        self.has("a", "b", "c")

    def has(self, *names: str) -> None:
        """Let the model have these replicas."""
        metadata = ReplicaMetadata(
            model="m", host="h", port=1, key="k", facts=FACTS, start_s=START_S
        )
        self.model.replace_replicas([Replica(name, metadata) for name in names])
        self.replicas.sync()

    def hang(self, name: str, *, is_over: bool = False) -> None:
        """Let a replica hang, or respond again."""
        replica = self.model.replicas[name]
        self.replicas.record_responding(replica, is_responding=is_over)

    def silence(self, name: str, sent: InferenceRequest) -> None:
        """Let a replica fall silent under a request."""
        self.hang(name)
        self.quarantine.add(sent, [name])

    def is_kept(self, sent: InferenceRequest) -> bool:
        """Whether a request is not sent as usual."""
        return self.quarantine.find(sent) is not None


@pytest.fixture
def bench(clock: Clock) -> Bench:
    """Three healthy replicas."""
    return Bench(clock)


def test_the_same_request_of_the_same_client_is_found(bench: Bench) -> None:
    """Not another one, nor that of another client, nor one to another route."""
    assert not bench.is_kept(request())
    bench.silence("a", request())
    assert bench.is_kept(msgspec.structs.replace(request(), request_id=b"another"))
    others = [request(b"{ }"), request(client=b"b"), request(path="/v1/y")]
    assert not any(map(bench.is_kept, others))


@pytest.mark.parametrize("is_banned", [False, True])
def test_a_request_is_kept_until_its_victim_is_back_and_for_a_while(
    bench: Bench, is_banned: bool
) -> None:
    """However long that hangs; then the client that was merely unlucky is free."""
    bench.hang("a")
    bench.quarantine.add(request(), ["a"], is_banned=is_banned)
    bench.clock.now_s += LONG_S
    found = bench.quarantine.find(request())
    assert found is not None
    assert found.is_banned is is_banned
    bench.hang("a", is_over=True)
    bench.clock.now_s += QUARANTINE_S - 1
    assert bench.is_kept(request())
    bench.clock.now_s += 1
    assert not bench.is_kept(request())


def test_a_request_is_kept_until_its_victims_are_replaced_and_for_a_while(bench: Bench) -> None:
    """As many new replicas have to be there as have gone: no other one is its victim till then."""
    bench.quarantine.add(request(), ["a", "b"], is_banned=True)
    for there in (("c",), ("c", "d")):
        bench.has(*there)
        bench.clock.now_s += LONG_S
        assert bench.is_kept(request())
    bench.has("c", "d", "e")
    assert bench.is_kept(request())
    bench.clock.now_s += QUARANTINE_S
    assert not bench.is_kept(request())


def test_a_victim_that_is_not_replaced_is_waited_for_no_longer_than_a_start(bench: Bench) -> None:
    """Its node may be lost for good: the others serve the request again."""
    bench.silence("a", request())
    bench.clock.now_s += LONG_S
    bench.has("b", "c")
    bench.clock.now_s += START_S
    assert bench.is_kept(request())
    bench.clock.now_s += QUARANTINE_S
    assert not bench.is_kept(request())


def test_a_request_that_halts_one_more_replica_is_kept_for_longer(bench: Bench) -> None:
    """A poison that is sent again as soon as it is free has fewer and fewer victims."""
    kept_s = QUARANTINE_S
    for victim in ("a", "b", "c"):
        bench.silence(victim, request())
        bench.hang(victim, is_over=True)
        assert bench.is_kept(request())
        bench.clock.now_s += kept_s - 1
        assert bench.is_kept(request())
        bench.clock.now_s += 1
        assert not bench.is_kept(request())
        kept_s *= STRIKE_FACTOR
    bench.clock.now_s += MEMORY_S
    bench.silence("a", request())
    bench.hang("a", is_over=True)
    assert bench.is_kept(request())
    bench.clock.now_s += QUARANTINE_S
    assert not bench.is_kept(request())


def test_a_request_that_was_under_way_several_times_has_one_victim(bench: Bench) -> None:
    """All copies that the replica had ended with it; they count once."""
    for _ in range(4):
        bench.silence("a", request())
    bench.hang("a", is_over=True)
    assert bench.is_kept(request())
    bench.clock.now_s += QUARANTINE_S
    assert not bench.is_kept(request())


def test_a_request_that_has_two_victims_at_once_is_not_sent(bench: Bench) -> None:
    """It was under way on both; it is free only when both are back."""
    for victim in ("a", "b"):
        bench.silence(victim, request())
    found = bench.quarantine.find(request())
    assert found is not None
    assert found.is_banned
    bench.hang("b", is_over=True)
    bench.clock.now_s += LONG_S
    assert bench.is_kept(request())
    bench.hang("a", is_over=True)
    assert bench.is_kept(request())
    bench.clock.now_s += QUARANTINE_S * STRIKE_FACTOR
    assert not bench.is_kept(request())


@pytest.mark.parametrize("size", [2, MAX_KEPT_BYTES + 1])
def test_a_request_that_is_answered_is_free(bench: Bench, size: int) -> None:
    """Its replica came back, or another one had it as well; another request stays where it is."""
    sent, other = request(b"1" * size), request(b"2" * size)
    bench.silence("a", sent)
    bench.silence("a", other)
    bench.quarantine.record_answer(sent)
    assert not bench.is_kept(sent)
    assert bench.is_kept(other)
    bench.silence("b", sent)
    assert bench.is_kept(sent)


def test_a_request_that_was_answered_before_is_suspected_at_the_second_silence(
    bench: Bench,
) -> None:
    """A monitor sends the same all day, and is not refused when an engine is unplugged under it."""
    bench.quarantine.record_answer(request())
    for _ in range(2):
        bench.silence("a", request())
        assert not bench.is_kept(request())
    bench.quarantine.record_answer(request())
    bench.silence("b", request())
    assert bench.is_kept(request())


def test_what_two_replicas_have_died_of_is_kept_even_if_it_was_answered(bench: Bench) -> None:
    """That is no accident any more."""
    bench.quarantine.record_answer(request())
    bench.hang("a")
    bench.quarantine.add(request(), ["a", "b"], is_banned=True)
    assert bench.is_kept(request())


def test_only_the_latest_requests_are_remembered(bench: Bench) -> None:
    """However many there are, memory is bounded: of those that halt, and of those answered."""
    bench.hang("a")
    for number in range(MAX_REQUESTS + 1):
        bench.silence("a", request(b"%d" % number))
    assert not bench.is_kept(request(b"0"))
    assert bench.is_kept(request(b"1"))
    for number in range(MAX_ANSWERED + 1):
        bench.quarantine.record_answer(request(b"new %d" % number))
    for number, is_kept in ((0, True), (1, False)):
        bench.silence("a", request(b"new %d" % number))
        assert bench.is_kept(request(b"new %d" % number)) is is_kept
