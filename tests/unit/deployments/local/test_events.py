"""What happens to a running gateway, in lines."""

from dataclasses import replace
from typing import Any

import pytest

from deployments.local.events import (
    ENTRIES,
    FAULT_PERIOD_S,
    REMOVED_S,
    RUNNING,
    STARTING,
    STOPPING,
    DeploymentView,
    Events,
    GatewayView,
    HaproxyView,
    ReplicaView,
)
from gateway.report import ModelReport, RouterReport

ENGINE, ROUTER = ("m", "Engine"), ("gateway", "Router")
WELL = ReplicaView(RUNNING, 11, is_alive=True)
READY = ModelReport("ready", "", 1)


def view(*replicas: tuple[str, ReplicaView], target: int = 1, **more: Any) -> GatewayView:
    """A gateway with these replicas of a model, and a report of its router."""
    engine = DeploymentView(target, dict(replicas), deployed_s=1.0)
    report = RouterReport({"m": READY}, faults=[])
    gateway = GatewayView({ENGINE: engine}, {"r": report}, {51: HaproxyView(50)}, seen_s=1000.0)
    return replace(gateway, **more)


def lines_between(*views: GatewayView) -> list[str]:
    """Lines about the last of several views."""
    events = Events()
    return [events.lines(each) for each in views][-1]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ((), (("a", ReplicaView(STARTING, None, is_alive=True)),), "replica a starts"),
        ((("a", replace(WELL, state=STARTING)),), (("a", WELL),), "replica a runs (process 11)"),
        ((("a", WELL),), (), "replica a died (process 11)"),
        ((("a", WELL),), (("a", ReplicaView(STOPPING, 11, is_alive=False)),), "replica a died"),
        ((("a", WELL),), (("a", replace(WELL, state=STOPPING)),), "replica a stops, once"),
        (
            (("a", replace(WELL, state=STARTING)),),
            (("a", replace(WELL, state=STOPPING)),),
            "replica a did not start",
        ),
    ],
)
def test_each_step_of_a_replica_is_one_line(
    before: tuple[tuple[str, ReplicaView], ...],
    after: tuple[tuple[str, ReplicaView], ...],
    line: str,
) -> None:
    """A replica that dies is told from one that stops."""
    (told,) = lines_between(view(*before), view(*after))

    assert told.startswith(f"model m: {line}")


def test_nothing_is_said_of_what_has_not_changed() -> None:
    """Nor of the state at the start, nor of a replica that has stopped as announced."""
    stopping = ("b", replace(WELL, state=STOPPING))

    assert lines_between(view(("a", WELL))) == []
    assert lines_between(view(("a", WELL)), view(("a", WELL))) == []
    assert lines_between(view(("a", WELL), stopping), view(("a", WELL))) == []


def test_scaling_and_deployments_are_said() -> None:
    """With the numbers, and each once."""
    before = view(("a", WELL))
    scaled = view(("a", WELL), target=2)
    engine = before.deployments[ENGINE]
    anew = replace(before, deployments={ENGINE: replace(engine, deployed_s=2.0)})
    more = replace(before, deployments={ENGINE: engine, ROUTER: engine})

    assert lines_between(before, scaled) == ["model m: scaling from 1 to 2 replicas"]
    assert lines_between(before, anew) == ["a config was deployed: model m"]
    assert lines_between(before, more) == ["routers: added"]
    later = replace(before, seen_s=before.seen_s + REMOVED_S)
    assert lines_between(more, before) == [], "Serve builds an application anew"
    assert lines_between(more, before, more) == []
    assert lines_between(more, before, later) == ["routers: removed"]


def test_states_of_models_are_said_with_their_reason() -> None:
    """As `/v1/models` has them."""
    hung = RouterReport({"m": ModelReport("not_responding", "its engine hangs", 1)}, faults=[])

    assert lines_between(view(), view(reports={"r": hung})) == [
        "model m: not_responding: its engine hangs"
    ]
    assert lines_between(view(), view(reports={})) == [], "the router does not answer just now"


def test_a_rejected_config_is_said_once() -> None:
    """And when a good one has replaced it."""
    events = Events()
    rejected = RouterReport({"m": READY}, faults=[], rejected=("gateway:", "  max_body_mb: no"))
    views = [view(), view(reports={"r": rejected}), view(reports={"r": rejected}), view()]

    assert [events.lines(each) for each in views][1:] == [
        [
            (
                "gateway config or projects rejected, the previous ones stay in force:"
                " gateway:; max_body_mb: no"
            ),
        ],
        [],
        ["gateway config: the new one is in force"],
    ]


def test_faults_are_summed_up() -> None:
    """The first of a kind at once, the others together after a while; none from before."""
    now_s = [1000.0]
    events = Events()

    def lines(count: int, router: str = "r") -> list[str]:
        report = RouterReport({"m": READY}, faults=[("m", "stuck", "retried", count)])
        return events.lines(view(reports={router: report}, seen_s=now_s[0]))

    first, second, third = lines(5), lines(6), lines(9)
    now_s[0] += FAULT_PERIOD_S
    fourth = lines(9)
    now_s[0] += FAULT_PERIOD_S
    of_another_router = lines(2, "s")

    assert first == third == []
    assert second == ["model m: a request stuck: retried"]
    assert fourth == ["model m: 3 requests stuck: retried"]
    assert of_another_router == ["model m: 2 requests stuck: retried"]


def test_the_death_of_haproxy_is_said() -> None:
    """Restarted by its own parent or gone for good; a reload by Serve is no death."""
    restarted, gone = {52: HaproxyView(50)}, dict[int, HaproxyView]()
    reloaded = {61: HaproxyView(50, replaces=frozenset({51}))}

    (said,) = lines_between(view(), view(haproxies=restarted))
    assert said == "HAProxy died (process 51), and runs again as 52"
    (said,) = lines_between(view(), view(haproxies=gone))
    assert said.startswith("HAProxy is gone")
    assert lines_between(view(haproxies=gone), view()) == ["HAProxy is back"]
    assert lines_between(view(), view(haproxies=reloaded)) == []
    supervised = {61: HaproxyView(60, replaces=frozenset({50}))}
    assert lines_between(view(), view(haproxies=supervised)) == [], "its parent was told to end"


def test_a_slow_look_accuses_nobody() -> None:
    """After a longer time a replica that is gone may have been stopped."""
    later = view(seen_s=1010.0)

    assert lines_between(view(("a", WELL)), later) == ["model m: replica a ended (process 11)"]


def test_of_what_holds_entries_only_a_death_is_said() -> None:
    """It comes and goes with each deployment of its model."""
    key = ("m", ENTRIES)
    runs, none = DeploymentView(1, {"a": WELL}, 1.0), DeploymentView(1, {}, 1.0)
    stops = DeploymentView(1, {"a": replace(WELL, state=STOPPING)}, 1.0)

    def lines(before: DeploymentView, after: DeploymentView) -> list[str]:
        return lines_between(view(deployments={key: before}), view(deployments={key: after}))

    assert lines(none, runs) == lines(runs, stops) == []
    assert lines(runs, none) == ["entry of model m: replica a died (process 11)"]
