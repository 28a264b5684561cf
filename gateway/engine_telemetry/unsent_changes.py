"""What has changed at an engine since its routers were sent the last update."""

from gateway.engine_telemetry.router_demand import RouterDemand
from gateway.engine_telemetry.usage_meter import UsageMeter
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.telemetry.update import (
    AdapterState,
    Finished,
    Load,
    Update,
    pack_keys,
    pack_tokens,
)


class UnsentChanges:
    """Changes that routers have not been sent, of the tracker itself and of its parts."""

    def __init__(
        self, shadow_cache: ShadowCache, usage: UsageMeter, router_demand: RouterDemand
    ) -> None:
        self._shadow_cache = shadow_cache
        self._usage = usage
        self._router_demand = router_demand
        self.accepted: list[int] = []
        """Ids of requests that have arrived."""
        self.finished: list[Finished] = []
        self.adapters = AdapterState()
        """Current state of the engine's adapters."""
        self.is_draining = False
        """Whether the engine accepts no more requests."""
        self._sent_load: Load | None = None
        self._sent_adapters = self.adapters
        self._is_draining_sent = False

    def pop(self, load: Load, stalled_s: float) -> Update | None:
        """Return the changes, which count as sent from then on; None if there are none."""
        added, dropped = self._shadow_cache.take_changes()
        reserved, usage = self._usage.pop()
        update = Update(
            added=pack_keys(added),
            added_tokens=pack_tokens(added.values()),
            dropped=pack_keys(dropped),
            accepted=self.accepted,
            finished=self.finished,
            load=None if load == self._sent_load else load,
            is_draining=self.is_draining,
            stalled_s=stalled_s,
            adapters=None if self.adapters == self._sent_adapters else self.adapters,
            reserved=reserved,
            usage=usage,
            held=self._router_demand.pop_held(),
        )
        unchanged = Update(is_draining=self._is_draining_sent, stalled_s=stalled_s)
        self.accepted, self.finished, self._sent_load = [], [], load
        self._is_draining_sent, self._sent_adapters = self.is_draining, self.adapters
        return None if update == unchanged else update

    def snapshot(self, load: Load, stalled_s: float, accepted: list[int]) -> Update:
        """Return the whole state, with the ids of all requests; nothing counts as sent by it."""
        held = self._shadow_cache.held
        return Update(
            is_snapshot=True,
            added=pack_keys(held),
            added_tokens=pack_tokens(held.values()),
            accepted=accepted,
            load=load,
            is_draining=self.is_draining,
            stalled_s=stalled_s,
            adapters=self.adapters,
            reserved=self._usage.running,
            recent=self._usage.recent,
            held=self._router_demand.held,
        )
