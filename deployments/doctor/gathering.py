"""Sends a probe to each node of a Ray cluster, and puts the same questions to all of them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import ray
from ray import ObjectRef, cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.serve_internals.cluster_state import read_cluster
from gateway.cluster.shortage import Node
from gateway.doctor import probe
from gateway.doctor.checks.network import GLOO_INTERFACE, NCCL_INTERFACE
from gateway.doctor.facts import (
    ClusterFacts,
    Collective,
    ConnectionTry,
    NodeFacts,
    NodeResources,
    Resolution,
    SilentNode,
    SourceFacts,
)
from gateway.doctor.probe import NodeProbe
from gateway.doctor.questions import Questions, WantedSource
from gateway.environment import (
    AUTH_MODE,
    CONNECTIONS_PER_ADDRESS,
    HAPROXY_MAXCONN,
    OPTIONAL,
    RECOMMENDED,
    ROUTER_MAX_PORT,
    ROUTER_MIN_PORT,
)

HEAD = "node:__internal_head__"
"""Resource by which Ray marks the head node."""
START_TIMEOUT_S = 60.0
"""Time for a node to start the process of its probe."""
ANSWER_TIMEOUT_S = 40.0
COLLECTIVE_TIMEOUT_S = 30.0
CLOCK_TRIES = 5
INTERFACE_VARIABLES = (NCCL_INTERFACE, GLOO_INTERFACE, "VLLM_HOST_IP", "NCCL_IB_DISABLE")
VARIABLES = (
    *(each.name for each in (*RECOMMENDED, *OPTIONAL)),
    *(AUTH_MODE, HAPROXY_MAXCONN, CONNECTIONS_PER_ADDRESS, *INTERFACE_VARIABLES),
    *(ROUTER_MIN_PORT, ROUTER_MAX_PORT, "CUDA_VISIBLE_DEVICES"),
)
ROUTER_PORTS = (30_000, 31_000)
WORKER_PORTS = (10_002, 19_999)
"""Ports of Ray's workers, unless `ray start` says otherwise."""
WORKER_SAMPLES = (WORKER_PORTS[0], 15_000, WORKER_PORTS[1] - 199)
"""Where in that range ports are tried."""
SOME_PORTS = 200
"""Ports of a range among which a free one is looked for."""
ANY_PORT = (0, 0)
LOCAL = "this machine"
T = TypeVar("T")
GPU_SHARE = 0.001
"""Reserved of a GPU for an all-reduce: it fits beside any engine."""

Asked = tuple[str, str, str, bool]
"""Model, field, source, and whether the source can only be a path."""
Target = tuple[str, str, int, str, bool]
"""Id and address of a node, port, purpose, and whether a probe listens there."""


@dataclass(frozen=True, slots=True)
class _ProbedNode:
    """A node of the cluster, and the probe there."""

    id: str
    address: str
    is_head: bool
    raylet_ports: Mapping[str, int]
    probe: "ActorHandle[Any]"


def gather_here(questions: Questions) -> ClusterFacts:
    """Facts about this machine alone."""
    here = NodeProbe(LOCAL, "127.0.0.1")
    facts = msgspec.convert(here.facts(VARIABLES), NodeFacts)
    facts = msgspec.structs.replace(facts, is_head=True, address=facts.name)
    sources = here.sources([_asked(each) for each in questions.sources])
    return ClusterFacts(nodes=(facts,), sources=tuple(msgspec.convert(sources, list[SourceFacts])))


def gather_from_cluster(questions: Questions) -> ClusterFacts | None:
    """Facts about a running cluster; None if none runs here and no other is asked for.

    Raises:
        OSError, RuntimeError, ValueError: it cannot be reached.
    """
    try:
        ray.init(
            address=questions.address,
            namespace="ray-llm-gateway-doctor",
            log_to_driver=False,
            configure_logging=False,
        )
    except ConnectionError:
        if questions.address == "auto":
            return None
        raise
    cloudpickle.register_pickle_by_value(probe)  # nothing has to be installed on the nodes
    try:
        return _Gathering(questions).run()
    finally:
        ray.shutdown()  # ends the probes


