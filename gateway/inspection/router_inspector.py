"""What one router tells of itself: decisions, faults, shadows, config, models and so on."""

import asyncio
from collections.abc import Iterable

import msgspec

from gateway.faults import Faults
from gateway.inspection.model_rows import model_row
from gateway.inspection.query import Query, QueryTopic, Row
from gateway.inspection.replica_rows import replica_row
from gateway.routing.decision import LoggedDecision
from gateway.serving.live_config import LiveConfig
from gateway.serving.pool import ModelPools
from gateway.serving.request_history import RequestHistory
from gateway.serving.shadow import ShadowTraffic

ROWS_AT_A_TIME = 50
"""Decisions that are explained before requests get their turn: about 2 ms."""


class RouterInspector:
    """Answers questions about one router; `router`: its id."""

    def __init__(
        self,
        router: str,
        pools: ModelPools,
        faults: Faults,
        shadows: ShadowTraffic,
        live_config: LiveConfig,
        history: RequestHistory,
    ) -> None:
        self.router = router
        self._pools = pools
        self._faults = faults
        self._shadows = shadows
        self._live_config = live_config
        self._history = history

    async def rows(self, query: Query) -> list[Row]:
        """Answer a question; each row names the router."""
        match query.topic:
            case QueryTopic.CONFIG:
                rows: list[Row] = [self._live_config.report()]
            case QueryTopic.DECISIONS:
                rows = await self._decisions(query)
            case QueryTopic.FAULTS:
                rows = self._fault_counts()
            case QueryTopic.MODELS:
                rows = [model_row(pool) for pool in self._pools]
            case QueryTopic.REPLICAS:
                rows = self._replicas(query.model)
            case QueryTopic.REQUEST:
                rows = await self._request(query.request_id)
            case QueryTopic.SHADOWS:
                rows = self._shadows.report()
        return [{"router": self.router, **row} for row in rows]

    async def _decisions(self, query: Query) -> list[Row]:
        found = [
            logged
            for logged in self._pools.decisions.latest()
            if query.model in (None, logged.decision.model)
        ]
        return await _explanations(found[: max(0, query.limit)])

    def _fault_counts(self) -> list[Row]:
        return [
            {"model": fault.model, "reason": fault.reason, "action": fault.action, "count": count}
            for fault, count in self._faults.counts
        ]

    def _replicas(self, model: str | None) -> list[Row]:
        return [
            replica_row(pool, state, self._faults.of_replica(state.replica.id))
            for pool in self._pools
            if model in (None, pool.model.name)
            for state in pool.scheduler.replicas.all()
        ]

    async def _request(self, request_id: str) -> list[Row]:
        """Each request of that id, which a client may have used more than once."""
        decisions = await _explanations(
            logged
            for logged in self._pools.decisions.latest()
            if logged.decision.request_id == request_id
        )
        running = [{"state": "running", **row} for row in self._history.running(request_id)]
        ended = [
            {"state": "ended", **msgspec.to_builtins(summary)}
            for summary in self._history.ended(request_id)
        ]
        rows: list[Row] = [*running, *ended]
        if not rows and decisions:  # a copy for a shadow, or long ago
            rows = [{"state": "ended", "request_id": request_id}]
        return [{**row, "decisions": decisions} for row in rows]


async def _explanations(logged: Iterable[LoggedDecision]) -> list[Row]:
    rows: list[Row] = []
    for each in logged:
        rows.append(each.explanation())
        if len(rows) % ROWS_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return rows
