"""The telemetry client, over real sockets."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import msgspec
import pytest

from gateway.errors.upstream import UpstreamFailed
from gateway.kvcache.prefix import Prompt
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.policy import Candidate
from gateway.routing.replica_health import HealthState
from gateway.serving.pool import ModelPools
from gateway.serving.stall_limit import MIN_STALL_S
from gateway.serving.telemetry_client import FINISHED_AT_ONCE, SILENCE_S, TelemetryClient
from gateway.telemetry.update import Finished, Load, Update, encode_update, pack_keys, pack_tokens
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import PATIENCE_S, FakeEngine, StartEngine, Visit, answer, chunked
from tests.unit.pools import shared_state
from tests.unit.targets import target_of

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
KEYS = (11, 22, 33)
PROMPT = Prompt(KEYS, size=3 * 256)
SNAPSHOT = Update(
    is_snapshot=True,
    added=pack_keys(KEYS[:2]),
    added_tokens=pack_tokens([64, 128]),
    load=Load(running=5, waiting=1, pending_tokens=700, free_tokens=10),
)


class Bench:
    """A router's view of one model, kept up to date by telemetry."""

    def __init__(self, upstream: UpstreamClient, silence_s: float = SILENCE_S) -> None:
        rng = random.Random(1)  # noqa: S311 - it breaks ties only
        self.fleet = Fleet()
        self.pools = ModelPools(self.fleet, shared_state(rng=rng, time_of_day=lambda: 1000.0))
        self.model = ServedModel("m", created_s=1)
        self.fleet.add(self.model)
        self.telemetry_client = TelemetryClient(self.fleet, self.pools, upstream, rng, silence_s)

    def has(self, *engines: FakeEngine) -> None:
        """These engines are the model's replicas now."""
        self.fleet.replace_replicas(self.model, [engine.replica() for engine in engines])

    def is_in_backoff(self, replica: Replica) -> bool:
        """Whether others are preferred to a replica because it could not be reached."""
        return self.pools.of(self.model).scheduler.replicas.health(replica) is HealthState.BACKOFF

    def is_hanging(self, replica: Replica) -> bool:
        """Whether a replica counts as not responding."""
        health = self.pools.of(self.model).scheduler.replicas.health(replica)
        return health is HealthState.NOT_RESPONDING

    def clear_backoff(self, replica: Replica) -> None:
        """End a replica's backoff, and have it respond."""
        replicas = self.pools.of(self.model).scheduler.replicas
        replicas.clear_backoff(replica)
        replicas.record_responding(replica, is_responding=True)

    @property
    def candidate(self) -> Candidate:
        """The first replica as a candidate."""
        return self.candidates[0]

    @property
    def candidates(self) -> Sequence[Candidate]:
        """The replicas that may be chosen, as candidates."""
        scheduler = self.pools.of(self.model).scheduler
        return scheduler.choose(target_of(PROMPT, model=self.model)).candidates


@pytest.fixture
async def bench(upstream: UpstreamClient) -> AsyncIterator[Bench]:
    """A running telemetry client."""
    bench = Bench(upstream)
    bench.telemetry_client.start()
    yield bench
    await bench.telemetry_client.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def tell(tracked: Visit, *updates: Update) -> None:
    """Send frames of telemetry, the first with the head of the answer."""
    await tracked.send(HEAD + chunked(*map(encode_update, updates)))


async def live(tracked: Visit) -> None:
    """Tell once, and stay."""
    await tell(tracked, SNAPSHOT)
    await tracked.until_gone()


async def test_telemetry_updates_the_schedulers_view(
    start_engine: StartEngine, bench: Bench
) -> None:
    """The snapshot counts, then the changes, even if a frame arrives in pieces."""
    frame = encode_update(Update(added=pack_keys(KEYS[2:]), added_tokens=pack_tokens([190])))
    go_on = asyncio.Event()

    async def script(tracked: Visit) -> None:
        await tell(tracked, SNAPSHOT)
        await go_on.wait()
        await tracked.send(chunked(frame[:3]), chunked(frame[3:]))
        await tracked.until_gone()

    engine = await start_engine(script)
    bench.has(engine)
    await until(lambda: bench.candidate.running == 5)
    first = bench.candidate
    go_on.set()
    await until(lambda: bench.candidate.cached_keys == 3)

    assert (first.waiting, first.pending_tokens, first.cached_keys) == (1, 700, 2)
    assert first.cached_tokens == 128
    assert b"GET /engine/telemetry " in engine.requests[0]
    assert b"Bearer engine-key" in engine.requests[0]


