"""Serve's side of autoscaling: calls of the policy, and decisions without complete reports."""

import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.app import scale
from deployments.autoscaling import EngineScalingPolicy
from gateway.config.loader import parse_entry
from gateway.engine_telemetry.stats import EngineStats, engine_stats, read_stats
from gateway.engine_telemetry.tracker import EngineTracker
from gateway.telemetry.demand import Demand
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.facts import EngineFacts
from tests.unit.conftest import Clock

FACTS = EngineFacts(
    engine="fake",
    routes=(),
    kv_tokens=1000,
    block_size=16,
    max_sequences=10,
    max_model_len=1000,
    supports_priority=True,
)
SERVE_CONFIG = AutoscalingConfig(
    min_replicas=0, max_replicas=10, upscale_delay_s=0, downscale_delay_s=0
)


class Controller:
    """Serve's controller, as far as a policy sees it: calls it often, and applies its decisions."""

    def __init__(self, target: int, **loads: float) -> None:
        self.policy = EngineScalingPolicy(0.5, 2, scale_down_delay_s=30, now=lambda: self.now_s)
        self.loads = loads
        """Sequences that each replica has told; those that have told nothing are `silent`."""
        self.silent: list[str] = []
        self.hung: dict[str, float] = {}
        """Those that tell nothing new, and when they told their load last."""
        self.least, self.start_s = 0, 0.0
        """The entry's `min`, and what every replica's start has taken."""
        self.target, self.queued, self.now_s = target, 0.0, 1000.0
        self.asked = 0

    def pass_s(self, seconds: float) -> int:
        """Let time pass; how many replicas there are to be then."""
        for _ in range(math.ceil(10 * seconds)):
            self.now_s += 0.1
            self.target, state = self.policy(self._context())
            assert state == {}
        return self.target

    def _context(self) -> Any:
        running = [*self.loads, *self.silent]
        told_s = {name: self.hung.get(name, self.now_s) for name in self.loads}
        return SimpleNamespace(
            app_name="m",
            running_replicas=running,
            current_num_replicas=len(running),
            target_num_replicas=self.target,
            total_num_requests=self.queued,
            total_queued_requests=self.queued,
            capacity_adjusted_min_replicas=self.least,
            capacity_adjusted_max_replicas=10,
            policy_state={},
            config=SERVE_CONFIG,
            aggregated_metrics=self._metrics(),
            raw_metrics={
                "slots": {name: [SimpleNamespace(timestamp=at)] for name, at in told_s.items()}
            },
        )

    def _metrics(self) -> dict[str, dict[str, float]]:
        self.asked += 1
        stats = {
            name: EngineStats(
                **dict.fromkeys(EngineStats.__struct_fields__, 0.0)
                | {"running": running, "slots": 10.0, "start_s": self.start_s}
            ).as_metrics()
            for name, running in self.loads.items()
        }
        fields = EngineStats.__struct_fields__
        return {field: {name: each[field] for name, each in stats.items()} for field in fields}


class Serve(Controller):
    """A controller with Serve's own rules for a model at zero replicas, or on its way there."""

    def __init__(self, target: int, **loads: float) -> None:
        super().__init__(target, **loads)
        # Private, as nothing public applies them without a cluster; Ray 2.60.
        ruled = _apply_autoscaling_config(self.policy)

        def ask(context: Any) -> tuple[int, dict[str, Any]]:
            return ruled(context)[0], {}

        self.policy: Any = ask

    def wake(self, seconds: float) -> None:
        """Have a request wait for a replica, for so long."""
        self.queued = 1
        self.pass_s(seconds)
        self.queued = 0

    def become(self, **loads: float) -> None:
        """These replicas run now, and no others."""
        self.loads = loads


def test_the_load_of_all_replicas_counts() -> None:
    """Two full replicas of ten slots at a utilization of one half want four."""
    assert Controller(2, a=10, b=10).pass_s(5) == 4


