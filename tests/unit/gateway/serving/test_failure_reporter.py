"""Whose fault a failure is: the replica's, or the request's, which its client sends at will."""

import asyncio
import contextlib
import json

import msgspec
import pytest

from gateway.config.serving_options import Adapter, QueueOptions, ServingOptions
from gateway.errors.gateway_error import NO_RETRY
from gateway.errors.upstream import UpstreamFailed
from gateway.faults import Action
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.outlier_detector import CONSECUTIVE_FAILURES
from gateway.routing.replica_health import HealthState
from gateway.serving import failure_reporter
from gateway.serving.failure_reporter import FailureReporter
from gateway.serving.fallback import FallbackChain
from gateway.serving.retry_budget import CLIENT_RESERVE
from gateway.serving.target_resolver import TargetResolver
from gateway.telemetry.update import Update
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import PATIENCE_S, Client, Script, StartEngine, Visit, answer, chunked
from tests.unit.gateway.serving.test_attempts import (
    DONE,
    END,
    EVENTS,
    FINISH,
    LIMITS,
    ROLE,
    ROUTES,
    Bench,
    chunk,
    request,
    script,
    text_of,
)
from tests.unit.targets import target_of

POISON = "poison"
HOSTILE, BYSTANDER = Tenant(b"hostile"), Tenant(b"bystander")
FINE = answer(b'"fine"')
SORRY = answer(b'{"error": {"message": "no"}}', status=b"500 Internal Server Error")
FAILED = b'data: {"error": {"message": "no", "code": 500}}\n\n'
ATTACKS = 40


def poison(model: str = "m", *, stream: bool = False) -> InferenceRequest:
    """A request that fails everywhere, of a client who sends it again and again."""
    messages = [{"role": "user", "content": POISON}]
    sent = request(model=model, messages=messages, stream=stream, temperature=0)
    return msgspec.structs.replace(sent, tenant=HOSTILE)


def plain(*, stream: bool = False) -> InferenceRequest:
    """A request that is as good as any."""
    return msgspec.structs.replace(request(stream=stream), tenant=BYSTANDER)


def poisoned_by(failure: Script, success: Script | None = None) -> Script:
    """An engine that fails at the poison, and answers everything else."""

    async def run(visit: Visit) -> None:
        is_poison = POISON.encode() in visit.request
        await (failure if is_poison else success or script(FINE))(visit)

    return run


@pytest.fixture
def bench(upstream: UpstreamClient, start_engine: StartEngine) -> Bench:
    """A model without engines."""
    return Bench(upstream, start_engine)


async def start(bench: Bench, *scripts: Script) -> list[Replica]:
    """Start engines that send telemetry."""
    replicas = await bench.has(*scripts)
    for replica in replicas:
        bench.pool.scheduler.record_update(replica.id, Update(is_snapshot=True))
    return replicas


async def answered(bench: Bench, sent: InferenceRequest) -> Client:
    """The client of a request that has been answered."""
    bench.client = Client()
    await bench.answer(sent)
    return bench.client


