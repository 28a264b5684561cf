"""Admission: when requests are sent to their replicas, wait, or are rejected."""

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.admission.admission import BYPASS_SHARE, RECHOICE_BATCH, RETRY_S, Admission
from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_limits import WAITING_BYTES
from gateway.admission.queued_request import AdmissionRequest, QueuedRequest
from gateway.admission.recent_usage import KEPT_S
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.errors.limits import Overloaded
from gateway.errors.upstream import ModelUnavailable
from gateway.kvcache.prefix import Prompt
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Load, Update, pack_keys, pack_tokens
from tests.unit.conftest import Clock
from tests.unit.targets import target_of

SLOTS = 4
ROOM = SLOTS + 1
"""With the one that may wait in the engine."""
PROMPT = Prompt(keys=(), size=400)
"""A hundred tokens."""
LONG = Prompt(array("Q", range(1, 9)), size=40_000, key_bytes=5000)
"""Ten thousand."""


def replica(name: str) -> Replica:
    """A replica of that id, without telemetry: what this router sends is all that it has."""
    facts = EngineFacts(
        engine="fake",
        routes=(),
        kv_tokens=0,
        block_size=16,
        max_sequences=SLOTS,
        max_model_len=100_000,
    )
    return Replica(name, ReplicaMetadata(model="m", host="h", port=1, key="k", facts=facts))


class Scene:
    """A model with replicas `a`, `b`..., and requests that go through its admission."""

    def __init__(self, clock: Clock, names: str = "a", queue: QueueOptions | None = None) -> None:
        self.clock = clock
        self.model = ServedModel(
            "m", created_s=1, options=ServingOptions(queue=queue or QueueOptions())
        )
        self.set_replicas(names)
        rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
        self.scheduler = Scheduler(self.model, DecisionLog(), rng, clock)
        self.all_queued = EvictionIndex[QueuedRequest]()
        self.admission = Admission(self.model, self.scheduler, self.all_queued, clock)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.decisions: dict[str, Decision] = {}
        """Of the requests that have been sent, in that order."""
        self.answers: dict[str, asyncio.Event] = {}

    def set_replicas(self, names: str) -> None:
        """Have these replicas, and no others."""
        self.model.replace_replicas([replica(name) for name in names])

    @property
    def is_watching(self) -> bool:
        """Whether the admission is subscribed to changes of replicas."""
        return bool(self.scheduler.replicas._listeners)

    @property
    def started(self) -> str:
        """Names of the requests that have been sent."""
        return " ".join(self.decisions)

    def choose(self, prompt: Prompt = PROMPT) -> Decision:
        """Choose a replica for a prompt."""
        return self.scheduler.choose(target_of(prompt, model=self.model))

    def request(self, prompt: Prompt = PROMPT, **fields: Any) -> AdmissionRequest:
        """A request for the model; `fields`: those of `target_of`."""
        return AdmissionRequest(target_of(prompt, model=self.model, **fields))

    async def admit(self, request: AdmissionRequest) -> Decision:
        """Have a request admitted, after its wait if it has to wait."""
        admitted = self.admission.submit(request)
        return await admitted.wait() if isinstance(admitted, QueuedRequest) else admitted

    async def come(
        self, names: str, tenant: str = "t", size: int = 0, prompt: Prompt = PROMPT
    ) -> None:
        """Have these requests come, one after the other; those that end with a `~` are batch."""
        for name in names.split():
            request = self.request(
                prompt,
                tenant=Tenant(tenant.encode()),
                is_batch=name.endswith("~"),
                body=bytes(size),
            )
            self.tasks[name] = asyncio.create_task(self._request(name, request))
        await settle()

    async def _request(self, name: str, request: AdmissionRequest) -> None:
        decision = await self.admit(request)
        with self.scheduler.sending(decision, request.target):
            self.decisions[name] = decision
            self.answers[name] = asyncio.Event()
            await self.answers[name].wait()

    async def answer(self, *names: str) -> None:
        """Let these requests be answered, or the first ones sent."""
        for name in names:
            self.answers.pop(name).set()
        await settle()

    def error(self, name: str) -> BaseException | None:
        """What ended a request; None if nothing has."""
        task = self.tasks[name]
        return task.exception() if task.done() else None

    async def close(self) -> None:
        """End all requests."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def settle() -> None:
    """Let every task on the event loop run several times."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], bool]) -> None:
    """Run the event loop until a condition holds, and no further."""
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never is")