def test_an_idle_model_scales_to_zero_after_its_delay() -> None:
    """Not earlier."""
    controller = Controller(1, a=0)
    assert controller.pass_s(29) == 1
    assert controller.pass_s(4) == 0


@pytest.mark.parametrize("silent", [["b"], ["b", "c", "d"]])
def test_a_replica_without_a_report_does_not_count_as_idle(silent: list[str]) -> None:
    """It has just started, or hangs: no replica is removed until it reports."""
    controller = Controller(1 + len(silent), a=0)
    controller.silent = silent
    assert controller.pass_s(300) == 1 + len(silent)


def test_a_decision_stands_until_a_replica_runs() -> None:
    """After a restart of the controller, or while all replicas of a model are starting."""
    controller = Controller(5)
    controller.least = 1
    assert controller.pass_s(300) == 5
    assert Controller(0).pass_s(300) == 0


def test_a_waiting_control_call_needs_one_replica() -> None:
    """A router makes one for a model at zero."""
    controller = Controller(0)
    controller.queued = 3
    assert controller.pass_s(4) == 1


def test_a_start_without_waiting_requests_is_given_up() -> None:
    """It fails or finds no room; a model at zero can be started again."""
    serve = Serve(0)
    serve.pass_s(60)
    serve.wake(300)
    assert serve.target == 1
    assert serve.pass_s(29) == 1
    assert serve.pass_s(4) == 0
    serve.wake(1)
    assert serve.target == 1


def test_a_start_continues_while_a_request_waits() -> None:
    """Whenever another client comes in time."""
    serve = Serve(0)
    for _ in range(10):
        serve.wake(20)
        assert serve.pass_s(25) == 1
    assert serve.pass_s(10) == 0


def test_a_start_continues_for_its_usual_duration() -> None:
    """Clients learn the duration, and retry then."""
    serve = Serve(1, a=0)
    serve.start_s = 200
    serve.pass_s(500)
    assert serve.target == 0
    serve.become()
    serve.pass_s(60)
    serve.wake(40)
    assert serve.pass_s(155) == 1
    assert serve.pass_s(10) == 0


def test_a_dead_replica_is_replaced_only_if_a_request_waits() -> None:
    """If the model may scale to zero; the delay is that of a start that fails."""
    serve = Serve(1, a=5)
    serve.pass_s(100)
    serve.become()
    assert serve.pass_s(28) == 1
    assert serve.pass_s(5) == 0


def test_several_replicas_scale_to_zero_after_one_delay() -> None:
    """Serve keeps one back, which goes at once, without another delay."""
    serve = Serve(3, a=0, b=0, c=0)
    assert serve.pass_s(29) == 3
    assert serve.pass_s(4) == 0


def test_a_hanging_replica_does_not_count_as_idle() -> None:
    """Serve keeps its last report for ever, with the time of another clock."""
    controller = Controller(2, a=0, b=0)
    controller.hung = {"b": 7.0}
    assert controller.pass_s(300) == 2
    controller.hung = {}
    assert controller.pass_s(29) == 2
    assert controller.pass_s(4) == 0


def test_unreadable_reports_change_nothing() -> None:
    """An error here would keep the controller from managing all applications."""
    controller = Controller(3, a=0)
    context = controller._context()
    context.aggregated_metrics = {"slots": None}
    assert controller.policy(context) == (3, {})


def test_reports_of_another_version_are_ignored() -> None:
    """A report that lacks a field does not count."""
    assert read_stats({"slots": {"a": 1.0}}) == {}
    assert read_stats({}) == {}
    whole = {name: {"a": 1.0, "b": 2.0} for name in EngineStats.__struct_fields__}
    del whole["running"]["b"]
    assert list(read_stats(whole)) == ["a"]


def test_the_policy_reaches_the_controller_by_pickle() -> None:
    """Serve sends its class by value, and its settings as JSON."""
    policy = AutoscalingPolicy(
        policy_function=EngineScalingPolicy,
        policy_kwargs={"target_utilization": 0.5, "max_wait_s": 2, "scale_down_delay_s": 0},
    )
    config = pickle.loads(cloudpickle.dumps(AutoscalingConfig(policy=policy)))  # noqa: S301 - ours
    controller = Controller(2, a=10, b=10)
    kept = config.policy.policy_kwargs
    controller.policy = config.policy.get_policy()(**kept, now=lambda: controller.now_s)
    assert controller.pass_s(5) == 4