@pytest.mark.parametrize("ending", [b"", chunked(b"\xff\xff\xff\xff no telemetry")])
async def test_a_broken_subscription_is_renewed(
    start_engine: StartEngine, bench: Bench, ending: bytes
) -> None:
    """After an end or garbage nothing old is believed, and a new snapshot counts."""
    again = asyncio.Event()

    async def script(tracked: Visit) -> None:
        if engine.connections == 1:
            await tell(tracked, SNAPSHOT)
            await until(lambda: bench.candidate.running == 5)
            await tracked.send(ending)
            tracked.writer.close()
            return
        await again.wait()
        await tell(tracked, SNAPSHOT)
        await tracked.until_gone()

    engine = await start_engine(script)
    bench.has(engine)
    await until(lambda: engine.connections == 2)
    between = bench.candidate
    again.set()
    await until(lambda: bench.candidate.running == 5)

    assert (between.running, between.cached_keys) == (0, 0)
    assert not bench.is_in_backoff(between.replica), "it has been reached again"


async def test_others_are_preferred_to_a_replica_without_telemetry(
    start_engine: StartEngine, bench: Bench
) -> None:
    """A subscription that breaks off is the first sign of a dead engine."""

    async def dying(tracked: Visit) -> None:
        if engine.connections > 1:
            tracked.writer.close()
            return
        await tell(tracked, SNAPSHOT)
        await until(lambda: bench.candidate.running == 5)
        tracked.writer.close()

    engine = await start_engine(dying)
    bench.has(engine)
    (replica,) = bench.model.replicas.values()
    await until(lambda: bench.is_in_backoff(replica))

    assert bench.candidate.running == 0
    bench.clear_backoff(replica)
    await until(lambda: bench.is_in_backoff(replica))  # as long as it is not heard again


@dataclass
class Stuck:
    """Two engines of one model, one of which stops in the middle of its work."""

    bench: Bench
    upstream: UpstreamClient
    hung: FakeEngine
    request: "asyncio.Task[object]"


@pytest.fixture
async def stuck(start_engine: StartEngine, upstream: UpstreamClient) -> AsyncIterator[Stuck]:
    """A request waits for the engine that is about to stop."""
    bench = Bench(upstream, silence_s=0.2)
    bench.telemetry_client.start()

    async def hang(tracked: Visit) -> None:
        if b"POST" not in tracked.request:
            await tell(tracked, SNAPSHOT)
        await tracked.until_gone()

    async def live(tracked: Visit) -> None:
        await tell(tracked, SNAPSHOT)
        while not tracked.writer.is_closing():
            await tracked.send(chunked(encode_update(Update())))
            await asyncio.sleep(0.02)

    hung, well = await start_engine(hang), await start_engine(live)
    bench.has(hung, well)
    request = asyncio.create_task(upstream.request(hung.address, "POST", "/", []))
    yield Stuck(bench, upstream, hung, request)
    request.cancel()
    await bench.telemetry_client.close()


async def test_a_silent_engine_is_given_up(stuck: Stuck) -> None:
    """Requests that wait for its answer fail, and others are preferred to it."""
    with pytest.raises(UpstreamFailed) as caught:
        await asyncio.wait_for(stuck.request, PATIENCE_S)
    assert caught.value.reason == "stuck"
    hung, well = stuck.bench.model.replicas.values()
    assert stuck.bench.is_hanging(hung)
    assert not stuck.bench.is_hanging(well)


async def test_others_are_preferred_to_an_engine_that_is_late(
    start_engine: StartEngine, upstream: UpstreamClient
) -> None:
    """Before it is given up, it gets no more requests; and it does again when it is heard."""
    go_on = asyncio.Event()

    async def late(visit: Visit) -> None:
        await tell(visit, SNAPSHOT)
        await go_on.wait()
        while not visit.writer.is_closing():
            await visit.send(chunked(encode_update(Update())))
            await asyncio.sleep(0.02)

    bench = Bench(upstream, silence_s=2.0)
    bench.telemetry_client.start()
    engine = await start_engine(late)
    bench.has(engine)
    (replica,) = bench.model.replicas.values()
    await until(lambda: bench.is_in_backoff(replica))
    replicas = bench.pools.of(bench.model).scheduler.replicas
    is_given_up = not replicas.has_telemetry(replica.id)
    go_on.set()
    await until(lambda: not bench.is_in_backoff(replica))
    await bench.telemetry_client.close()

    assert not is_given_up
    assert engine.connections == 1


