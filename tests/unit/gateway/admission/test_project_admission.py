"""Admission of requests of projects: turns, and room that is left to what other routers hold."""

import asyncio
import random
from collections import Counter

import msgspec

from gateway.admission.admission import Admission
from gateway.admission.eviction import EvictionIndex
from gateway.admission.project_fairness import YIELD_S
from gateway.admission.queued_request import AdmissionRequest, QueuedRequest
from gateway.config.serving_options import ServingOptions
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project
from gateway.kvcache.prefix import Prompt
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Load, Update
from gateway.telemetry.usage import Reservation

SLOTS = 8
FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=0, block_size=16, max_sequences=SLOTS, max_model_len=1000
)
IDLE = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)


class ProjectScene:
    """A model with one replica `r`, and one of several routers; to be made in an event loop."""

    def __init__(self, kv_tokens: int = 0) -> None:
        options = ServingOptions.model_validate({"queue": {"max_wait_s": 60}})
        self.model = ServedModel("m", created_s=0, options=options)
        facts = msgspec.structs.replace(FACTS, kv_tokens=kv_tokens)
        metadata = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=facts)
        self.model.replace_replicas([Replica("r", metadata)])
        rng, now = random.Random(1), asyncio.get_running_loop().time  # noqa: S311 - ids, no secrets
        self.scheduler = Scheduler(self.model, DecisionLog(), rng, now, "me")
        self.admission = Admission(self.model, self.scheduler, EvictionIndex(), now)
        self.scheduler.record_update("r", Update(is_snapshot=True, load=IDLE))
        self.answers: list[asyncio.Event] = []
        self.started: Counter[str] = Counter()

    def request(
        self, project: str, weight: float = 1.0, tier: str = "default", size: int = 0
    ) -> AdmissionRequest:
        """A request of a project with a prompt of so many bytes."""
        identity = ClientIdentity(project=Project(id=project, weight=weight), key="k")
        request = InferenceRequest(
            head=RequestHead("m"),
            identity=identity,
            tenant=Tenant(project.encode(), b"k"),
            tier=tier,  # type: ignore[arg-type]
        )
        prompt = Prompt(keys=(), size=size)
        return AdmissionRequest(Target(request, self.model, "m", prompt=prompt))

    def tell(self, free_tokens: int, running: int, waiting: int = 0) -> None:
        """Have the replica report its load."""
        load = Load(running=running, waiting=waiting, pending_tokens=0, free_tokens=free_tokens)
        self.scheduler.record_update("r", Update(load=load))

    def use(self, project: str, cost_s: float) -> None:
        """Have another router start a request of a project."""
        reservation = Reservation(id=random.getrandbits(60), project=project, cost_s=cost_s)
        self.scheduler.record_update("r", Update(reserved=[reservation]))

    def hold(self, **projects: int) -> None:
        """Have another router hold requests."""
        self.scheduler.record_update("r", Update(held={"other": projects}))

    async def run(self, request: AdmissionRequest) -> None:
        """Have a request admitted and answered, once that is allowed."""
        admitted = self.admission.submit(request)
        decision = await admitted.wait() if isinstance(admitted, QueuedRequest) else admitted
        with self.scheduler.sending(decision, request.target):
            self.started[request.project] += 1
            self.answers.append(asyncio.Event())
            await self.answers[-1].wait()


async def test_a_project_ahead_waits_for_what_another_router_holds() -> None:
    """Though there is room; and starts once that is held no longer."""
    scene = ProjectScene()
    scene.hold(behind=1)
    scene.use("ahead", 100.0)
    queued = scene.admission.submit(scene.request("ahead"))
    other = scene.admission.submit(scene.request("behind"))
    assert isinstance(queued, QueuedRequest)
    assert isinstance(other, Decision)
    scene.hold()
    assert isinstance(await asyncio.wait_for(queued.wait(), YIELD_S), Decision)


