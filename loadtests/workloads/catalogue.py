"""The workloads by their names."""

from collections.abc import Callable, Mapping

from loadtests.workloads.agents import Agents
from loadtests.workloads.chat import Chat
from loadtests.workloads.documents import Batch, Rag, Unshared
from loadtests.workloads.mixed import Mixed
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.tenants import Tenants
from loadtests.workloads.turn import Workload

MIXED = "mixed"
TRACE = "trace"
"""Not a source of conversations: see `loadtests.workloads.replay`."""


def mixed(sizes: Sizes, seed: str) -> Mixed:
    """Half of it people who talk."""
    workloads: list[Workload] = [
        Chat(sizes, seed),
        Tenants(sizes, seed),
        Agents(sizes, seed),
        Rag(sizes, seed),
    ]
    return Mixed(workloads, (5, 2, 2, 1))


WORKLOADS: Mapping[str, Callable[[Sizes, str], Workload]] = {
    "chat": Chat,
    "tenants": Tenants,
    "agents": Agents,
    "rag": Rag,
    "none": lambda sizes, _: Unshared(sizes),
    "batch": Batch,
    MIXED: mixed,
}
"""Each of its sizes and of a seed, without which what is shared would be found again next time."""
NAMES = (*WORKLOADS, TRACE)
