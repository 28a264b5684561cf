"""What a deployment file needs: weights on each node, and room for all models."""

from collections import defaultdict
from collections.abc import Iterator

from gateway.cluster.fit import WaitingModel, first_fit
from gateway.cluster.shortage import Node
from gateway.config.deployment_file import DeploymentFile
from gateway.doctor.facts import ClusterFacts, SourceFacts
from gateway.doctor.findings import Finding, failure, listed, ok, warning

PROBLEMS = {
    "missing": "is not there",
    "unreadable": "cannot be read",
    "not cached": "is not in the cache, and will be downloaded when an engine starts",
}


def sources(facts: ClusterFacts) -> Iterator[Finding]:
    """Weights and adapters, on each node where their model may run."""
    by_source: defaultdict[tuple[str, str, str], list[SourceFacts]] = defaultdict(list)
    for found in facts.sources:
        by_source[found.model, found.field, found.source].append(found)
    for (model, field, source), places in by_source.items():
        name = f"{model}: {field} {source}"
        bad: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for place in places:
            if place.state in PROBLEMS:
                detail = f" ({place.detail})" if place.detail else ""
                bad[place.state, detail].append(facts.label(place.node))
        for (state, detail), where in bad.items():
            message = f"{name} {PROBLEMS[state]}{detail} on {listed(where)}"
            yield _problem(state, message, is_partly=len(where) < len(places))
        if not bad:
            yield ok("weights", f"{name}: on {_all_of(len(places))}")


def _problem(state: str, message: str, *, is_partly: bool) -> Finding:
    if state == "not cached":
        remedy = (
            "share the cache between nodes (a volume, HF_HOME), or fill it on each of them:"
            " engines start minutes later where they have to download"
        )
        if not is_partly:
            remedy = "download it beforehand (`hf download`), or expect a slow first start"
        return warning("weights", message, remedy)
    remedy = "mount the same volume on all nodes, or copy the files; paths are those on the node"
    return failure("weights", message, remedy)


def _all_of(count: int) -> str:
    return "the one node where it may run" if count == 1 else f"all {count} nodes where it may run"


def room(facts: ClusterFacts, deployment: DeploymentFile | None) -> Iterator[Finding]:
    """Whether the cluster has room for all models at once, at their least and at their most."""
    if deployment is None or not facts.resources:
        return
    nodes = [Node(each.id, each.total, each.total) for each in facts.resources]
    waiting = list(first_fit(deployment, nodes, at_most=False))
    for each in waiting:
        yield failure("room", _waits(each), "add nodes, or lower `replicas` or `autoscaling.min`")
    if waiting:
        return
    yield ok("room", "all models fit at once with their least replicas")
    for each in first_fit(deployment, nodes, at_most=True):
        remedy = "add nodes before they are needed, or lower `autoscaling.max`"
        yield warning("room", f"at most replicas: {_waits(each)}", remedy)


def _waits(each: WaitingModel) -> str:
    return f"{each.model}: {each.placed} of {each.wanted} replicas have room; {each.reason}"
