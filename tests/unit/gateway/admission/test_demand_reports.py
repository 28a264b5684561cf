"""Which reports on demand are due."""

from gateway.admission.demand_reports import DemandReports
from gateway.routing.fleet import Replica
from gateway.telemetry.demand import Demand
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
A, B = (
    Replica(name, ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS))
    for name in "ab"
)


def test_the_end_of_demand_is_reported_once() -> None:
    """Demand itself every time."""
    reports = DemandReports()
    assert reports.due({A: Demand(requests=1)}) == {A: Demand(requests=1)}
    assert reports.due({A: Demand(requests=1)}) == {A: Demand(requests=1)}
    assert reports.due({}) == {A: Demand()}
    assert reports.due({}) == {}


def test_changes_are_those_of_the_projects_that_wait() -> None:
    """Not of their numbers, nor of other replicas."""
    reports = DemandReports()
    first = {A: Demand(projects={"x": 1}), B: Demand(projects={"x": 1})}
    more = {A: Demand(projects={"x": 5}), B: Demand(projects={"x": 1, "y": 1})}
    assert reports.due(first, only_changes=True) == first
    assert reports.due(more, only_changes=True) == {B: more[B]}
    assert reports.due({A: more[A]}, only_changes=True) == {B: Demand()}
