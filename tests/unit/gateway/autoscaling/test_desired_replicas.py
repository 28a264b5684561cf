"""Number of replicas that a load needs."""

from dataclasses import dataclass

import msgspec
import pytest

from gateway.autoscaling.desired_replicas import ScalingTargets, desired_replicas
from gateway.engine_telemetry.stats import EngineStats

TARGETS = ScalingTargets(target_utilization=0.5, max_wait_s=2)
IDLE = EngineStats(
    running=0,
    waiting=0,
    slots=10,
    kv_tokens=1000,
    kv_used_tokens=0,
    prompts=0,
    prefill_backlog_s=0,
    prefill_s_per_s=0,
    service_s=4,
    held=0,
    held_prefill_s=0,
    held_batch=0,
    start_s=1,
)


def engine(**load: float) -> EngineStats:
    """An engine of ten slots with a load; one running sequence unless `load` says otherwise."""
    return msgspec.structs.replace(IDLE, **{"running": 1.0, **load})


@dataclass(frozen=True)
class Case:
    """A load and the replicas it needs."""

    name: str
    engines: list[EngineStats]
    total: float
    bottleneck: str
    without_backlog: float


CASES = [
    Case("idle", [IDLE], 0, "sequences", 0),
    Case(
        "idle, busy lately", [msgspec.structs.replace(IDLE, prefill_s_per_s=2)], 0, "sequences", 0
    ),
    Case("half full", [engine(running=5)], 1, "sequences", 1),
    Case("full", [engine(running=10)], 2, "sequences", 2),
    Case("two full", [engine(running=10), engine(running=10)], 4, "sequences", 4),
    Case("one of two", [engine(running=10), IDLE], 2, "sequences", 2),
    Case("waiting in the engine", [engine(running=10, waiting=5)], 3, "sequences", 2),
    Case("KV cache", [engine(kv_used_tokens=800)], 1.6, "KV cache", 1.6),
    Case("no KV cache", [engine(kv_tokens=0)], 0.2, "sequences", 0.2),
    Case("arriving prefill", [engine(prefill_s_per_s=0.9)], 1.8, "arriving prefill", 1.8),
    Case("backlog", [engine(prompts=9, prefill_backlog_s=8)], 4, "wait", 0.2),
    Case("one prompt is not split", [engine(prompts=1, prefill_backlog_s=8)], 2, "wait", 0.2),
    Case(
        "done before a start",
        [engine(prompts=9, prefill_backlog_s=8, start_s=80)],
        0.2,
        "sequences",
        0.2,
    ),
    # 30 that take 4 s each, in ten slots: the last waits 12 s.
    Case("held", [engine(running=10, held=30)], 6, "wait", 2),
    Case(
        "held for its prefill", [engine(held=3, held_prefill_s=5, service_s=0.1)], 2.65, "wait", 0.2
    ),
    Case("held, not measured", [engine(running=10, held=5, service_s=0)], 3, "sequences", 2),
    Case("held alone", [engine(running=0, held=1)], 2, "wait", 0),
    Case("batch", [engine(running=10, held_batch=150)], 3, "sequences", 2),
    Case(
        "batch, slow to start",
        [engine(running=10, held_batch=150, start_s=60)],
        2.5,
        "sequences",
        2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_scarcest_resource_decides(case: Case) -> None:
    """Each term alone sets the total, the bottleneck and the need without backlog."""
    desired = desired_replicas(case.engines, TARGETS)

    assert desired.total == pytest.approx(case.total)
    assert desired.bottleneck == case.bottleneck
    assert desired.without_backlog == pytest.approx(case.without_backlog)
