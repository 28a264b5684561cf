"""The way from node to node: names, ports, interfaces, and collectives over all of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from gateway.config.deployment_file import DeploymentFile
from gateway.doctor.facts import ClusterFacts, ConnectionTry, NodeFacts
from gateway.doctor.findings import Finding, failure, listed, ok, warning

NCCL_INTERFACE, GLOO_INTERFACE = "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"
REASONS = {
    "timeout": "no answer: a firewall or security group drops it",
    "refused": "refused: a firewall rejects it, or nothing listens",
    "wrong machine": "another machine or process answers at that address",
}
LOOPBACK = "127."


def names(facts: ClusterFacts) -> Iterator[Finding]:
    """Each node's host name, looked up on each other node."""
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    nodes = {node.id: node for node in facts.nodes}
    for found in facts.resolutions:
        target = nodes.get(found.target)
        if target is None or target.address in found.addresses:
            continue
        led = f"to {listed(found.addresses)}" if found.addresses else "to nothing"
        wrong[f"{target.name} leads {led}, not {target.address}"].append(facts.label(found.source))
    for message, sources in wrong.items():
        remedy = "correct DNS or /etc/hosts; vLLM and torch may use host names, Ray uses addresses"
        yield warning("names", f"{message} on {listed(sources)}", remedy)
    if facts.resolutions and not wrong:
        yield ok("names", f"all {len(facts.nodes)} host names lead to their nodes, on each node")


def ports(facts: ClusterFacts) -> Iterator[Finding]:
    """Ports that were tried from node to node, both ways."""
    failed: defaultdict[tuple[str, str, str], list[ConnectionTry]] = defaultdict(list)
    for found in facts.connections:
        if found.result != "open":
            failed[found.purpose, found.target, found.result].append(found)
    for (purpose, target, result), tries in failed.items():
        numbers = listed(str(number) for number in sorted({each.port for each in tries}))
        sources = listed(facts.label(each.source) for each in tries)
        why = REASONS.get(result, result)
        message = f"{purpose}: {facts.label(target)} port {numbers} from {sources}: {why}"
        remedy = "open the ports of docs/operations.md (Secure) between all nodes, both ways"
        yield failure("ports", message, remedy)
    good = {each.purpose for each in facts.connections} - {purpose for purpose, _, _ in failed}
    for purpose in sorted(good):
        count = sum(each.purpose == purpose for each in facts.connections)
        yield ok("ports", f"{purpose}: {count} connections between nodes work")


def interfaces(facts: ClusterFacts, deployment: DeploymentFile | None) -> Iterator[Finding]:
    """Interfaces that NCCL and Gloo are told to use: there, and with the node's address."""
    wanted = [("where Ray starts", None)]
    models = [] if deployment is None else [each.entry for each in deployment.models]
    for node in facts.nodes:
        for where, environment in (
            (wanted[0][0], node.environment),
            *((f"`env` of {entry.name}", entry.env) for entry in models),
        ):
            for variable in (NCCL_INTERFACE, GLOO_INTERFACE):
                if value := environment.get(variable, ""):
                    yield _interface(node, variable, value, where)
    if any(node.address.startswith(LOOPBACK) for node in facts.nodes) and len(facts.nodes) > 1:
        remedy = "start Ray with `--node-ip-address` of an interface that other machines reach"
        yield warning("interfaces", "nodes use loopback addresses: they are one machine", remedy)


def _interface(node: NodeFacts, variable: str, value: str, where: str) -> Finding:
    here = f"{node.label}: {variable}={value} ({where})"
    chosen = [each for each in node.interfaces if is_chosen(variable, value, each.name)]
    if not chosen:
        found = listed(each.name for each in node.interfaces)
        return failure("interfaces", f"{here}: no such interface, only {found}", _remedy(node))
    if not any(node.address in each.addresses for each in chosen):
        message = f"{here}: that interface does not have the node's address"
        return failure("interfaces", message, _remedy(node))
    return ok("interfaces", here)


def _remedy(node: NodeFacts) -> str:
    right = [each.name for each in node.interfaces if node.address in each.addresses]
    return f"set it to {right[0]}, or unset it" if right else "unset it"


def is_chosen(variable: str, value: str, name: str) -> bool:
    """Whether a value of NCCL's or Gloo's variable stands for an interface.

    NCCL's is a list of beginnings of names, of whole names after `=`, and of those to leave out
    after `^`. Gloo's is a list of whole names.
    """
    if variable == GLOO_INTERFACE:
        return name in value.split(",")
    if value.startswith("^"):
        return not is_chosen(variable, value[1:], name)
    if value.startswith("="):
        return name in value[1:].split(",")
    return any(name.startswith(part) for part in value.split(",") if part)


def collectives(facts: ClusterFacts) -> Iterator[Finding]:
    """All-reduces over all nodes, as engines on several nodes make them."""
    for found in facts.collectives:
        name = {"gloo": "Gloo", "nccl": "NCCL"}.get(found.backend, found.backend)
        if not found.errors:
            message = f"{name}: an all-reduce over {found.nodes} nodes took {found.seconds:.1f} s"
            yield ok("collectives", message)
            continue
        yield _broken(facts, name, found.errors)


def _broken(facts: ClusterFacts, name: str, errors: Mapping[str, str]) -> Finding:
    node, error = next(iter(errors.items()))
    message = f"{name}: {facts.label(node)}: {error}"
    variable = NCCL_INTERFACE if name == "NCCL" else GLOO_INTERFACE
    if "No module named" in error:
        return warning("collectives", message, "install torch there, if engines span nodes")
    remedy = f"see `ports` and `interfaces`; set {variable} to the interface between the nodes"
    return failure("collectives", message, remedy)
