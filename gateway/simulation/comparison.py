"""Policies side by side on one workload: run, as JSON, and as a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from gateway.simulation.lab import simulate
from gateway.simulation.scores import Score, infinite_cache_hit_rate
from gateway.simulation.setting import LabSettings
from gateway.simulation.trace import Workload

TIMES = ("TTFT mean", "p50", "p90", "p99", "TPOT p90", "e2e mean")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it."""

    headline: str
    workload: str
    infinite_cache_hit_rate: float
    scores: Sequence[Score]

    @classmethod
    def of(cls, workload: Workload, policies: Iterable[str], setting: LabSettings) -> "Comparison":
        """Simulate a workload under each policy.

        Raises:
            ConfigError: a request does not fit into a replica.
        """
        return cls(
            headline=_headline(workload, setting),
            workload=workload.name,
            infinite_cache_hit_rate=infinite_cache_hit_rate(workload),
            scores=[
                Score.of(policy, simulate(workload, policy, setting), setting.replicas)
                for policy in policies
            ],
        )

    def json(self) -> str:
        """All figures."""
        document = {
            "workload": self.workload,
            "infinite_cache_hit_rate": self.infinite_cache_hit_rate,
            "policies": [asdict(score) for score in self.scores],
        }
        return json.dumps(document, indent=2)

    def print(self, console: Console) -> None:
        """A table, and what stands in it."""
        table = Table("policy")
        for heading in ("hit rate", *TIMES, "imbalance"):
            table.add_column(heading, justify="right")
        for s in self.scores:
            ttft = (s.ttft_mean_s, s.ttft_p50_s, s.ttft_p90_s, s.ttft_p99_s)
            table.add_row(
                *(s.policy, f"{s.hit_rate:.3f}", *(f"{each:.3f} s" for each in ttft)),
                *(f"{1000 * s.tpot_p90_s:.1f} ms", f"{s.e2e_mean_s:.2f} s", f"{s.imbalance:.2f}"),
            )
        console.print(self.headline)
        console.print(table)
        console.print(f"hit rate of one infinite cache: {self.infinite_cache_hit_rate:.3f}")
        console.print("imbalance: tokens the busiest replica computed, over the mean of all")


def _headline(workload: Workload, setting: LabSettings) -> str:
    requests, last_s = len(workload.requests), workload.requests[-1].arrived_s
    rate = f" at {requests / last_s:.3g}/s" if last_s else ""
    replicas = f"{setting.replicas} replica{'s'[: setting.replicas > 1]}"
    routers = f"{setting.routers} router{'s'[: setting.routers > 1]}"
    return (
        f"{workload.name}: {requests} requests{rate}, {replicas} with {setting.kv_tokens:,} "
        f"KV tokens each, {routers}"
    )
