"""The lab: the production routing code over a workload, with simulated replicas in virtual time.

Method: discrete events. Every router is a `Scheduler` as it runs in production, every replica
feeds the `Report` that real engines feed, and what the reports say reaches all routers after a
delay, as over the network; only the engines and the clock are models. Requests are dealt to the
routers in turn. The same arguments give the same result to the last digit.

Cost: about 0.3 ms of CPU for a request, with one router and eight replicas.
"""

import contextlib
import itertools
import random
from functools import partial

from gateway.config.serving_options import ServingOptions
from gateway.errors import ConfigError
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.simulation.batching import BatchingReplica
from gateway.simulation.engine import LabEngine, Outcome, run_of
from gateway.simulation.setting import LabSettings
from gateway.simulation.timeline import Timeline
from gateway.simulation.trace import TraceRequest, Workload
from gateway.telemetry import ReplicaMetadata, Update


def simulate(workload: Workload, policy: str, setting: LabSettings) -> list[Outcome]:
    """Send a workload's requests where `policy` chooses; what became of them, in the same order.

    Raises:
        ConfigError: a request does not fit into a replica.
    """
    _check_sizes(workload, setting)
    return _Lab(policy, setting).run(workload)


IN_THE_LAB = InferenceRequest(head=RequestHead("lab"))
"""What requests have in common: all but their prompts."""


class _Lab:
    def __init__(self, policy: str, setting: LabSettings) -> None:
        self._timeline = Timeline()
        metadata = ReplicaMetadata(model="lab", host="", port=0, key="", facts=setting.facts)
        terms = ServingOptions.model_validate({"routing": {"policy": policy}})
        self._model = ServedModel("lab", created_s=0, terms=terms)
        names = [f"{position:04d}" for position in range(setting.replicas)]
        self._model.replace_replicas(Replica(name, metadata) for name in names)
        self._routers = [
            Scheduler(self._model, DecisionLog(), _random(router), self._timeline)
            for router in range(setting.routers)
        ]
        self._positions = {name: position for position, name in enumerate(names)}
        self._engines = [
            LabEngine(setting, self._timeline, partial(self._publish, name)) for name in names
        ]
        for name, engine in zip(names, self._engines, strict=True):
            self._publish(name, engine.report.snapshot())

    def run(self, workload: Workload) -> list[Outcome]:
        """Let all requests come and be answered."""
        outcomes: list[Outcome] = []
        coming = zip(workload.requests, itertools.cycle(self._routers), strict=False)

        def await_next() -> None:
            if pair := next(coming, None):
                self._timeline.at(pair[0].arrived_s, partial(arrive, *pair))

        def arrive(request: TraceRequest, router: Scheduler) -> None:
            outcomes.append(self._send(request, router))
            await_next()

        await_next()
        self._timeline.run()
        return outcomes

    def _send(self, request: TraceRequest, router: Scheduler) -> Outcome:
        target = Target(IN_THE_LAB, self._model, self._model.name, request.prompt)
        decision = router.choose(target)
        outcome = Outcome(request, self._positions[decision.replica.id])
        sending = contextlib.ExitStack()
        dispatch = sending.enter_context(router.sending(decision, target))
        self._engines[outcome.replica].take(dispatch, outcome, sending.close)
        return outcome

    def _publish(self, replica: str, update: Update) -> None:
        for router in self._routers:
            router.hear(replica, update)


def _check_sizes(workload: Workload, setting: LabSettings) -> None:
    empty = BatchingReplica(setting.engine)
    for position, request in enumerate(workload.requests, start=1):
        if not empty.can_ever_run(run_of(request)):
            raise ConfigError(
                f"{workload.name}: request {position} takes {request.prompt_tokens} prompt and "
                f"{request.output_tokens} answer tokens, more than the {setting.kv_tokens} "
                "of a replica's KV cache"
            )


def _random(router: int) -> random.Random:
    return random.Random(f"router {router}")  # noqa: S311 - breaks ties, keeps no secret
