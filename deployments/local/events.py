"""What happens to a running gateway, in one line each, from two states of it.

The states are those that an operator could look up: Serve's own status, the reports of the routers
(`/v1/models`, `/gateway/faults` and `/gateway/config` show the same), and the processes here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from gateway.report import ModelReport, RouterReport

FAULT_PERIOD_S = 30.0
"""Least time between two lines about the same kind of fault; the later line sums it up."""
STOP_S = 1.8
"""A replica that Serve stops takes longer, so one that is gone sooner has died."""
REMOVED_S = 5.0
"""Time after which a deployment that is missing has been removed."""
ENTRIES = "Model"
"""Deployment whose replica holds a model's entry, and is replaced with it."""
STOPPING, RUNNING, STARTING = "STOPPING", "RUNNING", "STARTING"

Fault = tuple[str, str, str]
"""Model, reason and action."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica of a deployment, as Serve has it."""

    state: str
    pid: int | None
    is_alive: bool
    """Whether its process lives; true also where that is unknown."""


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """One deployment, as Serve has it."""

    target: int
    """Number of replicas that it is to have."""
    replicas: Mapping[str, ReplicaView]
    deployed_s: float


@dataclass(frozen=True, slots=True)
class HaproxyView:
    """One HAProxy process."""

    parent: int
    replaces: frozenset[int] = frozenset()
    """Processes that it tells to finish, at a reload: HAProxies, or their parents."""


@dataclass(frozen=True, slots=True)
class GatewayView:
    """A running gateway at one time."""

    deployments: Mapping[tuple[str, str], DeploymentView] = field(default_factory=dict)
    """By the names of the application and the deployment."""
    reports: Mapping[str, RouterReport] = field(default_factory=dict)
    """By the id of the router."""
    haproxies: Mapping[int, HaproxyView] = field(default_factory=dict)
    """By process id."""
    seen_s: float = 0.0
    """When this was so, by a monotonic clock."""


class Events:
    """Lines about what has changed since the last view."""

    def __init__(self) -> None:
        self._missing_s: dict[tuple[str, str], float] = {}
        """Since when deployments are not in Serve's status."""
        self._last: GatewayView | None = None
        self._models: dict[str, ModelReport] = {}
        self._counts: dict[tuple[str, Fault], int] = {}
        self._unsaid: dict[Fault, int] = {}
        self._said_s: dict[Fault, float] = {}
        self._rejected: tuple[str, ...] = ()

    def lines(self, view: GatewayView) -> list[str]:
        """Lines about this view; none for the first one."""
        last = self._last
        view = self._last = view if last is None else self._completed(last, view)
        if last is None:
            self._count_faults(view)
            self._unsaid.clear()
        reported = [*self._models_of(view), *self._config_of(view), *self._faults_of(view)]
        if last is None:
            return []
        return [*_haproxies(last, view), *_deployments(last, view), *reported]

    def _completed(self, last: GatewayView, view: GatewayView) -> GatewayView:
        """The view with what is only missing while Serve builds an application anew."""
        missing = last.deployments.keys() - view.deployments.keys()
        since_s = {key: self._missing_s.get(key, view.seen_s) for key in missing}
        carried = {
            key: last.deployments[key] for key in missing if view.seen_s - since_s[key] < REMOVED_S
        }
        self._missing_s = since_s
        return replace(view, deployments={**view.deployments, **carried})

    def _models_of(self, view: GatewayView) -> Iterator[str]:
        for _, report in sorted(view.reports.items())[:1]:
            for name, model in report.models.items():
                before = self._models.get(name)
                if before is None or before.condition != model.condition:
                    yield f"model {name}: {model.condition}"
            for name in self._models.keys() - report.models.keys():
                yield f"model {name}: gone"
            self._models = dict(report.models)

    def _config_of(self, view: GatewayView) -> Iterator[str]:
        if not view.reports:
            return
        rejected = next((r.rejected for r in view.reports.values() if r.rejected), ())
        if rejected and rejected != self._rejected:
            why = "; ".join(line.strip() for line in rejected)
            yield f"gateway config or projects rejected, the previous ones stay in force: {why}"
        elif self._rejected and not rejected:
            yield "gateway config: the new one is in force"
        self._rejected = rejected

    def _faults_of(self, view: GatewayView) -> Iterator[str]:
        self._count_faults(view)
        for fault in [*self._unsaid]:
            if view.seen_s - self._said_s.get(fault, -math.inf) >= FAULT_PERIOD_S:
                self._said_s[fault] = view.seen_s
                model, reason, action = fault
                yield f"model {model}: {_times(self._unsaid.pop(fault))} {reason}: {action}"

    def _count_faults(self, view: GatewayView) -> None:
        for router, report in view.reports.items():
            for model, reason, action, count in report.faults:
                fault = (model, reason, action)
                more = count - self._counts.get((router, fault), 0)
                self._counts[router, fault] = count
                if more > 0:
                    self._unsaid[fault] = self._unsaid.get(fault, 0) + more