async def test_an_engine_that_is_given_up_names_the_requests_that_may_have_halted_it(
    stuck: Stuck,
) -> None:
    """The one that was sent last before it fell silent, and not the one that it had taken in."""
    hung, _ = stuck.bench.model.replicas.values()
    scheduler = stuck.bench.pools.of(stuck.bench.model).scheduler
    await until(lambda: scheduler.replicas.has_telemetry(hung.id))
    target = target_of(PROMPT, model=stuck.bench.model)
    decisions = [scheduler.choose(target) for _ in range(2)]
    chosen = [msgspec.structs.replace(d, candidates=d.candidates[:1], index=0) for d in decisions]
    with contextlib.ExitStack() as sent:
        for decision in chosen:
            assert decision.replica is hung
            sent.enter_context(scheduler.sending(decision, target))
        scheduler.record_update(hung.id, Update(accepted=[chosen[0].id]))
        with pytest.raises(UpstreamFailed):
            await asyncio.wait_for(stuck.request, PATIENCE_S)
    assert [scheduler.replicas.has_silenced(decision) for decision in chosen] == [False, True]


async def test_the_only_engine_of_a_model_is_waited_for(stuck: Stuck) -> None:
    """No other engine could answer, and this one still may."""
    hung, _ = stuck.bench.model.replicas.values()
    stuck.bench.fleet.replace_replicas(stuck.bench.model, [hung])
    await until(lambda: stuck.bench.is_hanging(hung))  # its telemetry has been given up
    assert not stuck.request.done()


