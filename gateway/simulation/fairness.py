"""Fairness among projects in the simulator: how they come to the routers, run, as JSON, as a table.

Each way to come is run twice: with the projects and their weights, and with the same requests of
nobody in particular, which is as much as the engines can do without regard to fairness.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from gateway.simulation.projects import ProjectLoad, ProjectTotals, simulate_projects
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.trace import Workload

CLIENTS_PER_SLOT = 4
"""Clients of each project for each slot of the fleet: its requests always wait at every replica."""
WARMUP_SHARE = 0.4
"""Share of the time, from the start, that is not measured."""
RETURN_SHARE = 0.5
"""Share of the time after which an idle project returns."""
RETURN_WARMUP_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedIngress:
    """How the requests of projects come to the routers."""

    name: str
    routers: int
    loads: Sequence[ProjectLoad]
    measured_from: float = WARMUP_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessResult:
    """What projects were served; the last four compare with the same requests without projects."""

    ingress: str
    routers: int
    weights: Sequence[float]
    shares: Sequence[float]
    """Share of each project in the engines' time, for what was not cached."""
    ratio: float
    """Time of the first project over that of the last."""
    tokens_per_s: float
    """Tokens of prompts and answers."""
    hit_rate: float
    throughput: float
    """`tokens_per_s` over that without projects."""
    unfair_hit_rate: float
    unfair_ratio: float

    @classmethod
    def of(
        cls, ingress: SimulatedIngress, fair: ProjectTotals, unfair: ProjectTotals
    ) -> "FairnessResult":
        """Compute the figures."""
        names = [load.name for load in ingress.loads]
        return cls(
            ingress=ingress.name,
            routers=ingress.routers,
            weights=[load.weight for load in ingress.loads],
            shares=[fair.share(name) for name in names],
            ratio=fair.share(names[0]) / max(1e-9, fair.share(names[-1])),
            tokens_per_s=fair.tokens_per_s,
            hit_rate=fair.hit_rate,
            throughput=fair.tokens_per_s / max(1e-9, unfair.tokens_per_s),
            unfair_hit_rate=unfair.hit_rate,
            unfair_ratio=unfair.share(names[0]) / max(1e-9, unfair.share(names[-1])),
        )


@dataclass(frozen=True, slots=True)
class FairnessComparison:
    """Results of all ways in which projects may come to the routers."""

    workload: str
    seconds: float
    results: Sequence[FairnessResult]

    @classmethod
    def of(
        cls,
        workload: Workload,
        weights: Sequence[float],
        settings: SimulationSettings,
        seconds: float,
    ) -> "FairnessComparison":
        """Simulate projects of these weights, at least two, for so many seconds each time."""
        results = []
        for ingress in _ingresses(weights, settings):
            fair, unfair = (
                simulate_projects(
                    workload,
                    ingress.loads,
                    settings.with_routers(ingress.routers),
                    seconds,
                    is_fair=is_fair,
                    measured_from=ingress.measured_from,
                )
                for is_fair in (True, False)
            )
            results.append(FairnessResult.of(ingress, fair, unfair))
        return cls(workload.name, seconds, results)

    def json(self) -> str:
        """Return all figures as JSON."""
        document = {
            "workload": self.workload,
            "seconds": self.seconds,
            "ingress": [asdict(result) for result in self.results],
        }
        return json.dumps(document, indent=2)

    def print(self, console: Console) -> None:
        """Print a table, and explain its columns."""
        table = Table("ingress", "weights", "shares")
        for heading in ("ratio", "throughput", "hit rate", "unfair"):
            table.add_column(heading, justify="right")
        for result in self.results:
            table.add_row(
                result.ingress,
                ":".join(f"{weight:g}" for weight in result.weights),
                ":".join(f"{100 * share:.0f}" for share in result.shares) + " %",
                f"{result.ratio:.2f}",
                f"{result.throughput:.3f}",
                f"{result.hit_rate:.3f}",
                f"{result.unfair_hit_rate:.3f}",
            )
        console.print(f"{self.workload}: projects that flood the model, {self.seconds:g} s each")
        console.print(table)
        console.print("ratio: engines' time of the first project, over that of the last")
        console.print(
            "throughput, unfair: compared with, and hit rate of, the same load without projects"
        )


def _ingresses(
    weights: Sequence[float], settings: SimulationSettings
) -> Iterator[SimulatedIngress]:
    """The ways in which projects come to one router, and to several."""
    count = max(2, settings.routers)
    every = list(range(count))
    by_project = [[number % count] for number in range(len(weights))]
    swapped = list(reversed(by_project))

    def loads(
        routers: Sequence[Sequence[int]], later: Sequence[Sequence[int]] | None = None
    ) -> list[ProjectLoad]:
        return [
            ProjectLoad(
                name=f"project-{number}",
                weight=weight,
                clients=_clients(settings),
                routers=routers[number],
                later_routers=later[number] if later else None,
            )
            for number, weight in enumerate(weights)
        ]

    one, even = [[0] for _ in weights], [every for _ in weights]
    yield SimulatedIngress(name="one router", routers=1, loads=loads(one))
    yield SimulatedIngress(name=f"{count} routers, even", routers=count, loads=loads(even))
    yield SimulatedIngress(name=f"{count} routers, skewed", routers=count, loads=loads(by_project))
    yield SimulatedIngress(
        name=f"{count} routers, swapped half-way",
        routers=count,
        loads=loads(by_project, later=swapped),
    )
    for name, routers, where in (
        ("one returns, one router", 1, [[0], [0]]),
        ("one returns, skewed", 2, [[0], [1]]),
    ):
        yield SimulatedIngress(
            name=name,
            routers=routers,
            loads=_returning(where, settings),
            measured_from=RETURN_WARMUP_SHARE,
        )


def _clients(settings: SimulationSettings) -> int:
    """Clients of a project that floods the model."""
    return CLIENTS_PER_SLOT * settings.replicas * settings.engine.max_running


def _returning(routers: Sequence[Sequence[int]], settings: SimulationSettings) -> list[ProjectLoad]:
    """Two projects that weigh the same, the second one idle for half of the time."""
    clients = _clients(settings)
    return [
        ProjectLoad(name="project-0", clients=clients, routers=routers[0]),
        ProjectLoad(name="project-1", clients=clients, routers=routers[1], starts_at=RETURN_SHARE),
    ]