ERRORS: dict[str, tuple[Script, bool]] = {
    "answers 500": (script(SORRY), False),
    "answers 503": (script(answer(b"{}", status=b"503 Unavailable")), False),
    "answers 500 in plain text": (script(answer(b"oh", status=b"500 Oh")), False),
    "first event": (script(EVENTS + chunked(FAILED + DONE) + END), True),
    "after the role": (script(EVENTS + chunked(ROLE + FAILED + DONE) + END), True),
    "after text": (
        script(EVENTS + chunked(ROLE + chunk({"content": "a b"}) + FAILED + DONE) + END),
        True,
    ),
    "closes": (script(b"", closes=True), False),
    "no HTTP": (script(b"garbage\r\n\r\n", closes=True), False),
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_what_a_client_can_cause_at_will_harms_nobody_else(bench: Bench, kind: str) -> None:
    """Its request fails on both engines: none is ejected or avoided, and others are answered."""
    failure, is_stream = ERRORS[kind]
    replicas = await start(bench, *[poisoned_by(failure)] * 2)
    for _ in range(ATTACKS):
        bench.client = Client()
        with contextlib.suppress(UpstreamFailed):
            await bench.answer(poison(stream=is_stream))
        assert (await answered(bench, plain())).body == b'"fine"'
        assert bench.client.headers.get(b"x-gateway-retries") is None
    assert {bench.pool.scheduler.replicas.health(r) for r in replicas} == {HealthState.READY}
    assert sum(bench.tracked_requests) <= 4 * ATTACKS  # a kept connection that closes is tried anew
    assert Action.EJECTED not in {action for _, action in bench.faults}
    assert bench.pool.retry_budget(plain()).is_left


@pytest.mark.parametrize(
    "body", [b"Internal Server Error", b"", b"[1]", b'{"detail": "no"}', b"\xff"]
)
async def test_an_engine_s_error_of_another_shape_gets_openais(bench: Bench, body: bytes) -> None:
    """The status stays the engine's; the body is an error that clients can read."""
    await start(bench, *[script(answer(body, status=b"500 Oh"))] * 2)
    client = await answered(bench, plain())
    error = json.loads(client.body)["error"]
    assert client.status == 500
    assert (error["type"], error["code"]) == ("server_error", "upstream_failed")
    assert client.headers[b"x-should-retry"] == b"false"
    assert int(client.headers[b"content-length"]) == len(client.body)


async def test_another_answer_shows_that_a_replica_is_at_fault(bench: Bench) -> None:
    """Five requests that others can answer eject it, whoever has sent them."""
    broken, *_ = await start(bench, script(SORRY), script(FINE))
    replicas = bench.pool.scheduler.replicas
    while replicas.health(broken) is HealthState.READY:
        assert (await answered(bench, plain())).status == 200
        assert bench.tracked_requests[0] <= CONSECUTIVE_FAILURES
    assert replicas.health(broken) is HealthState.EJECTED
    assert bench.faults["answered_5xx", Action.EJECTED] == 1


async def test_a_long_stream_clears_matters_up_with_its_first_event(bench: Bench) -> None:
    """The replica that failed counts as failing while another one still answers."""
    go_on = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await visit.send(EVENTS + chunked(ROLE))
        await go_on.wait()
        await visit.send(chunked(chunk({"content": "hi"}) + FINISH + DONE) + END)

    broken, _ = await start(bench, script(SORRY), slow)
    tasks = []
    while not bench.tracked_requests[0]:
        bench.client = Client()
        tasks.append(asyncio.create_task(bench.answer(plain(stream=True))))
        await asyncio.wait_for(bench.client.has_bytes.wait(), PATIENCE_S)
    assert bench.pool.scheduler.replicas.is_suspect(broken)
    go_on.set()
    await asyncio.gather(*tasks)
    assert text_of(bench.client.body) == "hi"


async def test_a_refusal_clears_the_replica_that_failed(bench: Bench) -> None:
    """One engine says 500 and the other 400: the request is wrong, and neither is at fault."""
    refusal = script(answer(b"{}", status=b"400 Bad Request"))
    first, second = await start(bench, script(SORRY), refusal)
    while not bench.tracked_requests[0]:
        assert (await answered(bench, plain())).status == 400
    replicas = bench.pool.scheduler.replicas
    assert not replicas.is_suspect(first)
    assert not replicas.is_suspect(second)


async def test_refusals_do_not_speak_for_a_broken_replica(bench: Bench) -> None:
    """A client that sends invalid requests cannot keep a broken replica in use."""
    broken = poisoned_by(script(answer(b"{}", status=b"400 Bad Request")), script(SORRY))
    replica, _ = await start(bench, broken, script(FINE))
    while bench.pool.scheduler.replicas.health(replica) is HealthState.READY:
        await answered(bench, poison())
        assert (await answered(bench, plain())).status == 200
        assert bench.tracked_requests[0] < 8 * CONSECUTIVE_FAILURES


async def test_a_replica_that_fails_others_is_no_witness_against_a_request(bench: Bench) -> None:
    """Two of three replicas are broken: a request survives both where one is known for it."""
    first, second, _ = await start(bench, script(SORRY), script(SORRY), script(FINE))
    for replica in (first, second):
        bench.pool.scheduler.replicas.record_failure(replica)
    for _ in range(int(CLIENT_RESERVE / LIMITS.max_retries)):
        assert (await answered(bench, plain())).status == 200


async def test_a_broken_adapter_does_not_eject_a_replica(bench: Bench) -> None:
    """All its requests fail on one replica, which answers for the model itself."""
    bench.model.options = ServingOptions(adapters=[Adapter(name="x", source="x")])
    broken_adapter, _ = await start(bench, poisoned_by(script(SORRY)), script(FINE))
    resolver = TargetResolver(bench.fleet)

    async def ask_adapter() -> None:
        bench.client = Client()
        sent = poison(model="x")
        chain = FallbackChain(sent, ("x",), resolver, bench.context, bench.client.response)
        await chain.run()

    for _ in range(ATTACKS):
        await ask_adapter()
        await answered(bench, plain())
    assert bench.faults["answered_5xx", Action.RETRIED] > CONSECUTIVE_FAILURES
    assert bench.pool.scheduler.replicas.health(broken_adapter) is HealthState.READY


async def test_a_client_s_retries_are_not_those_of_others(bench: Bench) -> None:
    """After many requests that fail everywhere, another client's request is still retried."""
    calls = 0

    async def fails_once(visit: Visit) -> None:
        nonlocal calls
        calls += 1
        await visit.send(SORRY if calls == 1 else FINE)

    await start(bench, *[poisoned_by(script(SORRY), fails_once)] * 2)
    for _ in range(5 * ATTACKS):
        await answered(bench, poison())
    client = await answered(bench, plain())
    assert (client.body, client.headers[b"x-gateway-retries"]) == (b'"fine"', b"1")


@pytest.mark.parametrize("is_patient", [True, False])
async def test_clients_that_leave_or_are_late_say_nothing_of_a_replica(
    bench: Bench, is_patient: bool
) -> None:
    """Whatever they do, a replica on probation is probed by the next request, and comes back."""
    replica, other = await start(bench, *[poisoned_by(Visit.until_gone)] * 2)
    replicas = bench.pool.scheduler.replicas
    for _ in range(CONSECUTIVE_FAILURES):
        replicas.record_failure(replica)
    health = bench.pool.scheduler.replicas.get(replica.id)
    assert health is not None
    health.health.outlier_detector.excluded_until_s = 0.0
    health.health.outlier_detector._ejected_until_s = 0.0
    replicas.back_off(other, PATIENCE_S)
    for _ in range(3):
        sent = poison() if is_patient else msgspec.structs.replace(poison(), timeout_s=0.05)
        task = asyncio.create_task(bench.answer(sent))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await answered(bench, plain())).headers[b"x-gateway-replica"] == replica.id.encode()
    assert replicas.health(replica) is HealthState.READY


