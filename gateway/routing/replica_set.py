"""Replicas of one model, as this router sees them, with the state and health of each."""

import math
from collections import Counter
from collections.abc import Callable, Collection

from gateway.kvcache.prefix_index import PrefixIndex
from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.held_elsewhere import HeldElsewhere
from gateway.routing.outlier_detector import may_eject
from gateway.routing.replica_health import HEALTHY, USABLE_TIERS, HealthState
from gateway.routing.replica_state import ReplicaState
from gateway.routing.reservations import Reservations

BACKOFF_S = 5.0
"""How long others are preferred to a replica that could not be reached."""


class ReplicaSet:
    """States of one model's replicas, and the index of the prefixes that they hold.

    `now` is in seconds, `router` the id of this router. Methods do nothing for a replica that is
    not there.
    """

    def __init__(self, model: ServedModel, now: Callable[[], float], router: str = "") -> None:
        self.prefix_index = PrefixIndex()
        self.reservations = Reservations(now)
        self.held_elsewhere = HeldElsewhere(router)
        self._model = model
        self._now = now
        self._states: dict[str, ReplicaState] = {}
        self._listeners: list[Callable[[str], None]] = []

    def get(self, replica: str) -> ReplicaState | None:
        """Return the state of a replica; None if it is not there."""
        return self._states.get(replica)

    def all(self) -> Collection[ReplicaState]:
        """Return the states of all replicas."""
        return self._states.values()

    def sync(self) -> None:
        """Follow the model's replicas as they come and go."""
        replicas = self._model.replicas
        if replicas.keys() == self._states.keys():
            return
        for name in self._states.keys() - replicas.keys():
            self._states.pop(name).close()
            self.reservations.drop_replica(name)
            self.held_elsewhere.drop_replica(name)
            self.publish(name)
        for name, replica in replicas.items():
            if name not in self._states:
                self._states[name] = ReplicaState(replica, self.prefix_index, self._now)
                self.publish(name)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called with the id of each replica whose room or health may change."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[str], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def publish(self, replica: str) -> None:
        """Call all listeners: the room or health of a replica may have changed."""
        for listener in self._listeners:
            listener(replica)

    def preferred(self, avoid: Collection[str]) -> Collection[ReplicaState]:
        """Return the replicas in the best health; those to avoid only if all others drain."""
        now_s = self._now()
        states = self._states.values()
        for avoided in (avoid, ()) if avoid else ((),):
            for tier in USABLE_TIERS:
                found = [state for state in states if state.health.state(now_s) in tier]
                if avoided:
                    found = [state for state in found if state.replica.id not in avoided]
                if found:
                    return found
        return states

    def loaded_copies(self) -> Counter[str]:
        """Return on how many replicas each adapter is loaded."""
        states = self._states.values()
        return Counter(name for state in states for name in state.replica.adapters.loaded)

    def health(self, replica: Replica) -> HealthState | None:
        """Return the health of a replica; None if it is not there."""
        self.sync()
        state = self._states.get(replica.id)
        return None if state is None else state.health.state(self._now())

    def health_counts(self) -> Counter[str]:
        """Return the number of replicas in each state, as `gateway.metrics.REPLICAS` labels it."""
        self.sync()
        now_s = self._now()
        return Counter(state.health.state(now_s).value for state in self._states.values())

    def healthy(self) -> set[str]:
        """Return the ids of all healthy replicas."""
        return set(filter(self.is_healthy, self._states))

    def is_healthy(self, replica: str) -> bool:
        """Whether a replica is there and healthy: no others are preferred to it."""
        state = self._states.get(replica)
        return state is not None and state.health.state(self._now()) in HEALTHY

    def has_telemetry(self, replica: str) -> bool:
        """Whether a replica is there and its telemetry arrives."""
        state = self._states.get(replica)
        return state is not None and state.health.has_telemetry

    def has_reachable_other(self, replica: Replica) -> bool:
        """Whether another replica of the model responds and is not in backoff."""
        self.sync()
        now_s = self._now()
        others = [state.health for name, state in self._states.items() if name != replica.id]
        return any(each.is_responding and not each.is_in_backoff(now_s) for each in others)

    def back_off(self, replica: Replica, seconds: float = BACKOFF_S) -> None:
        """Prefer others to a replica for so long: it could not be reached, or broke off."""
        self.sync()
        if state := self._states.get(replica.id):
            state.health.back_off(self._now() + seconds)

    def clear_backoff(self, replica: Replica) -> None:
        """End a replica's backoff: it has been reached."""
        if state := self._states.get(replica.id):
            state.health.clear_backoff()

    def record_responding(self, replica: Replica, *, is_responding: bool) -> None:
        """Record that a replica hangs, or responds again."""
        self.sync()
        state = self._states.get(replica.id)
        if state is not None and state.health.is_responding != is_responding:
            state.health.is_responding = is_responding
            self.publish(replica.id)

    def record_success(self, replica: Replica, client: Tenant = ANONYMOUS) -> None:
        """Record that a replica has answered a client's request."""
        if state := self._states.get(replica.id):
            state.health.outlier_detector.record_success(self._now(), client)

    def record_failure(self, replica: Replica, client: Tenant = ANONYMOUS) -> bool:
        """Record that a client's request failed at a replica, and by the replica's fault.

        Returns whether that ejects the replica.
        """
        self.sync()
        if (state := self._states.get(replica.id)) is None:
            return False
        now_s = self._now()
        others = [each.health for each in self._states.values() if each is not state]
        ejected = sum(health.outlier_detector.excluded_until_s > now_s for health in others)
        return state.health.outlier_detector.record_failure(
            now_s, client, may_eject=may_eject(ejected, len(self._states))
        )

    def is_suspect(self, replica: Replica) -> bool:
        """Whether a replica has been failing: it last failed what another one could answer."""
        state = self._states.get(replica.id)
        return state is not None and state.health.outlier_detector.is_suspect

    def record_silence(self, replica: Replica, stalled_s: float = math.inf) -> None:
        """Record that a replica is given up, as silent, or as stalled for so long."""
        if state := self._states.get(replica.id):
            state.record_silence(stalled_s)

    def has_silenced(self, decision: Decision) -> bool:
        """Whether a request came to its replica just before the replica fell silent."""
        state = self._states.get(decision.replica.id)
        return state is not None and state.has_silenced(decision.id)