class _Gathering:
    """One round of questions to all nodes; those that do not answer are left out from then on."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._silent: dict[str, SilentNode] = {}
        self._nodes = [_started(each) for each in ray.nodes() if each["Alive"]]

    def run(self) -> ClusterFacts:
        """Ask everything."""
        offsets = self._clock_offsets()
        nodes = {
            id_: self._node_facts(id_, found, offsets)
            for id_, found in self._ask("facts", lambda _: (VARIABLES,)).items()
        }
        names = {id_: facts.name for id_, facts in nodes.items()}
        resolutions = self._ask("resolve", lambda node: (_without(names, node.id),))
        connections = self._connections(nodes)
        cluster = read_cluster()
        totals = {} if cluster is None else {each.id: each for each in cluster.nodes}
        sources = self._ask("sources", lambda node: (self._sources_on(node, totals),))
        return ClusterFacts(
            is_cluster=True,
            nodes=tuple(sorted(nodes.values(), key=lambda each: (not each.is_head, each.address))),
            silent=tuple(self._silent.values()),
            resolutions=_flat(resolutions, Resolution),
            connections=_flat(connections, ConnectionTry),
            sources=_flat(sources, SourceFacts),
            collectives=tuple(self._collectives(nodes)),
            resources=tuple(
                NodeResources(id=each.id, total=dict(each.total)) for each in totals.values()
            ),
        )

    def _ask(
        self,
        method: str,
        arguments: Callable[[_ProbedNode], tuple[object, ...]] = lambda _: (),
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        nodes: Sequence[_ProbedNode] | None = None,
    ) -> dict[str, Any]:
        """Answers of all nodes, or of some, by their ids."""
        asked = [each for each in nodes or self._nodes if each.id not in self._silent]
        calls = {each.id: getattr(each.probe, method).remote(*arguments(each)) for each in asked}
        deadline_s = time.monotonic() + timeout_s
        answers = {}
        for node in asked:
            try:
                left_s = max(0.1, deadline_s - time.monotonic())
                answers[node.id] = _wait(calls[node.id], left_s)
            except (GetTimeoutError, RayError) as error:
                why = _brief(error)
                self._silent[node.id] = SilentNode(id=node.id, address=node.address, error=why)
        return answers

    def _clock_offsets(self) -> dict[str, tuple[float, float]]:
        """Offset of each node's clock, and how wrong that may be: the fastest of several tries."""
        self._ask("now", timeout_s=START_TIMEOUT_S)
        offsets: dict[str, tuple[float, float]] = {}
        for node in self._nodes:
            tries = []
            for _ in range(CLOCK_TRIES):
                sent_s, began_s = time.time(), time.monotonic()
                answer = self._ask("now", nodes=[node])
                half_s = (time.monotonic() - began_s) / 2
                tries += [(half_s, there_s - sent_s - half_s) for there_s in answer.values()]
            if tries:
                error_s, offset_s = min(tries)
                offsets[node.id] = offset_s, error_s
        return offsets

    def _node_facts(
        self, id_: str, found: Mapping[str, Any], offsets: Mapping[str, tuple[float, float]]
    ) -> NodeFacts:
        offset_s, error_s = offsets.get(id_, (0.0, 0.0))
        node = next(each for each in self._nodes if each.id == id_)
        return msgspec.structs.replace(
            msgspec.convert(found, NodeFacts),
            is_head=node.is_head,
            clock_offset_s=offset_s,
            clock_error_s=error_s,
        )

    def _connections(self, nodes: Mapping[str, NodeFacts]) -> dict[str, Any]:
        """Tries of each node to connect to all ports of all others."""
        if len(nodes) < 2:
            return {}
        listening = self._ask("listen", lambda node: (self._ranges(nodes.get(node.id)),))
        gcs_port = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
        targets: list[Target] = []
        for node in self._nodes:
            if node.id not in listening:
                continue
            fixed = {**node.raylet_ports, **({"Ray's GCS": gcs_port} if node.is_head else {})}
            targets += [(node.id, node.address, port, what, False) for what, port in fixed.items()]
            targets += [
                (node.id, node.address, port, what, True) for what, port in listening[node.id]
            ]
        return self._ask("connect", lambda node: ([t for t in targets if t[0] != node.id],))

    def _ranges(self, facts: NodeFacts | None) -> list[tuple[str, int, int]]:
        """What the other nodes must reach, and the ports that are tried for it."""
        environment = {} if facts is None else facts.environment
        first = int(environment.get(ROUTER_MIN_PORT, ROUTER_PORTS[0]))
        last = int(environment.get(ROUTER_MAX_PORT, ROUTER_PORTS[1]))
        workers = [(at, min(at + SOME_PORTS, WORKER_PORTS[1])) for at in WORKER_SAMPLES]
        port = self._questions.port
        return [
            ("HAProxy", port, port),
            ("routers", first, min(first + SOME_PORTS, last)),
            ("routers", max(first, last - SOME_PORTS), last),
            *(("Ray's workers", *span) for span in workers),
            *[("engines, NCCL and Gloo", *ANY_PORT)] * 2,
        ]

    def _sources_on(self, node: _ProbedNode, resources: Mapping[str, Node]) -> list[Asked]:
        """Weights that engines on a node may need."""
        total = resources[node.id].total if node.id in resources else None
        return [
            _asked(each)
            for each in self._questions.sources
            if total is None or total.get(each.accelerator, 0.0) > 0
        ]

    def _collectives(self, nodes: Mapping[str, NodeFacts]) -> Iterator[Collective]:
        """All-reduces: over all nodes on CPUs, and over all that have GPUs."""
        if not self._questions.has_collectives:
            return
        members = [node for node in self._nodes if node.id in nodes and node.id not in self._silent]
        if len(members) > 1:
            yield self._all_reduce("gloo", members)
        with_gpus = [node for node in members if nodes[node.id].gpus]
        if len(with_gpus) > 1:
            yield self._all_reduce("nccl", [_with_gpu(node) for node in with_gpus])

    def _all_reduce(self, backend: str, members: Sequence[_ProbedNode]) -> Collective:
        first, timeout_s = members[0], COLLECTIVE_TIMEOUT_S
        ended, errors, seconds = time.monotonic() + 2 * timeout_s, {}, [0.0]
        try:
            port = _wait(first.probe.free_port.remote(), timeout_s)
        except (GetTimeoutError, RayError) as error:
            return Collective(backend=backend, nodes=len(members), errors={first.id: _brief(error)})
        calls = [
            each.probe.all_reduce.remote(
                backend, rank, len(members), first.address, port, timeout_s
            )
            for rank, each in enumerate(members)
        ]
        for node, call in zip(members, calls, strict=True):
            try:
                seconds.append(_wait(call, max(0.1, ended - time.monotonic())))
            except (GetTimeoutError, RayError) as error:
                errors[node.id] = _brief(error)
        return Collective(backend=backend, nodes=len(members), seconds=max(seconds), errors=errors)