def _haproxies(last: GatewayView, view: GatewayView) -> Iterator[str]:
    if last.haproxies and not view.haproxies:
        yield "HAProxy is gone: no request gets in until it is back"
    if view.haproxies and not last.haproxies:
        yield "HAProxy is back"
    replaced = {pid for each in view.haproxies.values() for pid in each.replaces}
    for pid in last.haproxies.keys() - view.haproxies.keys():
        parent = last.haproxies[pid].parent
        if not replaced.isdisjoint({pid, parent}):
            continue
        new = view.haproxies.keys() - last.haproxies.keys()
        again = [p for p in new if view.haproxies[p].parent == parent]
        if again:
            yield f"HAProxy died (process {pid}), and runs again as {again[0]}"
        elif view.haproxies:
            yield f"an HAProxy ended (process {pid}); another one runs"


def _deployments(last: GatewayView, view: GatewayView) -> Iterator[str]:
    """Lines about deployments; of those that hold entries, only what is unusual."""
    before = {key: each for key, each in last.deployments.items() if key[1] != ENTRIES}
    now = {key: each for key, each in view.deployments.items() if key[1] != ENTRIES}
    yield from (f"{_name(key)}: removed" for key in sorted(before.keys() - now.keys()))
    yield from (f"{_name(key)}: added" for key in sorted(now.keys() - before.keys()))
    common = before.keys() & now.keys()
    if anew := sorted(_name(k) for k in common if now[k].deployed_s != before[k].deployed_s):
        yield f"a config was deployed: {', '.join(anew)}"
    for key in sorted(common):
        if now[key].target != before[key].target:
            counts = f"{before[key].target} to {_replicas(now[key].target)}"
            yield f"{_name(key)}: scaling from {counts}"
    is_sudden = view.seen_s - last.seen_s < STOP_S
    for key in sorted(last.deployments.keys() & view.deployments.keys()):
        lines = _replica_lines(
            _name(key), last.deployments[key], view.deployments[key], is_sudden=is_sudden
        )
        yield from (line for line in lines if key[1] != ENTRIES or " died " in line)


def _replica_lines(
    name: str, before: DeploymentView, now: DeploymentView, *, is_sudden: bool
) -> Iterator[str]:
    """Lines about a deployment's replicas; `is_sudden`: no stop fits between the two views."""
    for id_, replica in now.replicas.items():
        was = before.replicas.get(id_)
        if replica.state != (was.state if was else ""):
            yield from _step_lines(f"{name}: replica {id_}", replica, was, is_sudden=is_sudden)
    for id_ in before.replicas.keys() - now.replicas.keys():
        was = before.replicas[id_]
        if was.state != STOPPING:
            yield f"{name}: replica {id_} {'died' if is_sudden else 'ended'} (process {was.pid})"


def _step_lines(
    name: str, replica: ReplicaView, was: ReplicaView | None, *, is_sudden: bool
) -> Iterator[str]:
    """Lines about a replica that has changed its state."""
    if replica.state == STARTING:
        yield f"{name} starts"
    elif replica.state == RUNNING:
        yield f"{name} runs (process {replica.pid})"
    elif replica.state == STOPPING and was is not None:
        if was.state == STARTING:
            yield f"{name} did not start"
        elif is_sudden and not replica.is_alive:
            yield f"{name} died (process {was.pid})"
        else:
            yield f"{name} stops, once its requests are finished"


def _name(key: tuple[str, str]) -> str:
    application, deployment = key
    names = {
        "Router": "routers",
        "Engine": f"model {application}",
        ENTRIES: f"entry of model {application}",
    }
    return names.get(deployment, f"{deployment} of {application}")


def _times(count: int) -> str:
    return "a request" if count == 1 else f"{count} requests"


def _replicas(count: int) -> str:
    return f"{count} replica{'s' * (count != 1)}"