@pytest.mark.filterwarnings("ignore:The .metrics_interval_s. field:DeprecationWarning")
def test_serve_s_own_scaling_delays_are_off() -> None:
    """Serve's own delays are off, as the policy has its own."""
    wishes = {"min": 0, "max": 4, "max_wait_s": 3.0, "scale_down_delay_s": 77.0}
    entry = parse_entry({"name": "m", "engine": "sim", "autoscaling": wishes})
    config = scale(entry)["autoscaling_config"]

    assert (config.min_replicas, config.max_replicas) == (0, 4)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (0, 0)
    assert config.policy.policy_kwargs == {
        "target_utilization": 0.7,
        "max_wait_s": 3.0,
        "scale_down_delay_s": 77.0,
    }
    assert scale(parse_entry({"name": "m", "engine": "sim", "replicas": 3})) == {"num_replicas": 3}


def test_an_engine_reports_its_load(clock: Clock) -> None:
    """Running and waiting requests, pending prefill, and requests held for it."""
    tracker = EngineTracker(FACTS, clock, waiting=lambda: 1)
    started = tracker.record_arrival(Dispatch(id=1), 100)
    tracker.record_arrival(Dispatch(id=2), 300)
    tracker.record_arrival(Dispatch(id=3, is_batch=True), 500)
    clock.now_s += 1
    tracker.record_first_token(started, 0)
    held = Demand(router="r", requests=4, prefill_tokens=50, batch_requests=6)

    stats = engine_stats(FACTS, tracker, in_flight=3, held=held, start_s=7)

    assert (stats.running, stats.waiting, stats.slots) == (2, 1, 10)
    assert (stats.kv_tokens, stats.kv_used_tokens) == (1000, 900)
    assert stats.prompts == 1  # the batch one goes behind all others
    assert stats.prefill_backlog_s == pytest.approx(300 * tracker.meter.prefill_s)
    assert stats.prefill_s_per_s == pytest.approx(tracker.meter.prefill_s_per_s)
    assert stats.prefill_s_per_s > 0
    assert (stats.held, stats.held_batch, stats.start_s) == (4, 6, 7)
    assert stats.held_prefill_s == pytest.approx(50 * tracker.meter.prefill_s)
    assert read_stats({k: {"a": v} for k, v in stats.as_metrics().items()}) == {"a": stats}


def test_work_that_the_report_does_not_see_counts(clock: Clock) -> None:
    """Requests without tokens are in flight, too."""
    stats = engine_stats(FACTS, EngineTracker(FACTS, clock), in_flight=3, held=Demand(), start_s=1)
    assert stats.running + stats.waiting == 3


def test_without_priorities_batch_prompts_count_as_backlog(clock: Clock) -> None:
    """An engine without priorities computes them first."""
    facts = EngineFacts(
        engine="fake", routes=(), kv_tokens=0, block_size=0, max_sequences=1, max_model_len=1
    )
    tracker = EngineTracker(facts, clock)
    tracker.record_arrival(Dispatch(id=3, is_batch=True), 500)
    assert tracker.prefill_backlog == (1, 500)


def test_finished_requests_are_measured(clock: Clock) -> None:
    """By the time that each had its slot, even if it was cut off."""
    tracker = EngineTracker(FACTS, clock)
    for is_aborted in (False, True):
        tracked = tracker.record_arrival(Dispatch(id=1), 100)
        clock.now_s += 1
        tracker.record_first_token(tracked, 0)
        clock.now_s += 4 * (1 + is_aborted)
        tracker.record_finished(tracked, 10, is_aborted=is_aborted)

    assert tracker.meter.service_s == pytest.approx(7, rel=0.01)