def names_of(count: int, prefix: str = "r") -> str:
    """That many names."""
    return " ".join(f"{prefix}{number}" for number in range(count))


Stage = Callable[..., Scene]
FULL = names_of(ROOM, "full")


@pytest.fixture
async def stage(clock: Clock) -> AsyncIterator[Stage]:
    """Scenes whose requests are ended after the test, in which nothing failed unseen."""
    scenes: list[Scene] = []
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))

    def stage(names: str = "a", **queue: float) -> Scene:
        scenes.append(Scene(clock, names, QueueOptions.model_validate(queue)))
        return scenes[-1]

    yield stage
    for scene in scenes:
        await scene.close()
    assert errors == []


def test_a_request_with_room_does_not_wait(clock: Clock) -> None:
    """The decision is returned at once, without an event loop, and no replica is watched."""
    scene = Scene(clock)
    admitted = scene.admission.submit(scene.request())
    assert isinstance(admitted, Decision)
    assert admitted.waited_s == 0
    assert not scene.is_watching


async def test_a_request_without_room_waits_for_a_slot(stage: Stage) -> None:
    """Each answer starts one request, in order of arrival; its decision has the time it waited."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y z")
    before = scene.started
    scene.clock.now_s += 2
    await scene.answer("full0")
    after_one = scene.started
    await scene.answer("full1", "full2")

    assert before == FULL
    assert after_one == f"{FULL} x"
    assert scene.started == f"{FULL} x y z"
    assert scene.decisions["x"].waited_s == 2
    assert scene.admission.queued_interactive == 0
    assert not scene.is_watching


async def test_a_newcomer_does_not_overtake(stage: Stage) -> None:
    """A slot that was freed just now is for queued requests, even before their queue is served."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x")
    scene.answers.pop("full0").set()
    await scene.come("late")
    assert scene.started == f"{FULL} x"


async def test_queued_requests_count_as_load_of_their_replica(stage: Stage) -> None:
    """Later requests see a longer queue there, and another replica may be better."""
    scene = stage("ab")
    await scene.come(names_of(2 * ROOM))
    await scene.come("x y")
    decision = scene.choose()
    assert [c.waiting for c in decision.candidates] == [1, 1]
    assert [c.pending_tokens for c in decision.candidates] == [pytest.approx(600)] * 2
    assert {scene.admission.queued_interactive, scene.admission.queued_batch} == {2, 0}


async def test_queued_requests_attract_those_with_the_same_prefix(stage: Stage) -> None:
    """A prompt with the same beginning joins the first one's queue: it will be cached there."""
    scene = stage("ab")
    await scene.come(names_of(2 * ROOM))
    await scene.come("x", prompt=LONG)
    [queued] = scene.admission._queued
    alike = scene.choose(LONG)
    scene.tasks["x"].cancel()
    await settle()
    assert alike.replica is queued.decision.replica
    assert alike.cached_tokens > 0
    assert scene.choose(LONG).cached_tokens == 0


async def test_batch_waits_for_all_others(stage: Stage) -> None:
    """Interactive requests that arrive later start first, in slots that batch must not use."""
    scene = stage()
    await scene.come("b0~ b1~ b2~ b3~ b4~")
    batch_alone = scene.started
    await scene.come("i0 i1 i2 i3")
    await scene.answer("b0~")
    with_others = scene.started
    queued = scene.admission.queued_interactive, scene.admission.queued_batch
    await scene.answer("b1~", "b2~", "i0")

    assert batch_alone == "b0~ b1~ b2~"
    assert with_others == f"{batch_alone} i0 i1 i2"
    assert queued == (1, 2)
    assert scene.started == f"{with_others} i3"
    await scene.answer("i1")
    assert scene.started == f"{with_others} i3 b3~"