async def test_no_engine_idles_for_what_is_not_held_really() -> None:
    """As if the other router had gone: its room is used after a moment."""
    scene = ProjectScene()
    scene.hold(behind=1)
    scene.use("ahead", 100.0)
    queued = scene.admission.submit(scene.request("ahead"))
    assert isinstance(queued, QueuedRequest)
    assert isinstance(await asyncio.wait_for(queued.wait(), 20), Decision)
    assert isinstance(scene.admission.submit(scene.request("ahead")), Decision)


async def test_batch_waits_for_interactive_requests_of_other_routers() -> None:
    """Even of its own project."""
    scene = ProjectScene()
    scene.hold(p=1)
    batch = scene.admission.submit(scene.request("p", tier="flex"))
    assert isinstance(batch, QueuedRequest)
    scene.hold()
    assert isinstance(await asyncio.wait_for(batch.wait(), YIELD_S), Decision)


async def test_a_large_request_that_does_not_fit_starves_no_small_one_that_yields() -> None:
    """The room that the small one leaves is used after a moment, by itself."""
    scene = ProjectScene(kv_tokens=1000)
    scene.tell(free_tokens=400, running=2)
    scene.hold(behind=1)
    scene.use("ahead", 100.0)
    large = scene.admission.submit(scene.request("behind", size=3200))
    small = scene.admission.submit(scene.request("ahead"))
    assert isinstance(large, QueuedRequest)
    assert isinstance(small, QueuedRequest)
    waiting = asyncio.ensure_future(small.wait())
    asked, ask = 0, scene.admission.fairness.retry_s

    def count(replica: str) -> float | None:
        nonlocal asked
        asked += 1
        return ask(replica)

    scene.admission.fairness.retry_s = count  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        while not waiting.done():
            scene.tell(free_tokens=400, running=2)
            await asyncio.wait([waiting], timeout=YIELD_S / 8)  # until the next frame
    assert asked < 100
    scene.admission.remove(large)


async def test_a_large_request_that_yields_keeps_no_project_behind_it_from_starting() -> None:
    """Though it has stepped aside before, when it did not fit."""
    scene = ProjectScene(kv_tokens=1000)
    scene.tell(free_tokens=400, running=2)
    large = scene.admission.submit(scene.request("ahead", size=3200))
    assert isinstance(large, QueuedRequest)
    await asyncio.sleep(0)  # it steps aside
    scene.tell(free_tokens=0, running=SLOTS + 1, waiting=1)
    small = scene.admission.submit(scene.request("behind"))
    assert isinstance(small, QueuedRequest)
    scene.use("ahead", 100.0)
    scene.use("other", 50.0)
    scene.hold(other=1)
    scene.tell(free_tokens=1000, running=2)
    waiting = asyncio.ensure_future(small.wait())
    for _ in range(5):
        await asyncio.sleep(0)
    assert waiting.done()
    assert not large.admitted.done()
    scene.admission.remove(large)


async def test_projects_in_one_queue_share_by_weight() -> None:
    """What they start of a full queue is four to one."""
    scene = ProjectScene()
    tasks = [
        asyncio.create_task(scene.run(scene.request(project, weight)))
        for _ in range(100)
        for project, weight in (("a", 4.0), ("b", 1.0))
    ]
    await asyncio.sleep(0)
    for _ in range(80):
        scene.answers.pop(0).set()
        for _ in range(5):
            await asyncio.sleep(0)
    assert 3.0 <= scene.started["a"] / scene.started["b"] <= 5.0
    assert scene.admission.fairness.waiting["b"] > scene.admission.fairness.waiting["a"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not scene.admission.fairness.waiting
    assert not len(scene.admission.fairness.held)


async def test_what_a_router_holds_is_reported_by_project() -> None:
    """And whoever reports it is told when other projects are held than before."""
    scene, changes = ProjectScene(), list[None]()
    scene.admission.fairness.held.on_change = lambda: changes.append(None)
    scene.hold(behind=1)
    scene.use("ahead", 100.0)
    queued = [scene.admission.submit(scene.request("ahead")) for _ in range(2)]
    (demand,) = scene.admission.demands.values()
    assert demand.projects == {"ahead": 2}
    assert len(changes) == 1
    for each in queued:
        assert isinstance(each, QueuedRequest)
        scene.admission.remove(each)
    assert len(changes) == 2