def _started(found: Mapping[str, Any]) -> _ProbedNode:
    """A node with a probe, which reserves nothing."""
    return _ProbedNode(
        id=found["NodeID"],
        address=found["NodeManagerAddress"],
        is_head=HEAD in found["Resources"],
        raylet_ports={
            "Ray's raylet": found["NodeManagerPort"],
            "Ray's object store": found["ObjectManagerPort"],
        },
        probe=_probe(found["NodeID"], found["NodeManagerAddress"], 0.0),
    )


def _with_gpu(node: _ProbedNode) -> _ProbedNode:
    """The node with another probe, which may use a GPU."""
    return replace(node, probe=_probe(node.id, node.address, GPU_SHARE))


def _probe(id_: str, address: str, gpus: float) -> "ActorHandle[Any]":
    strategy = NodeAffinitySchedulingStrategy(node_id=id_, soft=False)
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpus,
        "scheduling_strategy": strategy,
        "max_concurrency": 4,
    }
    started: ActorHandle[Any] = ray.remote(NodeProbe).options(**options).remote(id_, address)
    return started


def _wait(call: "ObjectRef[Any]", timeout_s: float) -> Any:  # noqa: ANN401 - any method's answer
    return ray.get(call, timeout=timeout_s)  # noqa: TID251 - there is no event loop


def _asked(wanted: WantedSource) -> Asked:
    return wanted.model, wanted.field, wanted.source, wanted.is_path


def _without(names: Mapping[str, str], id_: str) -> dict[str, str]:
    return {each: name for each, name in names.items() if each != id_}


def _flat(answers: Mapping[str, Any], type_: type[T]) -> tuple[T, ...]:
    """The answers of all nodes in one row."""
    return tuple(msgspec.convert(each, type_) for found in answers.values() for each in found)


def _brief(error: Exception) -> str:
    """An error in one line: Ray's hold the traceback of another process."""
    if isinstance(error, GetTimeoutError):
        return "no answer in time"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