async def test_the_order_is_that_of_tokens_and_urgency(stage: Stage) -> None:
    """A tenant's short prompts start first, and two tenants get the same number of tokens."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("long0 long1", prompt=Prompt(keys=(), size=LONG.size))
    await scene.come("short")
    await scene.come("o0 o1 o2", "other")
    for name in [*FULL.split(), "short"]:
        await scene.answer(name)
    await scene.answer("o0", "o1")
    assert scene.started == f"{FULL} short o0 long0 o1 o2 long1"


async def test_a_flood_does_not_starve_other_tenants(stage: Stage) -> None:
    """Beside a tenant with fifty times its load, a small one waits one service time at most."""
    scene = stage(max_requests=60)
    waits, service_s, step_s = [], 1.0, 0.02
    ends: dict[str, float] = {}
    for step in range(1025):
        await scene.come(f"flood{step}", "flood")
        if step % 50 == 25:
            await scene.come(f"small{step}", "small")
        for name, decision in scene.decisions.items():
            if name not in ends:
                ends[name] = scene.clock.now_s + service_s
                waits += [decision.waited_s] * name.startswith("small")
        scene.clock.now_s += step_s
        over = [name for name, end_s in ends.items() if end_s <= scene.clock.now_s]
        await scene.answer(*(name for name in over if name in scene.answers))
    assert len(waits) == 20
    assert max(waits) <= service_s
    assert sum(isinstance(scene.error(name), Overloaded) for name in scene.tasks) > 500


async def test_a_tenant_below_its_share_starts_at_once(stage: Stage) -> None:
    """Once another tenant is known, a slot is kept free for tenants below their share."""
    scene = stage()
    await scene.come("s0", "small")
    await scene.come("f0 f1 f2 f3 f4", "flood")
    kept = scene.started
    await scene.come("s1", "small")
    waits = scene.decisions["s1"].waited_s
    taken = scene.started
    await scene.answer("s0", "s1")
    again = scene.started
    await scene.answer("f0")

    assert kept == "s0 f0 f1"
    assert (taken, waits) == (f"{kept} s1", 0)
    assert again == f"{taken} f2"
    assert scene.started == f"{again} f3"


async def test_a_tenant_that_is_alone_may_use_all_slots(stage: Stage) -> None:
    """No slot is kept for batch requests, nor for a tenant that has sent nothing lately."""
    scene = stage()
    await scene.come("b0~", "batch")
    await scene.come("s0", "small")
    await scene.answer("s0", "b0~")
    scene.clock.now_s += KEPT_S
    await scene.come("b1~", "batch")
    await scene.come(FULL, "flood")
    assert scene.started == "b0~ s0 b1~ full0 full1 full2 full3"


async def test_queued_requests_count_as_usage_once_started(stage: Stage) -> None:
    """A tenant whose requests were all queued has had its share when they have been started."""
    scene = stage()
    await scene.come(FULL, "flood")
    await scene.come("x0 x1 x2 x3 x4 x5", "other")
    await scene.answer(*FULL.split())
    await scene.answer("x0")
    assert scene.started == f"{FULL} x0 x1 x2 x3 x4"


async def test_a_tenant_does_not_overtake_its_own_requests(stage: Stage) -> None:
    """A tenant below its share waits behind its own queued requests."""
    scene = stage()
    await scene.come(FULL, "flood")
    await scene.come("f5", "flood")
    await scene.come("s0 s1", "small")
    scene.answers.pop("full0").set()
    scene.answers.pop("full1").set()
    await scene.come("s2", "small")
    assert scene.started == f"{FULL} f5 s0"


@pytest.mark.parametrize(
    ("waiting", "newcomer", "rejected"),
    [
        ([("a0 a1 a2", "a")], ("b", "b"), "a2"),
        ([("a0 a1 a2", "a")], ("a3", "a"), "a3"),
        ([("a0 a1", "a"), ("b~", "b")], ("a3", "a"), "b~"),
        ([("a0 a1", "a"), ("b", "b")], ("c~", "c"), "c~"),
    ],
)
async def test_when_too_many_wait_the_largest_share_pays(
    stage: Stage, waiting: list[tuple[str, str]], newcomer: tuple[str, str], rejected: str
) -> None:
    """Three of four may wait; the error of the fourth says why, and when to retry."""
    scene = stage(max_requests=3)
    await scene.come(FULL)
    for names, tenant in waiting:
        await scene.come(names, tenant)
    await scene.come(*newcomer)
    errors = {name: error for name in scene.tasks if (error := scene.error(name))}
    assert errors.keys() == {rejected}
    error = errors[rejected]
    assert isinstance(error, Overloaded)
    assert error.message == "The model `m` is overloaded: 3 requests are waiting."
    assert error.retry_after_s == RETRY_S
    assert scene.admission.queued_interactive + scene.admission.queued_batch == 3


async def test_a_model_may_have_no_queue(stage: Stage) -> None:
    """A request that cannot be started at once is rejected."""
    scene = stage(max_requests=0)
    await scene.come(f"{FULL} x")
    assert scene.started == FULL
    assert "no request may wait" in str(scene.error("x"))


async def test_the_bytes_of_queued_bodies_are_bounded(stage: Stage) -> None:
    """The largest share of bytes is rejected first, even a single request of another model."""
    scene, other = stage(), stage()
    scene.admission = Admission(scene.model, scene.scheduler, other.all_queued, scene.clock)
    for each in (scene, other):
        await each.come(FULL)
    await other.come("large", "a", WAITING_BYTES - 10)
    await scene.come("small", "b", 20)
    await scene.come("same", "b", WAITING_BYTES)
    assert "256 MiB of requests are waiting" in str(other.error("large"))
    assert scene.error("small") is None
    assert isinstance(scene.error("same"), Overloaded)
    assert other.all_queued.weight == 20


@pytest.mark.parametrize("is_released", [False, True])
async def test_a_cancelled_request_leaves_nothing_behind(stage: Stage, is_released: bool) -> None:
    """If it is cancelled while it waits, or just as it is released, the next one starts."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y")
    if is_released:
        scene.answers.pop("full0").set()
        await until(lambda: scene.admission.queued_interactive == 1)
        scene.tasks["x"].cancel()
        await settle()
    else:
        scene.tasks["x"].cancel()
        await settle()
        assert scene.admission.queued_interactive == 1
        assert [c.waiting for c in scene.choose().candidates] == [1]
        await scene.answer("full0")
    assert scene.tasks["x"].cancelled()
    assert scene.started == f"{FULL} y"
    await scene.answer("y")
    assert [c.requests for c in scene.choose().candidates] == [ROOM - 1]
    assert not scene.is_watching


