"""Versions: the same on all nodes, and those that this release supports."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from gateway.doctor.facts import ClusterFacts, NodeFacts
from gateway.doctor.findings import Finding, failure, listed, ok, warning

SUPPORTED: Mapping[str, tuple[str, ...]] = {"ray": ("2.60.",), "vllm": ("0.32.",)}
"""Beginnings of the versions that this release works with; `pyproject.toml` has the same."""
NEEDED = ("ray-llm-gateway", "ray")
"""Packages that every node needs."""
MIN_PYTHON = (3, 11)
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
"""Least major version of NVIDIA's driver for a major version of CUDA (NVIDIA's release notes)."""
SAME = "install the same versions on all nodes, and restart the cluster"


def versions(facts: ClusterFacts) -> Iterator[Finding]:
    """Python, packages, CUDA and driver of all nodes."""
    yield _python(facts)
    packages = sorted({name for node in facts.nodes for name in node.packages} | set(NEEDED))
    for package in packages:
        yield from _package(facts, package)
    if any(node.cuda for node in facts.nodes):
        yield _same("CUDA of torch", facts.nodes, lambda node: node.cuda or "none")
        yield from _drivers(facts)


def _python(facts: ClusterFacts) -> Finding:
    found = _same("Python", facts.nodes, lambda node: node.python)
    old = [n for n in facts.nodes if tuple(map(int, n.python.split(".")[:2])) < MIN_PYTHON]
    if old:
        named = listed(f"{node.label}: {node.python}" for node in old)
        return failure("Python", f"{named} is too old", "install Python 3.11 or newer there")
    return found


def _package(facts: ClusterFacts, package: str) -> Iterator[Finding]:
    has = [node for node in facts.nodes if package in node.packages]
    lacks = [node for node in facts.nodes if package not in node.packages]
    if package in NEEDED and lacks:
        named = listed(node.label for node in lacks)
        yield failure(package, f"not installed on {named}", f"pip install {package} there")
    elif has and lacks and package == "vllm":
        named = listed(node.label for node in lacks)
        remedy = "install it there, unless no vLLM model may run on those nodes"
        yield warning(package, f"not installed on {named}", remedy)
    if not has:
        return
    found = _same(package, has, lambda node: node.packages[package])
    yield found
    supported = SUPPORTED.get(package, ())
    wrong = [node for node in has if not node.packages[package].startswith(supported)]
    if supported and wrong:
        named = listed(f"{node.label}: {node.packages[package]}" for node in wrong)
        wanted = " or ".join(f"{start}*" for start in supported)
        yield failure(package, f"{named} is not supported", f"install {package} {wanted}")


def _same(
    check: str, nodes: tuple[NodeFacts, ...] | list[NodeFacts], version: Callable[[NodeFacts], str]
) -> Finding:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        found[version(node)].append(node.label)
    if len(found) == 1:
        return ok(check, next(iter(found)))
    named = "; ".join(f"{each} on {listed(where)}" for each, where in sorted(found.items()))
    return failure(check, f"versions differ: {named}", SAME)


def _drivers(facts: ClusterFacts) -> Iterator[Finding]:
    for node in facts.nodes:
        if not (node.cuda and node.driver):
            continue
        needed = CUDA_DRIVERS.get(_major(node.cuda), 0)
        if _major(node.driver) < needed:
            message = f"{node.label}: driver {node.driver} is too old for CUDA {node.cuda}"
            yield failure("GPU driver", message, f"install driver {needed} or newer")
        else:
            yield ok("GPU driver", f"{node.label}: {node.driver} for CUDA {node.cuda}")


def _major(version: str) -> int:
    first = version.split(".", maxsplit=1)[0]
    return int(first) if first.isdecimal() else 0