async def test_a_client_without_retries_is_asked_not_to_retry_either(bench: Bench) -> None:
    """Its library would otherwise send what fails three times, where the gateway sends it once."""
    await start(bench, *[script(SORRY)] * 2)
    asked = [(await answered(bench, poison())).headers[b"x-should-retry"] for _ in range(ATTACKS)]
    assert asked == [b"false"] * ATTACKS
    assert sum(bench.tracked_requests) < 1.5 * ATTACKS


async def test_a_blamed_request_may_be_answered_by_another_model(bench: Bench) -> None:
    """A plain error of both replicas is no reason to keep the request from a fallback."""
    await start(bench, *[script(SORRY)] * 2)
    other = ServedModel("n", created_s=1)
    bench.fleet.add(other)
    bench.fleet.replace_replicas(other, [(await bench.start_engine(script(FINE))).replica(ROUTES)])
    resolver = TargetResolver(bench.fleet)
    chain = FallbackChain(plain(), ("m", "n"), resolver, bench.context, bench.client.response)
    await chain.run()
    assert bench.client.body == b'"fine"'
    assert sum(bench.tracked_requests) == 2


class Halting:
    """Two engines, one of which stops at the poison until it is told to go on."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.reached = asyncio.Event()
        self.is_well = False
        self.sent: list[bytes] = []

    async def script(self, visit: Visit) -> None:
        """Answer, unless this is the poison, or it has halted before."""
        self.sent.append(visit.request)
        if POISON.encode() in visit.request and not self.is_well:
            self.reached.set()
            await visit.until_gone()
            return
        await visit.send(FINE)

    async def start(self) -> None:
        """Start both engines, and wait a little before a replica may be given up."""
        await start(self.bench, self.script, self.script)

    async def until_halted(self) -> Replica:
        """The replica that has the poison."""
        await asyncio.wait_for(self.reached.wait(), PATIENCE_S)
        engines = zip(self.bench.engines, self.bench.model.replicas.values(), strict=True)
        return next(r for e, r in engines if any(POISON.encode() in visit for visit in e.requests))

    def give_up(self, replica: Replica) -> None:
        """Give a replica up as the telemetry client does."""
        replicas = self.bench.pool.scheduler.replicas
        replicas.back_off(replica, PATIENCE_S)
        replicas.record_silence(replica)
        self.bench.upstream.abort_connections(replica.address)

    def come_back(self, replica: Replica) -> None:
        """Let a replica be heard again."""
        self.is_well = True
        self.bench.pool.scheduler.replicas.clear_backoff(replica)

    @property
    def poisons(self) -> list[int]:
        """How often each engine has had the poison."""
        return [
            sum(POISON.encode() in visit for visit in engine.requests)
            for engine in self.bench.engines
        ]


@pytest.fixture
async def halting(bench: Bench) -> Halting:
    """The two engines, running."""
    halting = Halting(bench)
    await halting.start()
    return halting


async def test_a_request_that_silences_a_replica_has_no_second_victim(halting: Halting) -> None:
    """The replica does not come back: the client gets an error, and must not send it again."""
    bench = halting.bench
    task = asyncio.create_task(bench.answer(poison()))
    halting.give_up(await halting.until_halted())
    with pytest.raises(UpstreamFailed) as caught:
        await asyncio.wait_for(task, PATIENCE_S)
    assert sum(halting.poisons) == 1
    assert caught.value.headers == [NO_RETRY]
    assert bench.faults == {("stuck", Action.FAILED): 1}


async def test_a_request_waits_for_the_replica_that_it_may_have_silenced(halting: Halting) -> None:
    """A short halt may have had another cause: the request is tried again, in the same place."""
    bench = halting.bench
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=PATIENCE_S))
    task = asyncio.create_task(bench.answer(poison()))
    replica = await halting.until_halted()
    halting.give_up(replica)
    await asyncio.sleep(0.1)
    halting.come_back(replica)
    await asyncio.wait_for(task, PATIENCE_S)
    assert bench.client.body == b'"fine"'
    assert sorted(halting.poisons) == [0, 2]
    assert bench.faults == {("stuck", Action.RETRIED): 1}


async def test_what_silences_a_replica_twice_is_given_up(halting: Halting) -> None:
    """One replica is its victim twice, and no other one at all."""
    bench = halting.bench
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=PATIENCE_S))
    task = asyncio.create_task(bench.answer(poison()))
    replica = await halting.until_halted()
    halting.give_up(replica)
    halting.reached.clear()
    bench.pool.scheduler.replicas.clear_backoff(replica)
    assert await halting.until_halted() is replica
    halting.give_up(replica)
    with pytest.raises(UpstreamFailed) as caught:
        await asyncio.wait_for(task, PATIENCE_S)
    assert sorted(halting.poisons) == [0, 2]
    assert caught.value.headers == [NO_RETRY]


async def test_what_a_replica_had_taken_in_before_it_fell_silent_goes_elsewhere(
    halting: Halting,
) -> None:
    """Telemetry has confirmed the request, so the halt came later: the other replica answers."""
    bench = halting.bench
    task = asyncio.create_task(bench.answer(poison()))
    replica = await halting.until_halted()
    (logged,) = bench.context.pools.decisions.latest()
    bench.pool.scheduler.record_update(replica.id, Update(accepted=[logged.decision.id]))
    halting.is_well = True
    halting.give_up(replica)
    await asyncio.wait_for(task, PATIENCE_S)
    assert bench.client.body == b'"fine"'
    assert halting.poisons == [1, 1]


async def test_a_request_that_silences_a_replica_goes_to_no_other_model(halting: Halting) -> None:
    """A fallback would be its next victim."""
    bench = halting.bench
    other = ServedModel("n", created_s=1)
    bench.fleet.add(other)
    engine = await bench.start_engine(halting.script)
    bench.fleet.replace_replicas(other, [engine.replica(ROUTES)])
    resolver = TargetResolver(bench.fleet)
    chain = FallbackChain(poison(), ("m", "n"), resolver, bench.context, bench.client.response)
    task = asyncio.create_task(chain.run())
    halting.give_up(await halting.until_halted())
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(task, PATIENCE_S)
    assert engine.requests == []


async def test_the_same_request_again_has_no_second_victim_either(halting: Halting) -> None:
    """A client that repeats it at once gets the error again, and no replica gets the request."""
    bench = halting.bench
    task = asyncio.create_task(bench.answer(poison()))
    halting.give_up(await halting.until_halted())
    again = asyncio.create_task(bench.answer(poison()))
    for each in (task, again):
        with pytest.raises(UpstreamFailed) as caught:
            await asyncio.wait_for(each, PATIENCE_S)
        assert caught.value.headers == [NO_RETRY]
    assert sum(halting.poisons) == 1
    assert (await answered(bench, plain())).body == b'"fine"'


async def test_the_same_request_goes_elsewhere_once_it_has_been_answered(halting: Halting) -> None:
    """A monitor is caught by chance when a replica is unplugged: the other one answers it."""
    bench = halting.bench
    halting.is_well = True
    assert (await answered(bench, poison())).body == b'"fine"'
    halting.is_well = False
    sent_before = sum(halting.poisons)
    bench.client = Client()
    task = asyncio.create_task(bench.answer(poison()))
    await asyncio.wait_for(halting.reached.wait(), PATIENCE_S)
    replica = bench.context.pools.decisions.latest()[0].decision.replica
    halting.give_up(replica)
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(task, PATIENCE_S)
    assert sum(halting.poisons) == sent_before + 1
    halting.is_well = True
    client = await answered(bench, poison())
    assert client.body == b'"fine"'
    assert client.headers[b"x-gateway-replica"] != replica.id.encode()


async def test_a_request_that_its_replica_answers_in_the_end_is_free(halting: Halting) -> None:
    """It was not what had halted the replica, so it may go to any other one."""
    bench = halting.bench
    task = asyncio.create_task(bench.answer(poison()))
    replica = await halting.until_halted()
    halting.give_up(replica)
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(task, PATIENCE_S)
    halting.come_back(replica)
    assert (await answered(bench, poison())).headers[b"x-gateway-replica"] == replica.id.encode()
    bench.pool.scheduler.replicas.back_off(replica, PATIENCE_S)
    assert (await answered(bench, poison())).headers[b"x-gateway-replica"] != replica.id.encode()


async def test_what_halts_its_replica_twice_is_not_sent_there_a_third_time(
    halting: Halting,
) -> None:
    """The replica is back, and the request is not sent at all."""
    bench = halting.bench
    bench.model.options = ServingOptions(queue=QueueOptions(max_wait_s=PATIENCE_S))
    task = asyncio.create_task(bench.answer(poison()))
    replica = await halting.until_halted()
    halting.give_up(replica)
    halting.reached.clear()
    bench.pool.scheduler.replicas.clear_backoff(replica)
    await halting.until_halted()
    halting.give_up(replica)
    with pytest.raises(UpstreamFailed):
        await asyncio.wait_for(task, PATIENCE_S)
    halting.come_back(replica)
    with pytest.raises(UpstreamFailed):
        await bench.answer(poison())
    assert sorted(halting.poisons) == [0, 2]


async def test_what_has_killed_two_engines_is_not_sent_again(bench: Bench) -> None:
    """The same request of the same client ends at once; another client's is sent."""
    await bench.has(*[script(b"", closes=True)] * 4)
    for _ in range(3):
        with pytest.raises(UpstreamFailed) as caught:
            await bench.answer(poison())
        assert caught.value.headers == [NO_RETRY]
    assert sum(bench.tracked_requests) == 2
    assert bench.faults["quarantined", Action.FAILED] == 2
    with pytest.raises(UpstreamFailed):
        await bench.answer(plain())
    assert sum(bench.tracked_requests) == 4


