"""Who may do what: the cluster's token, and the environment that Ray starts with."""

from collections.abc import Iterator

from gateway.doctor.facts import ClusterFacts, NodeFacts
from gateway.doctor.findings import Finding, failure, listed, ok, warning
from gateway.environment import (
    AUTH_MODE,
    HAPROXY_BINARY,
    HAPROXY_SCRIPT,
    HAS_HAPROXY,
    IS_THROUGHPUT_OPTIMIZED,
    RECOMMENDED,
)

ENV_COMMAND = 'run `eval "$(gateway env)"` in the shell that starts Ray, on every node, and restart'


def token(facts: ClusterFacts) -> Iterator[Finding]:
    """Token authentication: on, and with one token on all nodes."""
    open_nodes = [n for n in facts.nodes if n.environment.get(AUTH_MODE, "").lower() != "token"]
    if open_nodes:
        named = listed(node.label for node in open_nodes)
        message = f"off on {named}: whoever reaches a port of Ray can run any code"
        level = failure if facts.is_cluster else warning
        yield level("token", message, f"set {AUTH_MODE}=token where Ray starts, on every node")
        return
    without = [node.label for node in facts.nodes if not node.token_mark]
    if without:
        remedy = "put the cluster's token into ~/.ray/auth_token there (`ray get-auth-token`)"
        yield failure("token", f"there is none on {listed(without)}", remedy)
    elif len({node.token_mark for node in facts.nodes}) > 1:
        remedy = "copy ~/.ray/auth_token of the head node to all others, and restart them"
        yield failure("token", "nodes have different tokens", remedy)
    else:
        yield ok("token", "token authentication is on, with one token")


def environment(facts: ClusterFacts) -> Iterator[Finding]:
    """The variables that the gateway wants, where Ray has started."""
    wanted = {each.name: each.value for each in RECOMMENDED if each.value is not None}
    wanted.pop(AUTH_MODE)  # a check of its own
    for node in facts.nodes:
        missing = [name for name in wanted if node.environment.get(name) != wanted[name]]
        yield from _haproxy(node)
        if not missing:
            yield ok("environment", f"{node.label}: complete")
            continue
        names = listed(f"{name}={wanted[name]}" for name in missing)
        is_slow = {HAS_HAPROXY, IS_THROUGHPUT_OPTIMIZED} & set(missing)
        message = f"{node.label}: not set: {names}"
        if is_slow and node.is_head:
            message += "; requests take Serve's slow path"
        yield warning("environment", message, ENV_COMMAND)


def _haproxy(node: NodeFacts) -> Iterator[Finding]:
    if node.environment.get(HAS_HAPROXY) != "1":
        return
    binary = node.environment.get(HAPROXY_BINARY, "")
    if not binary.endswith(HAPROXY_SCRIPT):
        message = f"{node.label}: {HAPROXY_BINARY} is not the path of {HAPROXY_SCRIPT}"
        yield failure("environment", message, ENV_COMMAND)
    elif not node.haproxy:
        message = f"{node.label}: {binary} cannot be run"
        yield failure("environment", message, "install ray-llm-gateway there, at the same path")
