"""Pools: one for each model, made and closed with it."""

import asyncio
import contextlib

import pytest

from gateway.admission.queued_request import AdmissionRequest, QueuedRequest
from gateway.errors.upstream import ModelUnavailable
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.pool import ModelPools
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from tests.unit.pools import shared_state
from tests.unit.targets import target_of

SLOTS = 4


def replica(name: str) -> Replica:
    """A replica of that id, without telemetry."""
    facts = EngineFacts(
        engine="fake", routes=(), kv_tokens=0, block_size=16, max_sequences=SLOTS, max_model_len=100
    )
    return Replica(name, ReplicaMetadata(model="m", host="h", port=1, key="k", facts=facts))


def test_a_model_keeps_its_pool_while_it_is_in_the_fleet() -> None:
    """Another model of the same name has another pool, and nothing is kept of one that is gone."""
    fleet = Fleet()
    model, namesake = ServedModel("m", created_s=1), ServedModel("m", created_s=2)
    fleet.add(model)
    pools = ModelPools(fleet, shared_state())
    former = pools.of(model)
    fleet.replace_replicas(model, [])
    kept = pools.of(model)
    fleet.add(namesake)

    assert kept is former
    assert [pool.model for pool in pools] == [namesake]
    assert pools.of(namesake) is not former


async def test_queued_requests_follow_their_model() -> None:
    """When its replicas change they choose again; when it is removed their wait ends."""
    fleet = Fleet()
    pools = ModelPools(fleet, shared_state())
    model = ServedModel("m", created_s=1)
    fleet.add(model)
    fleet.replace_replicas(model, [replica("a")])
    pool, target = pools.of(model), target_of(model=model)
    with contextlib.ExitStack() as sending:
        for _ in range(SLOTS + 1):
            decision = pool.scheduler.choose(target)
            sending.enter_context(pool.scheduler.sending(decision, target))
        queued = [pool.admission.submit(AdmissionRequest(target)) for _ in range(SLOTS + 2)]
        waiting = [asyncio.create_task(q.wait()) for q in queued if isinstance(q, QueuedRequest)]
        await asyncio.sleep(0.01)
        fleet.replace_replicas(model, [replica("a"), replica("b")])
        await asyncio.sleep(0.01)
        done = [task.done() for task in waiting]
        fleet.remove(model)
        await asyncio.sleep(0.01)

    assert len(waiting) == SLOTS + 2
    assert any(done)
    assert not all(done)
    assert isinstance(waiting[-1].exception(), ModelUnavailable)


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "router closed"])
async def test_a_closed_pool_wants_no_engine(is_removed: bool) -> None:
    """Waiting requests fail, Serve learns that none waits, and no request can start it again."""
    wakes: list[int] = []
    fleet = Fleet()
    pools = ModelPools(fleet, shared_state(wake=lambda _, waiting: wakes.append(waiting)))
    model = ServedModel("m", created_s=1)
    fleet.add(model)
    pool, request = pools.of(model), InferenceRequest(head=RequestHead("m"))
    waiting = asyncio.create_task(pool.cold_start.wait(request))
    await asyncio.sleep(0.01)
    fleet.remove(model) if is_removed else pools.close()

    with pytest.raises(ModelUnavailable, match="taken away"):
        await waiting
    with pytest.raises(ModelUnavailable, match="taken away"):
        await pool.cold_start.wait(request)
    assert (wakes[0], wakes[-1]) == (1, 0)


def test_copies_spend_no_retries_of_clients() -> None:
    """A request and a copy of it are retried from budgets of their own."""
    fleet = Fleet()
    model = ServedModel("m", created_s=1)
    fleet.add(model)
    pool = ModelPools(fleet, shared_state()).of(model)
    request = InferenceRequest(head=RequestHead("m"))
    copy = InferenceRequest(head=RequestHead("m"), is_copy=True)
    while pool.retry_budget(copy).spend():
        pass
    assert pool.retry_budget(request).is_left
