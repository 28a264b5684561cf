"""All checks, in the order in which they are shown."""

from collections.abc import Iterator

from gateway.config.deployment_file import DeploymentFile
from gateway.doctor.checks.access import environment, token
from gateway.doctor.checks.host import gpus, host
from gateway.doctor.checks.models import room, sources
from gateway.doctor.checks.network import collectives, interfaces, names, ports
from gateway.doctor.checks.versions import versions
from gateway.doctor.facts import ClusterFacts
from gateway.doctor.findings import Finding, failure, ok


def examine(facts: ClusterFacts, deployment: DeploymentFile | None = None) -> list[Finding]:
    """Findings on everything that was found out; `deployment`: what is to run there."""
    return list(_findings(facts, deployment))


def _findings(facts: ClusterFacts, deployment: DeploymentFile | None) -> Iterator[Finding]:
    yield from nodes(facts)
    yield from versions(facts)
    yield from gpus(facts)
    yield from host(facts)
    yield from token(facts)
    yield from environment(facts)
    yield from names(facts)
    yield from ports(facts)
    yield from interfaces(facts, deployment)
    yield from collectives(facts)
    yield from sources(facts)
    yield from room(facts, deployment)


def nodes(facts: ClusterFacts) -> Iterator[Finding]:
    """Nodes that have answered."""
    for silent in facts.silent:
        message = f"{silent.address} ({silent.id[:12]}) does not answer: {silent.error}"
        remedy = "see its raylet.out and raylet.err in /tmp/ray/session_latest/logs"
        yield failure("nodes", message, remedy)
    count = len(facts.nodes)
    if not facts.is_cluster:
        yield ok("nodes", "no cluster runs here: this machine alone is looked at")
    elif not facts.silent:
        yield ok("nodes", f"{count} nodes answer" if count > 1 else "the one node answers")
