"""Serve's request router for engines: it tells this process's router which replicas run."""

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from deployments.serve_internals import replica_feed as broadcasts


class FleetRequestRouter(FIFOMixin, RequestRouter):
    """Passes every change of a model's replicas on to this process's fleet.

    As a request router it serves only the few control calls (`wake`): any replica will do.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """All candidates, in one rank."""
        return [candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Serve's call with all running replicas, at every change."""
        super().update_replicas(replicas)
        broadcasts.replicas.publish(self.app_name, replicas)
