"""Each node by itself: memory for workers, open files, disks, clock, GPUs."""

from collections.abc import Iterator

from gateway.cluster.connections import MAX_CONNECTIONS, files_for
from gateway.doctor.facts import ClusterFacts, NodeFacts
from gateway.doctor.findings import Finding, failure, ok, warning

GIB = 1 << 30
SHM = "shm"
MIN_SHM_BYTES = 1 * GIB
"""Ray's object store and vLLM's workers are there; Docker's default of 64 MB is too little."""
LEAST_FILES = 4096
MAX_SKEW_S = 1.0
"""Tokens of identity providers, expiry of keys and the ledger go by the clock."""
BAD_SKEW_S = 30.0
"""Leeway that is usual for tokens of identity providers."""
LEAST_FREE = 0.05
"""Part of a disk below which Ray stops to place objects and logs there."""
MIN_FREE_GPU = 0.9
"""Free part of a GPU that no process of the cluster uses."""


def host(facts: ClusterFacts) -> Iterator[Finding]:
    """Shared memory, files, disks and clocks of each node."""
    for node in facts.nodes:
        yield _shared_memory(node)
        yield _files(node)
        yield from _disks(node)
    yield from _clocks(facts)


def gpus(facts: ClusterFacts) -> Iterator[Finding]:
    """GPUs that the driver sees, and those that Ray knows of."""
    resources = {each.id: each for each in facts.resources}
    for node in facts.nodes:
        logical = resources[node.id].total.get("GPU", 0.0) if node.id in resources else None
        yield from _gpus(node, logical)


def _shared_memory(node: NodeFacts) -> Finding:
    size = f"{node.shm_free_bytes / GIB:.1f} of {node.shm_total_bytes / GIB:.1f} GiB free"
    if node.shm_total_bytes < MIN_SHM_BYTES:
        remedy = "give the container more (`--shm-size=8g`, or an emptyDir of medium Memory)"
        return failure(SHM, f"{node.label}: {size}", remedy)
    if node.shm_free_bytes < MIN_SHM_BYTES // 4:
        remedy = "stop what fills it, or remove files that dead processes have left in /dev/shm"
        return warning(SHM, f"{node.label}: {size}", remedy)
    return ok(SHM, f"{node.label}: {size}")


def _files(node: NodeFacts) -> Finding:
    message = f"{node.label}: {node.max_files} may be open"
    best = files_for(MAX_CONNECTIONS)
    remedy = f"raise `ulimit -Hn` where Ray starts, to {best} for {MAX_CONNECTIONS} connections"
    if node.max_files < LEAST_FILES:
        return failure("files", message, remedy)
    return ok("files", message) if node.max_files >= best else warning("files", message, remedy)


def _disks(node: NodeFacts) -> Iterator[Finding]:
    for disk in node.disks:
        free = f"{disk.free_bytes / GIB:.1f} GiB"
        message = f"{node.label}: {free} free for {disk.purpose} ({disk.path})"
        if disk.free_bytes < LEAST_FREE * disk.total_bytes:
            remedy = "free space there: Ray stops to store objects on a disk that is 95 % full"
            yield failure("disk", message, remedy)
        else:
            yield ok("disk", message)


def _clocks(facts: ClusterFacts) -> Iterator[Finding]:
    if len(facts.nodes) < 2:
        return
    offsets = sorted(node.clock_offset_s for node in facts.nodes)
    middle = offsets[len(offsets) // 2]
    for node in facts.nodes:
        skew_s = node.clock_offset_s - middle
        certain_s = max(0.0, abs(skew_s) - node.clock_error_s)
        way = "ahead of" if skew_s > 0 else "behind"
        message = f"{node.label}: {abs(skew_s):.2f} s {way} the others"
        remedy = "run chrony or another NTP client there"
        if certain_s > BAD_SKEW_S:
            yield failure("clock", message, remedy)
        elif certain_s > MAX_SKEW_S:
            yield warning("clock", message, remedy)
        else:
            yield ok("clock", f"{node.label}: within {max(MAX_SKEW_S, node.clock_error_s):g} s")


def _gpus(node: NodeFacts, logical: float | None) -> Iterator[Finding]:
    if node.gpu_error:
        remedy = "run `nvidia-smi` there; a container needs `--gpus all` or the NVIDIA runtime"
        yield failure("GPUs", f"{node.label}: {node.gpu_error}", remedy)
    if not node.gpus:
        if logical and not node.gpu_error:
            message = f"{node.label}: Ray has {logical:g} GPUs, and the driver shows none"
            yield warning(
                "GPUs", message, "start Ray with `--num-gpus` as there are, or fix the driver"
            )
        return
    if logical is not None and logical != len(node.gpus):
        message = f"{node.label}: Ray has {logical:g} GPUs, and the driver shows {len(node.gpus)}"
        remedy = "check CUDA_VISIBLE_DEVICES and `--num-gpus` where Ray starts on that node"
        yield warning("GPUs", message, remedy)
    for gpu in node.gpus:
        free = f"{gpu.free_bytes / GIB:.0f} of {gpu.total_bytes / GIB:.0f} GiB free"
        message = f"{node.label}: GPU {gpu.index} {gpu.name}: {free}, {gpu.processes} processes"
        is_taken = gpu.free_bytes < MIN_FREE_GPU * gpu.total_bytes
        if is_taken and not gpu.processes:
            remedy = "a dead process may hold it, or one of another container: see `nvidia-smi`"
            yield warning("GPUs", message, remedy)
        else:
            yield ok("GPUs", message)