async def test_a_slot_is_not_lost_on_a_request_cancelled_meanwhile(stage: Stage) -> None:
    """A slot that is freed at the same moment goes to the next request."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y")
    scene.tasks["x"].cancel()
    await scene.answer("full0")
    assert scene.started == f"{FULL} y"


async def test_a_request_may_be_cancelled_before_its_queue_is_served(stage: Stage) -> None:
    """Its queue may be served before its caller has handled the cancellation."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y")
    scene.answers.pop("full0").set()
    await until(lambda: scene.admission._is_scheduled)
    scene.tasks["x"].cancel()
    await settle()
    assert scene.tasks["x"].cancelled()
    assert scene.started == f"{FULL} y"


async def test_a_released_request_keeps_its_slot_until_it_is_sent(stage: Stage) -> None:
    """Two wait for one slot: telemetry that arrives before the first is sent frees it once."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y")
    scene.answers.pop("full0").set()
    await until(lambda: scene.admission.queued_interactive == 1)
    is_sent = "x" in scene.decisions
    has_room = scene.scheduler.has_room(scene.choose())
    await settle()
    assert not is_sent
    assert not has_room
    assert scene.started == f"{FULL} x"


async def test_an_unused_slot_goes_to_the_next_request(stage: Stage) -> None:
    """An admitted request may fail before it is sent."""
    scene = stage()
    await scene.come(FULL)
    unused = asyncio.create_task(scene.admit(scene.request(tenant=Tenant(b"t"))))
    await settle()
    await scene.come("x")
    await scene.answer("full0")
    assert unused.done()
    assert scene.started == f"{FULL} x"


@pytest.mark.parametrize(("name", "limit"), [("x", "max_wait_s"), ("x~", "batch_max_wait_s")])
async def test_a_request_that_has_waited_too_long_is_rejected(
    stage: Stage, name: str, limit: str
) -> None:
    """The limit is the model's, one for each priority."""
    scene = stage(**{"max_wait_s": 60, "batch_max_wait_s": 60, limit: 0.01})
    await scene.come(FULL)
    await scene.come(name)
    with pytest.raises(Overloaded, match=r"overloaded: the request waits longer than 0.01 s\."):
        await scene.tasks[name]
    assert scene.all_queued.weight == 0
    assert not scene.is_watching


