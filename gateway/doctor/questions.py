"""What is asked of the nodes, by what a deployment file says; answered by `deployments.doctor`."""

import os
import subprocess
from collections.abc import Iterator

import msgspec

from gateway.child_process import module_command, module_environment
from gateway.config.deployment_file import DeploymentFile
from gateway.config.hardware import Gpu
from gateway.config.model_paths import is_path
from gateway.config.references import Reference
from gateway.config.serve_values import DEFAULT_PORT
from gateway.config.vllm import VllmEntry
from gateway.doctor.facts import ClusterFacts

MODULE = "deployments.doctor"
TIMEOUT_S = 300.0


class WantedSource(msgspec.Struct, frozen=True):
    """Weights or an adapter that engines need."""

    model: str
    field: str
    source: str
    is_path: bool
    """It can only be a path, and no name on the hub."""
    accelerator: str
    """Ray's resource that the nodes have where it may run: `CPU`, `GPU`, `accelerator_type:T`."""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What to find out."""

    address: str = "auto"
    """Ray's address of the cluster; `auto`: the one that runs here, or none."""
    sources: list[WantedSource] = []
    port: int = DEFAULT_PORT
    """Port of HAProxy."""
    has_collectives: bool = True
    """Whether all nodes add a number together."""


class GatheringFailed(Exception):
    """The nodes could not be asked; the message says why."""


def questions_about(
    deployment: DeploymentFile | None, port: int, *, address: str, has_collectives: bool
) -> Questions:
    """The questions that a deployment file raises."""
    sources = [] if deployment is None else list(_sources(deployment))
    return Questions(address=address, sources=sources, port=port, has_collectives=has_collectives)


def gather(questions: Questions) -> ClusterFacts:
    """Ask the nodes, in a process of its own: this package knows nothing of Ray.

    Raises:
        GatheringFailed: they could not be asked.
    """
    try:
        ended = subprocess.run(
            module_command(MODULE),
            env=module_environment(os.environ),
            input=msgspec.json.encode(questions),
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GatheringFailed(f"the nodes could not be asked within {TIMEOUT_S:g} s") from None
    last = ended.stdout.splitlines()[-1:]
    if ended.returncode or not last:
        raise GatheringFailed("the nodes could not be asked")
    try:
        return msgspec.json.decode(last[0], type=ClusterFacts)
    except msgspec.MsgspecError as error:
        raise GatheringFailed(f"the answer of the nodes cannot be read: {error}") from None


def _sources(deployment: DeploymentFile) -> Iterator[WantedSource]:
    for entry in (application.entry for application in deployment.models):
        if not isinstance(entry, VllmEntry):
            continue
        named = [("source", entry.source)]
        named += [(f"adapters.{each.name}", each.source) for each in entry.adapters]
        for field, source in named:
            if Reference.of(source) is None and "://" not in source:
                yield WantedSource(entry.name, field, source, is_path(source), _resource(entry))


def _resource(entry: VllmEntry) -> str:
    accelerator = entry.accelerator
    if not isinstance(accelerator, Gpu):
        return "CPU"
    return f"accelerator_type:{accelerator.type}" if accelerator.type else "GPU"
