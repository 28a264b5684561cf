"""Serve's request router for engines, which publishes running replicas to the process's feed."""

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from deployments.serve_internals import replica_feed


class PublishingRequestRouter(FIFOMixin, RequestRouter):
    """Publishes every change of a model's replicas to `replica_feed`.

    As a request router it serves only the few control calls (`ping`): any replica will do.
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
        replica_feed.feed.publish(self.app_name, replicas)