async def test_the_wait_limit_does_not_limit_the_answer(stage: Stage) -> None:
    """An answer may take as long as it takes."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x")
    [queued] = scene.admission._queued
    await scene.answer("full0")
    assert queued.timer is not None
    assert queued.timer.cancelled()


async def test_a_request_that_would_wait_too_long_is_rejected_at_once(stage: Stage) -> None:
    """At one start a second and with four queued, the sixth would exceed 80 % of the limit."""
    scene = stage(max_wait_s=6)
    await scene.come(f"{FULL} {names_of(8)}")
    for number in range(ROOM):
        scene.clock.now_s += 1
        await scene.answer(f"full{number}")
    await scene.come("p0 p1 p2 p3", "t")
    errors = [scene.error(f"p{number}") for number in range(4)]
    small = asyncio.create_task(scene.admit(scene.request(tenant=Tenant(b"small"))))
    await settle()

    assert errors[:2] == [None, None]
    assert isinstance(errors[2], Overloaded)
    assert errors[2].retry_after_s == pytest.approx(5.5, abs=0.7)
    assert scene.admission.queued_interactive == 3 + errors.count(None) + 1
    small.cancel()


async def test_a_request_whose_deadline_is_too_near_is_rejected_at_once(stage: Stage) -> None:
    """Its own deadline is a limit as well: better now than when that has passed."""
    scene = stage(max_wait_s=60)
    await scene.come(f"{FULL} {names_of(4)}")
    for number in range(4):
        scene.clock.now_s += 1
        await scene.answer(f"full{number}")
    await scene.come(names_of(3, "more"))
    target = scene.request(tenant=Tenant(b"t")).target
    requests = [AdmissionRequest(target, time_left_s=left_s) for left_s in (1, 9)]
    hurried, patient = (asyncio.create_task(scene.admit(request)) for request in requests)
    await settle()
    is_done = patient.done()
    patient.cancel()
    with pytest.raises(Overloaded, match=r"longer than 1 s\.") as rejected:
        await hurried
    assert rejected.value.retry_after_s == pytest.approx(3, rel=0.2)
    assert not is_done


def tell(scene: Scene, free_tokens: int) -> None:
    """Have the replica tell that it runs one request, and how much KV cache is free."""
    load = Load(running=1, waiting=0, pending_tokens=0, free_tokens=free_tokens)
    scene.scheduler.replicas.sync()
    scene.scheduler.record_update("a", Update(is_snapshot=True, load=load))


def with_facts(scene: Scene, **facts: int) -> None:
    """Have its replica be of that size."""
    [old] = scene.model.replicas.values()
    metadata = msgspec.structs.replace(
        old.metadata, facts=msgspec.structs.replace(old.metadata.facts, **facts)
    )
    scene.set_replicas("")
    scene.model.replace_replicas([Replica("a", metadata)])


UNLIKE = Prompt(keys=(), size=LONG.size)
"""As long, and like no other."""


async def test_small_requests_pass_a_large_one_for_half_of_its_time(stage: Stage) -> None:
    """Queued and new requests that are smaller pass it, for half of the time that it may wait."""
    scene = stage(max_wait_s=10)
    with_facts(scene, kv_tokens=20_000)
    tell(scene, free_tokens=5000)
    await scene.come("large", prompt=UNLIKE)
    await scene.come("small0")
    scene.clock.now_s += 10 * BYPASS_SHARE
    await scene.come("small1")
    before = scene.started
    scene.clock.now_s += 0.1
    await scene.come("small2")
    kept_free = scene.started
    tell(scene, free_tokens=15_000)
    await settle()
    assert before == kept_free == "small0 small1"
    assert scene.started == "small0 small1 large small2"


@pytest.mark.parametrize(
    ("max_model_len", "started"), [(4000, "bogus x"), (6000, ""), (10_000, "")]
)
async def test_a_prompt_that_the_engine_will_refuse_needs_no_room(
    stage: Stage, max_model_len: int, started: str
) -> None:
    """A prompt that is far too long takes a slot only, until its engine has said so."""
    scene = stage()
    with_facts(scene, kv_tokens=20_000, max_model_len=max_model_len)
    tell(scene, free_tokens=0 if not started else 100)
    await scene.come("bogus", prompt=UNLIKE)
    await scene.come("x")
    assert scene.started == started


async def test_many_answers_take_as_many_slots_and_turns(stage: Stage) -> None:
    """One request with three answers takes three of four slots, and costs as much as three."""
    scene = stage()
    request = scene.request(tenant=Tenant(b"t"), sequences=3)
    scene.tasks["three"] = asyncio.create_task(scene._request("three", request))
    await scene.come("x y z")
    decision = scene.decisions["three"]
    assert scene.started == "three x y"
    assert request.tokens(decision) == pytest.approx(100 + 3 * decision.output_tokens)
    await scene.answer("x")
    assert scene.started == "three x y z"


async def test_a_large_request_starts_beside_small_ones_and_lets_them_pass(stage: Stage) -> None:
    """It needs a part of the slots at first, and small ones start while the rest of it waits."""
    scene = stage()
    await scene.come("x y")
    large = scene.request(tenant=Tenant(b"l"), sequences=999)
    scene.tasks["large"] = asyncio.create_task(scene._request("large", large))
    await settle()
    assert scene.started == "x y large"
    load = Load(running=SLOTS, waiting=997, yielding=997, pending_tokens=0, free_tokens=0)
    accepted = [decision.id for decision in scene.decisions.values()]
    scene.scheduler.record_update("a", Update(is_snapshot=True, load=load, accepted=accepted))
    await scene.come("small")
    assert scene.started == "x y large small"


def test_all_prompts_of_a_list_count_as_cost() -> None:
    """The first is estimated by its prefix, the others by their length."""
    scene = Scene(Clock())
    decision = scene.choose()
    few, many = (scene.request(prompts_bytes=size) for size in (300, 4400))
    assert few.tokens(decision) == pytest.approx(100 + decision.output_tokens)
    assert many.tokens(decision) == pytest.approx(1100 + decision.output_tokens)


async def test_invented_keys_evict_no_other_address(stage: Stage) -> None:
    """A new key with each request is still the same address, which is the largest."""
    scene = stage(max_requests=6)
    await scene.come(FULL, "honest")
    await scene.come("h0 h1", "honest")
    for number in range(20):
        request = scene.request(tenant=Tenant(b"evil", b"%d" % number))
        scene.tasks[f"e{number}"] = asyncio.create_task(scene._request(f"e{number}", request))
        await settle()
    assert [scene.error(name) for name in ("h0", "h1")] == [None, None]
    evicted = [scene.error(f"e{number}") is not None for number in range(20)]
    assert evicted.count(True) == 20 - 4


def come(scene: Scene) -> None:
    """Another replica comes."""
    scene.set_replicas("ab")


def leave(scene: Scene) -> None:
    """The replica that all are bound to has gone."""
    scene.set_replicas("b")


def drain(scene: Scene) -> None:
    """It takes no more."""
    come(scene)
    scene.scheduler.record_update("a", Update(is_draining=True))


def back_off(scene: Scene) -> None:
    """It cannot be reached."""
    come(scene)
    scene.scheduler.replicas.back_off(scene.model.replicas["a"], 60)
    scene.scheduler.record_update("a", Update())


def eject(scene: Scene) -> None:
    """It has failed too often."""
    come(scene)
    scene.scheduler.replicas.sync()
    while not scene.scheduler.replicas.record_failure(scene.model.replicas["a"]):
        pass
    scene.scheduler.record_update("a", Update())


@pytest.mark.parametrize("change", [come, leave, drain, back_off, eject])
async def test_queued_requests_choose_again_when_the_fleet_changes(
    stage: Stage, change: Callable[[Scene], None]
) -> None:
    """They may move to another queue, and keep their priority and the time of their arrival."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y~")
    arrived_s = scene.clock.now_s
    scene.clock.now_s += 1
    change(scene)
    scene.admission.update()
    await settle()
    decisions = [scene.decisions[name] for name in ("x", "y~")]
    assert [d.replica.id for d in decisions] == ["b", "b"]
    assert [(d.decided_s, d.waited_s) for d in decisions] == [(arrived_s, 1.0)] * 2
    assert [d.is_batch for d in decisions] == [False, True]