async def test_an_engine_that_says_that_it_has_died_is_a_victim(bench: Bench) -> None:
    """Its process outlives it: the second one is the last, and the request is not sent again."""
    died = script(answer(b"{}", b"x-engine-draining: died", status=b"503 Unavailable"))
    await start(bench, *[poisoned_by(died)] * 4)
    for _ in range(2):
        with pytest.raises(UpstreamFailed) as caught:
            await bench.answer(poison())
        assert caught.value.headers == [NO_RETRY]
    assert sum(bench.tracked_requests) == 2
    assert bench.faults["quarantined", Action.FAILED] == 1
    assert (await answered(bench, plain())).body == b'"fine"'


async def test_engines_that_report_an_error_and_die_are_victims_too(bench: Bench) -> None:
    """vLLM answers 500 when its engine core has died: no fallback gets what has killed two."""

    async def die(visit: Visit) -> None:
        await visit.send(SORRY)
        for replica in bench.model.replicas.values():
            if replica.address == visit.writer.get_extra_info("sockname"):
                bench.set_draining(replica, is_draining=True)

    await start(bench, *[poisoned_by(die)] * 3)
    other = ServedModel("n", created_s=1)
    bench.fleet.add(other)
    engine = await bench.start_engine(script(FINE))
    bench.fleet.replace_replicas(other, [engine.replica(ROUTES)])
    resolver = TargetResolver(bench.fleet)
    for _ in range(2):
        response = bench.client.response
        chain = FallbackChain(poison(), ("m", "n"), resolver, bench.context, response)
        with pytest.raises(UpstreamFailed):
            await chain.run()
    assert sum(bench.tracked_requests) == 2
    assert engine.requests == []


@pytest.mark.parametrize(
    ("drains_before", "death_s", "has_lost"),
    [(False, 5.0, True), (True, 5.0, False), (False, -1.0, False)],
)
async def test_a_replica_that_drains_anyway_is_no_victim(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    drains_before: bool,
    death_s: float,
    has_lost: bool,
) -> None:
    """One that drained when the request was sent, or drains long after, has not died of it."""
    monkeypatch.setattr(failure_reporter, "DEATH_S", death_s)
    await start(bench, *[script(SORRY)] * 2)
    target = target_of(model=bench.model)
    decision = bench.pool.scheduler.choose(target)
    replica = decision.replica
    reporter = FailureReporter(target, bench.pool.scheduler, bench.context.faults)
    bench.set_draining(replica, is_draining=drains_before)
    reporter.record_attempt(replica)
    await reporter.assess(decision, UpstreamFailed.from_answer(500, b"{}"), has_answered=False)
    assert reporter.has_lost_replica is False
    bench.set_draining(replica, is_draining=True)
    assert reporter.has_lost_replica is has_lost