async def test_a_hang_is_logged_once_and_its_end_too(
    start_engine: StartEngine, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """However often its subscription is given up, a hang has one line, and its end another."""
    caplog.set_level("INFO", "gateway")
    is_awake = asyncio.Event()

    async def script(tracked: Visit) -> None:
        if engine.connections > 2 and is_awake.is_set():
            await tell(tracked, SNAPSHOT)
        await tracked.until_gone()

    engine = await start_engine(script)
    await bench.telemetry_client.close()
    bench.telemetry_client = TelemetryClient(
        bench.fleet,
        bench.pools,
        UpstreamClient(),
        random.Random(1),  # noqa: S311 - it spreads reconnections only
        silence_s=0.05,
    )
    bench.telemetry_client.start()
    bench.has(engine)
    (replica,) = bench.model.replicas.values()
    await until(lambda: engine.connections > 2)
    was_hanging = bench.is_hanging(replica)
    is_awake.set()
    await until(lambda: not bench.is_hanging(replica))

    assert was_hanging
    lines = [record.getMessage() for record in caplog.records if replica.id in record.getMessage()]
    assert [("does not respond" in line, "responds again" in line) for line in lines][:2] == [
        (True, False),
        (False, True),
    ]


async def test_a_stalled_engine_responds_again_after_its_step(
    start_engine: StartEngine, bench: Bench
) -> None:
    """Signs of life during the same step are not enough; the end of the step is."""
    say = asyncio.Event()

    async def script(tracked: Visit) -> None:
        await tell(tracked, SNAPSHOT, Update(stalled_s=MIN_STALL_S + 1))
        await tracked.send(chunked(encode_update(Update(stalled_s=MIN_STALL_S + 2))))
        await say.wait()
        await tracked.send(chunked(encode_update(Update(stalled_s=0.5))))
        await tracked.until_gone()

    engine = await start_engine(script)
    bench.has(engine)
    (replica,) = bench.model.replicas.values()
    await until(lambda: bench.is_hanging(replica))
    await asyncio.sleep(0.05)
    was_hanging = bench.is_hanging(replica)
    say.set()
    await until(lambda: not bench.is_hanging(replica))

    assert was_hanging


async def test_a_stalled_engine_is_given_up(
    start_engine: StartEngine, upstream: UpstreamClient, bench: Bench
) -> None:
    """It still sends telemetry, but its step takes far longer than any should."""

    async def stalled(tracked: Visit) -> None:
        if b"POST" not in tracked.request:
            await tell(tracked, SNAPSHOT, Update(stalled_s=MIN_STALL_S - 1))
            await until(lambda: len(engine.requests) == 2)
            await tracked.send(chunked(encode_update(Update(stalled_s=MIN_STALL_S + 1))))
        await tracked.until_gone()

    engine, other = await start_engine(stalled), await start_engine(live)
    bench.has(engine, other)
    await until(lambda: len(engine.requests) == 1)
    with pytest.raises(UpstreamFailed) as caught:
        await asyncio.wait_for(upstream.request(engine.address, "POST", "/", []), PATIENCE_S)
    assert caught.value.reason == "stuck"


async def test_the_stall_limit_doubles_with_each_engine_given_up(
    start_engine: StartEngine, upstream: UpstreamClient, bench: Bench
) -> None:
    """Steps that are longer than thought are not given up again and again, and never end."""
    stalls = iter([MIN_STALL_S + 1, 2 * MIN_STALL_S - 1, 2 * MIN_STALL_S + 1])
    say = asyncio.Event()

    async def stalled(tracked: Visit) -> None:
        if b"POST" not in tracked.request:
            await tell(tracked, SNAPSHOT)
            for stall_s in stalls:
                await say.wait()
                say.clear()
                load = Load(running=int(stall_s), waiting=0, pending_tokens=0, free_tokens=0)
                await tracked.send(chunked(encode_update(Update(stalled_s=stall_s, load=load))))
        await tracked.until_gone()

    async def ask() -> str:
        with pytest.raises(UpstreamFailed) as caught:
            await upstream.request(engine.address, "POST", "/", [])
        return caught.value.reason

    engine, other = await start_engine(stalled), await start_engine(live)
    bench.has(engine, other)
    await until(lambda: len(engine.requests) == 1)
    first = asyncio.create_task(ask())
    await until(lambda: len(engine.requests) == 2)
    say.set()
    assert await asyncio.wait_for(first, PATIENCE_S) == "stuck"
    for replica in bench.model.replicas.values():
        bench.clear_backoff(replica)
    second = asyncio.create_task(ask())
    await until(lambda: len(engine.requests) == 3)
    say.set()
    await until(lambda: 2 * MIN_STALL_S - 1 in [c.running for c in bench.candidates])
    assert not second.done()
    say.set()
    assert await asyncio.wait_for(second, PATIENCE_S) == "stuck"


async def test_an_engine_without_telemetry_is_a_candidate(
    start_engine: StartEngine, bench: Bench
) -> None:
    """It is asked again now and then, and no other is preferred to it for that."""

    async def script(tracked: Visit) -> None:
        await tracked.send(answer(b"", status=b"404 Not Found"))

    engine = await start_engine(script)
    bench.has(engine)
    await until(lambda: len(engine.requests) >= 2)

    assert not bench.is_in_backoff(bench.candidate.replica)


async def test_subscriptions_end_with_their_replicas(
    start_engine: StartEngine, bench: Bench
) -> None:
    """The subscription to a removed replica ends; that to another one continues."""

    async def script(tracked: Visit) -> None:
        await tell(tracked, SNAPSHOT)
        await tracked.until_gone()
        raise ConnectionError  # which the engine notes as a client that is gone

    stays, goes = await start_engine(script), await start_engine(script)
    bench.has(stays, goes)
    await until(lambda: bench.candidate.running == 5)
    bench.has(stays)
    await asyncio.wait_for(goes.gone.wait(), PATIENCE_S)
    is_still_followed = not stays.gone.is_set()
    await bench.telemetry_client.close()
    await asyncio.wait_for(stays.gone.wait(), PATIENCE_S)

    assert is_still_followed
    assert stays.connections == 1
    bench.telemetry_client.start()


async def test_all_engines_are_waited_for(start_engine: StartEngine, bench: Bench) -> None:
    """A new router knows what runs everywhere before it admits anything."""
    go_on = asyncio.Event()

    async def script(tracked: Visit) -> None:
        await go_on.wait()
        await live(tracked)

    bench.has(await start_engine(live), await start_engine(script))
    waiting = asyncio.create_task(bench.telemetry_client.wait_until_heard())
    await until(lambda: any(candidate.running for candidate in bench.candidates))
    assert not waiting.done()
    go_on.set()
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    assert [candidate.running for candidate in bench.candidates] == [5, 5]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_large_frame_keeps_nobody_waiting(
    start_engine: StartEngine, bench: Bench, is_cancelled: bool
) -> None:
    """Its requests are accounted for a few at a time, and all of them, whatever happens."""
    many = [
        Finished(
            id=number,
            prompt_tokens=10,
            cached_tokens=0,
            completion_tokens=1,
            prompt_bytes=0,
            queue_s=0.0,
            prefill_s=0.1,
            decode_s=0.0,
            running=1.0,
        )
        for number in range(100)
    ]
    scheduler = bench.pools.of(bench.model).scheduler
    learned: list[int] = []
    at_once: list[int] = []
    learn = scheduler.cost_model.learn

    def count(finished: Finished) -> None:
        learned.append(finished.id)
        learn(finished)

    def look(before: int = 0) -> None:
        at_once.append(len(learned) - before)
        if len(learned) < len(many):
            loop.call_soon(look, len(learned))
        if is_cancelled and learned:
            bench.has()

    async def script(tracked: Visit) -> None:
        await tell(tracked, SNAPSHOT, Update(finished=many))
        await tracked.until_gone()

    scheduler.cost_model.learn = count  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    look()
    bench.has(await start_engine(script))
    await until(lambda: len(learned) == len(many))

    assert learned == list(range(100))
    if not is_cancelled:
        assert max(at_once) == FINISHED_AT_ONCE