async def test_a_rebound_request_is_ordered_by_its_cost_there(stage: Stage) -> None:
    """A prompt that the new replica has cached is a short one there."""
    scene = stage("b")
    await scene.come(FULL)
    scene.set_replicas("ab")
    keys, tokens = pack_keys(LONG.keys), pack_tokens(range(1250, 10_001, 1250))
    scene.scheduler.replicas.sync()
    load = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
    scene.scheduler.record_update(
        "b", Update(is_snapshot=True, added=keys, added_tokens=tokens, load=load)
    )
    scene.scheduler.replicas.back_off(scene.model.replicas["b"], 60)
    await scene.come(names_of(ROOM))
    await scene.come("short")
    scene.clock.now_s += 0.01
    await scene.come("long", prompt=LONG)
    scene.set_replicas("b")
    scene.admission.update()
    await settle()
    await scene.answer("full0")
    after_one = scene.started
    await scene.answer("full1")
    assert after_one == f"{FULL} {names_of(ROOM)} long"
    assert scene.started == f"{after_one} short"


async def test_queues_of_removed_replicas_are_dropped(stage: Stage) -> None:
    """Replicas come and go for as long as a router runs."""
    scene = stage()
    for name in "abcde":
        scene.set_replicas(name)
        await scene.come(names_of(ROOM + 1, name))
        await scene.answer(f"{name}0")
    assert scene.admission._queues.keys() == {"e"}


