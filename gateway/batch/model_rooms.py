"""Room of a model's replicas, as the router of the batches' own process sees it."""

from collections.abc import Sequence

from gateway.batch.dispatch_window import ReplicaRoom
from gateway.errors.gateway_error import GatewayError
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.replica_set import ReplicaSet
from gateway.routing.replica_state import ReplicaState
from gateway.serving.live_config import LiveConfig
from gateway.serving.pool import ModelPools


class RouterRooms:
    """Room by the telemetry of a router that answers nothing but lines of batches."""

    def __init__(self, fleet: Fleet, pools: ModelPools, live_config: LiveConfig) -> None:
        self._fleet = fleet
        self._pools = pools
        self._live_config = live_config

    def __call__(self, model: str, /) -> Sequence[ReplicaRoom]:
        """Room of the healthy replicas that a name leads to first; of others, nothing is known."""
        served = self._served(model)
        if served is None:
            return ()
        replicas = self._pools.of(served).scheduler.replicas
        replicas.sync()
        prefill_s = self._pools.of(served).scheduler.cost_model.estimates.prefill_s
        return [
            room_of(state, replicas, prefill_s)
            for state in replicas.all()
            if state.has_load and replicas.is_healthy(state.replica.id)
        ]

    def _served(self, model: str) -> ServedModel | None:
        try:
            return self._fleet.model(self._live_config.names.route(model, b"").models[0])
        except GatewayError:
            return None


def room_of(state: ReplicaState, replicas: ReplicaSet, prefill_s: float) -> ReplicaRoom:
    """Room of one replica by its telemetry, with the requests of this router on their way."""
    facts, load = state.replica.metadata.facts, state.load
    return ReplicaRoom(
        slots=facts.max_sequences,
        sequences=state.sequences,
        ours=state.sequences_sent,
        kv_tokens=facts.kv_tokens,
        free_tokens=load.free_tokens,
        pending_tokens=load.pending_tokens,
        step_tokens=facts.step_tokens,
        prefill_s=prefill_s,
        is_sought=bool(replicas.held_elsewhere.projects(state.replica.id)),
    )
