"""Comparison of routing policies on one workload: run, as JSON, and as a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from gateway.simulation.scores import PolicyResult, infinite_cache_hit_rate
from gateway.simulation.setting import LabSettings
from gateway.simulation.simulator import simulate
from gateway.simulation.trace import Workload

TIME_HEADINGS = ("TTFT mean", "p50", "p90", "p99", "TPOT p90", "e2e mean")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results of several policies on one workload."""

    headline: str
    workload: str
    infinite_cache_hit_rate: float
    results: Sequence[PolicyResult]

    @classmethod
    def of(cls, workload: Workload, policies: Iterable[str], settings: LabSettings) -> "Comparison":
        """Simulate a workload under each policy.

        Raises:
            ConfigError: a request does not fit into a replica.
        """
        return cls(
            headline=_headline(workload, settings),
            workload=workload.name,
            infinite_cache_hit_rate=infinite_cache_hit_rate(workload),
            results=[
                PolicyResult.of(policy, simulate(workload, policy, settings), settings.replicas)
                for policy in policies
            ],
        )

    def json(self) -> str:
        """Return all figures as JSON."""
        document = {
            "workload": self.workload,
            "infinite_cache_hit_rate": self.infinite_cache_hit_rate,
            "policies": [asdict(result) for result in self.results],
        }
        return json.dumps(document, indent=2)

    def print(self, console: Console) -> None:
        """Print a table, and explain its columns."""
        table = Table("policy")
        for heading in ("hit rate", *TIME_HEADINGS, "imbalance"):
            table.add_column(heading, justify="right")
        for result in self.results:
            ttft = (result.ttft_mean_s, result.ttft_p50_s, result.ttft_p90_s, result.ttft_p99_s)
            table.add_row(
                *(
                    result.policy,
                    f"{result.hit_rate:.3f}",
                    *(f"{seconds:.3f} s" for seconds in ttft),
                ),
                *(
                    f"{1000 * result.tpot_p90_s:.1f} ms",
                    f"{result.e2e_mean_s:.2f} s",
                    f"{result.imbalance:.2f}",
                ),
            )
        console.print(self.headline)
        console.print(table)
        console.print(f"hit rate of one infinite cache: {self.infinite_cache_hit_rate:.3f}")
        console.print("imbalance: tokens the busiest replica computed, over the mean of all")


def _headline(workload: Workload, settings: LabSettings) -> str:
    requests, last_s = len(workload.requests), workload.requests[-1].arrived_s
    rate = f" at {requests / last_s:.3g}/s" if last_s else ""
    replicas = f"{settings.replicas} replica{'s'[: settings.replicas > 1]}"
    routers = f"{settings.routers} router{'s'[: settings.routers > 1]}"
    return (
        f"{workload.name}: {requests} requests{rate}, {replicas} with {settings.kv_tokens:,} "
        f"KV tokens each, {routers}"
    )
