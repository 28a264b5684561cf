"""Facts about a cluster, or about one machine, as probes have gathered them.

They are plain values, so that checks can be tried with any, and can be kept as JSON.
"""

import msgspec


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, as NVIDIA's driver sees it."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    processes: int = 0
    """Processes that use it."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """The file system of one folder."""

    purpose: str
    """What the gateway keeps there."""
    path: str
    total_bytes: int
    free_bytes: int


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface that is up."""

    name: str
    addresses: tuple[str, ...] = ()


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    id: str
    """Ray's id, or `this machine`."""
    name: str
    """Its host name."""
    address: str
    """Address by which other nodes reach it."""
    is_head: bool = False
    python: str
    packages: dict[str, str] = {}
    """Versions of those installed packages on which the gateway depends."""
    cuda: str = ""
    """Version of CUDA that torch is built for; empty for CPUs."""
    driver: str = ""
    """Version of NVIDIA's driver."""
    gpus: tuple[GpuFacts, ...] = ()
    gpu_error: str = ""
    """Why the GPUs could not be read, on a node that has NVIDIA's driver."""
    shm_total_bytes: int = 0
    shm_free_bytes: int = 0
    max_files: int = 0
    """Hard limit of open files."""
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    environment: dict[str, str] = {}
    """The variables that matter, as Ray's processes have them; none that is secret."""
    token_mark: str = ""
    """Stands for the cluster's token, which cannot be found out from it; empty without one."""
    haproxy: str = ""
    """Path of the HAProxy command in `environment`, if it can be run."""
    clock_offset_s: float = 0.0
    """How far its clock is ahead of that of the machine which asked."""
    clock_error_s: float = 0.0
    """How wrong that may be: half the time of question and answer."""

    @property
    def label(self) -> str:
        """The node as messages name it."""
        return f"{self.name} ({self.address})" if self.address != self.name else self.name


class SilentNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is in the cluster, and has not answered."""

    id: str
    address: str
    error: str


class ConnectionTry(msgspec.Struct, frozen=True, kw_only=True):
    """A try to connect from one node to a port of another; both by Ray's ids."""

    source: str
    target: str
    port: int
    purpose: str
    result: str
    """`open`, `refused`, `timeout`, `wrong machine`, or another error's words."""


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """Another node's host name, looked up on one node; both by Ray's ids."""

    source: str
    target: str
    addresses: tuple[str, ...] = ()


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Weights or an adapter of a model, looked for on one node."""

    node: str
    model: str
    field: str
    """`source`, or `adapters.NAME`."""
    source: str
    state: str
    """`found`, `missing` or `unreadable`; of a model of the hub, `cached` or `not cached`."""
    detail: str = ""


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """An all-reduce over all nodes."""

    backend: str
    """`gloo` or `nccl`."""
    nodes: int
    seconds: float = 0.0
    errors: dict[str, str] = {}
    """What went wrong, by node."""


class NodeResources(msgspec.Struct, frozen=True, kw_only=True):
    """Ray's logical resources of a node."""

    id: str
    total: dict[str, float]


class ClusterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found out."""

    is_cluster: bool = False
    """A running cluster was asked, not this machine alone."""
    nodes: tuple[NodeFacts, ...] = ()
    silent: tuple[SilentNode, ...] = ()
    connections: tuple[ConnectionTry, ...] = ()
    resolutions: tuple[Resolution, ...] = ()
    sources: tuple[SourceFacts, ...] = ()
    collectives: tuple[Collective, ...] = ()
    resources: tuple[NodeResources, ...] = ()

    def label(self, node: str) -> str:
        """A node as messages name it."""
        return next((each.label for each in self.nodes if each.id == node), node[:12])