async def test_while_the_only_replica_drains_requests_wait_for_the_next(stage: Stage) -> None:
    """It has a slot, but would refuse them: a rollout loses nothing that can wait for it."""
    scene = stage()
    scene.scheduler.replicas.sync()
    scene.scheduler.record_update("a", Update(is_snapshot=True, is_draining=True))
    await scene.come("x")
    before = scene.started
    come(scene)
    scene.admission.update()
    await settle()
    assert before == ""
    assert scene.decisions["x"].replica.id == "b"


async def test_a_replica_that_comes_back_is_found_again(stage: Stage) -> None:
    """Nothing says when its backoff is over: the next change of any replica is enough."""
    scene = stage("ab")
    scene.scheduler.replicas.back_off(scene.model.replicas["b"], 5)
    await scene.come(FULL)
    await scene.come("x")
    scene.clock.now_s += 5
    scene.scheduler.record_update("a", Update())
    await settle()
    assert scene.decisions["x"].replica.id == "b"


async def test_many_requests_choose_again_in_batches(stage: Stage) -> None:
    """Even if there are more than one batch, none is sent to the replica that is gone."""
    scene = stage()
    await scene.come(FULL)
    names = names_of(3 * RECHOICE_BATCH)
    await scene.come(names)
    leave(scene)
    scene.admission.update()
    await until(lambda: len(scene.admission._stale) > 0)
    cancelled = names.split()[-1]
    scene.tasks[cancelled].cancel()
    await settle()
    [candidate] = scene.choose().candidates
    assert candidate.waiting == 3 * RECHOICE_BATCH - 1 - ROOM
    for _ in names.split()[:-1]:
        await until(lambda: len(scene.answers) > ROOM)
        await scene.answer(next(name for name in scene.answers if name not in FULL))
    sent = {scene.decisions[name].replica.id for name in names.split() if name != cancelled}
    assert sent == {"b"}


async def test_an_error_of_choosing_again_reaches_the_waiting_request(stage: Stage) -> None:
    """When the last replica is gone, every waiting request fails with that error."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y~")
    scene.set_replicas("")
    scene.admission.update()
    await settle()
    assert isinstance(scene.error("x"), ModelUnavailable)
    assert isinstance(scene.error("y~"), ModelUnavailable)
    assert scene.all_queued.weight == 0


async def test_a_request_may_be_cancelled_as_its_model_is_removed(stage: Stage) -> None:
    """Its caller is gone, so no error is set."""
    scene = stage()
    await scene.come(FULL)
    await scene.come("x y z")
    scene.tasks["x"].cancel()
    scene.admission.close(partial(ModelUnavailable, "gone", 1.0))
    await settle()
    assert scene.tasks["x"].cancelled()
    assert isinstance(scene.error("y"), ModelUnavailable)
    assert scene.error("y") is not scene.error("z")


async def test_telemetry_releases_queued_requests(stage: Stage) -> None:
    """A replica that others have filled starts ours as soon as it says that it has room."""
    scene = stage()
    busy = Load(running=SLOTS, waiting=1, pending_tokens=0, free_tokens=0)
    scene.scheduler.replicas.sync()
    scene.scheduler.record_update("a", Update(is_snapshot=True, load=busy))
    await scene.come("x y")
    before = scene.started
    free = Load(running=SLOTS, waiting=0, pending_tokens=0, free_tokens=0)
    scene.scheduler.record_update("a", Update(load=free))
    await settle()
    assert before == ""
    assert scene.started == "x"


async def test_the_wait_limit_holds_for_all_attempts(stage: Stage) -> None:
    """Time that a request has waited before counts; one that has none left is rejected at once."""
    scene = stage(max_wait_s=2)
    await scene.come(FULL)
    target = scene.request(tenant=Tenant(b"t")).target
    almost, late = (AdmissionRequest(target, waited_s=waited_s) for waited_s in (1.99, 2))
    waiting = scene.admission.submit(almost)
    with pytest.raises(Overloaded, match=r"longer than 2 s\."):
        scene.admission.submit(late)
    assert isinstance(waiting, QueuedRequest)
    with pytest.raises(Overloaded, match=r"longer than 2 s\."):
        await waiting.wait()


async def test_a_passed_deadline_is_no_overload(stage: Stage) -> None:
    """Where no rate is known the request is queued, and its caller ends it as a timeout."""
    scene = stage(max_wait_s=2)
    await scene.come(FULL)
    queued = scene.admission.submit(AdmissionRequest(scene.request().target, time_left_s=-0.01))
    assert isinstance(queued, QueuedRequest)
    scene.admission.remove(queued)


async def test_a_request_that_waited_for_a_start_may_wait_on(stage: Stage) -> None:
    """Its model's wait limit does not end it before `cold_start_timeout_s` has passed."""
    scene = stage(max_wait_s=1)
    await scene.come(FULL)
    target = scene.request(tenant=Tenant(b"t")).target
    queued = scene.admission.submit(AdmissionRequest(target, waited_s=1, min_wait_s=60))
    assert isinstance(queued, QueuedRequest)
    assert queued.limit_s == 60
    scene.admission.remove(queued)


async def test_demand_counts_the_requests_queued_for_each_replica(stage: Stage) -> None:
    """Interactive and batch apart, with the tokens of the prompts; nothing once they are sent."""
    scene = stage()
    await scene.come(FULL)
    none = scene.admission.demands
    await scene.come("x y z~")
    ((where, demand),) = scene.admission.demands.items()
    await scene.answer(*FULL.split())

    assert none == {}
    assert where.id == "a"
    assert (demand.requests, demand.batch_requests) == (2, 1)
    assert demand.prefill_tokens == pytest.approx(200)
    assert scene.admission.demands == {}
