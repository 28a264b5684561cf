"""Assembly of a router: the one place where its parts are made and connected."""

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.admission.cold_start import Wake
from gateway.asgi import Scope, fields_of
from gateway.authentication.authenticator import Authenticator
from gateway.faults import Faults
from gateway.http.administration import administration_router
from gateway.http.app import GatewayApp, create_app
from gateway.http.cors import SharedOrigins
from gateway.http.health import health_router
from gateway.http.models import cards_of, models_router
from gateway.http.operators import operators_router
from gateway.identity.cache_scope import ScopeSeeds
from gateway.identity.live_directory import ACCOUNTS
from gateway.inspection.all_routers import AllRouters, NoPeers, RouterPeers
from gateway.inspection.router_inspector import RouterInspector
from gateway.ledger.view import AccountsView
from gateway.limits.project_limits import ProjectLimits
from gateway.metrics import NullRecorder, Recorder
from gateway.periodic import Periodic
from gateway.report import ModelReport, RouterReport
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Fleet, ServedModel
from gateway.serving.access import AccessControl
from gateway.serving.accounts_client import AccountsClient
from gateway.serving.accounts_follower import AccountsFollower
from gateway.serving.body_budget import BodyBudget
from gateway.serving.client_identity import address_of, shown_address
from gateway.serving.demand_publisher import DemandPublisher
from gateway.serving.direct_routes import DirectRoutes
from gateway.serving.gauges import Gauges
from gateway.serving.handler import InferenceHandler
from gateway.serving.live_config import LiveConfig
from gateway.serving.operator_access import OperatorAccess
from gateway.serving.pool import ModelPools, SharedState
from gateway.serving.request_history import RequestHistory
from gateway.serving.request_log import RequestLog
from gateway.serving.request_metrics import RequestMetrics
from gateway.serving.request_record import RequestSinks
from gateway.serving.router_context import RouterContext
from gateway.serving.settlements import Settlements
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.state_client import StateClient
from gateway.serving.state_forwarder import StateForwarder
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.telemetry_client import TelemetryClient
from gateway.serving.tracing import Tracer
from gateway.serving.trusted_requests import TrustedRequests
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import EngineClient

IDENTITIES_PERIOD_S = 1.0
"""How often it is checked whether projects files and the keys of identity providers are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """Settings of a router that are fixed at its start."""

    router: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Id of the router, as operators see it."""
    is_local: bool = False
    """The gateway can be reached from this machine only, so a config may open operators' routes."""
    is_forwarded: bool = False
    """A proxy of the gateway's own names the client in `x-forwarded-for`."""
    proxy_key: str = ""
    """Key that this proxy sends with each request; empty if requests may come without one."""
    seeds: ScopeSeeds = field(default_factory=ScopeSeeds)
    """Seeds of prefix keys, the same in all routers of the cluster."""
    recorder: Recorder | None = None
    """Recorder of metrics; none are recorded without one."""
    tracer: Tracer | None = None
    """Tracer of requests; none are traced without one."""
    time_of_day: Callable[[], float] = time.time
    """Seconds since the epoch."""
    accounts: AccountsClient | None = None
    """Keeper of projects, keys and usage; None where no database is configured."""
    state: StateClient | None = None
    """Keeper of files, batches and responses; None where none is configured."""
    trusts_requests: bool = False
    """All requests come from this process, which says in their scope whose they are."""
    peers: RouterPeers = field(default_factory=NoPeers)
    """The gateway's other routers."""
    log_folder: Path | None = None
    """Folder of the request log, unless the config names one."""
    clock: Callable[[], float] = time.monotonic
    """Seconds of a clock that never goes back."""
    rng: random.Random = field(default_factory=random.Random)
    """Breaks ties and keeps no secret."""


class AssembledRouter:
    """Parts of one router, connected; its background work runs from `start` to `close`."""

    def __init__(
        self,
        fleet: Fleet,
        wake: Wake,
        live_config: LiveConfig,
        upstream: UpstreamClient,
        options: RouterOptions,
    ) -> None:
        self.fleet = fleet
        self.live_config = live_config
        self.history = RequestHistory(options.clock, self._is_heard)
        recorder = options.recorder or NullRecorder()
        self.request_metrics = self._request_metrics(options, recorder)
        self._request_log = RequestLog(
            options.router, self.history, live_config, options.log_folder
        )
        self.limits = _project_limits(live_config, options)
        self.accounts = self._follow(options.accounts)
        self.settlements = self._settlements(options.accounts, recorder)
        self._demand_publisher = DemandPublisher(lambda: self.pools.demands, router=options.router)
        self.pools = ModelPools(fleet, self._shared_state(wake, options))
        self.context = RouterContext(
            EngineClient(upstream),
            self.pools,
            Faults(recorder, options.time_of_day),
            limits=self.limits,
            is_forwarded=options.is_forwarded,
            settlements=self.settlements,
        )
        self._authenticator = Authenticator(live_config.directory, lambda: live_config.config.auth)
        self._identities = Periodic(
            "reading projects and keys", IDENTITIES_PERIOD_S, self._refresh_identities
        )
        self._telemetry_client = TelemetryClient(
            fleet, self.pools, upstream, options.rng, settlements=self.settlements
        )
        self._bodies = BodyBudget(lambda: live_config.config.bodies_bytes)
        self.gauges = Gauges(self.pools, self._bodies, recorder, self.limits)
        self.resolver = resolver = TargetResolver(fleet, options.seeds)
        self._shadows = ShadowTraffic(resolver, self.context, recorder)
        self.inspector = RouterInspector(
            options.router,
            self.pools,
            self.context.faults,
            self._shadows,
            live_config,
            self.history,
        )
        self.app = self._app(resolver, options)

    def start(self) -> None:
        """Start to receive telemetry, to publish demand and gauges, and to watch projects files."""
        self._telemetry_client.start()
        self._demand_publisher.start()
        self.gauges.start()
        if self.settlements is not None and self.accounts is not None:
            self.settlements.start()
            self.accounts.start()
        self._identities.start()
        self._request_log.start()

    async def wait_until_informed(self, timeout_s: float) -> None:
        """Wait until all engines and Accounts have told what they know, or time is up.

        A router that begins before would admit requests whose project has reached its limits.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._telemetry_client.wait_until_heard()
                if self.accounts is not None:
                    await self.accounts.wait_until_known()
        self.limits.end_settling()

    async def drain(self, timeout_s: float) -> int:
        """Reject new requests, and end all others within `timeout_s`; how many were cut off."""
        return await self.context.drain.drain(timeout_s)

    def report(self) -> RouterReport:
        """How this router, its models and its config stand."""
        return RouterReport(
            models={
                card.id: ModelReport(card.state, card.reason or "", card.replicas)
                for card in cards_of(self.fleet, self.live_config.names, self._health_of).values()
                if card.parent is None and card.stands_for is None
            },
            faults=[(f.model, f.reason, f.action, n) for f, n in self.context.faults.counts],
            rejected=self.live_config.problems,
            running=self.context.drain.running,
        )

    async def flush_log(self) -> None:
        """Write the lines of the request log that wait."""
        await self._request_log.flush()

    async def close(self) -> None:
        """End all background work, and export the last metrics and traces."""
        await self._identities.close()
        await self._authenticator.close()
        await self._demand_publisher.close()
        await self._telemetry_client.close()
        if self.settlements is not None and self.accounts is not None:
            await self.settlements.close()
            await self.accounts.close()
        self.pools.close()
        await self.gauges.close()  # after all that counts
        await self._request_log.close()  # before the tracer: it ends spans
        if (tracer := self.request_metrics.tracer) is not None:
            await tracer.close()

    def _request_metrics(self, options: RouterOptions, recorder: Recorder) -> RequestMetrics:
        sinks = RequestSinks(
            recorder=recorder,
            history=self.history,
            router=options.router,
            address_of=self._address_of,
        )
        return RequestMetrics(sinks, options.tracer)

    def _knows_clients(self) -> bool:
        """Whether there are projects, or nobody needs one."""
        directory = self.live_config.directory
        is_open = not self.live_config.config.is_authenticated
        return is_open or directory.is_complete or bool(directory.projects)

    def _shared_state(self, wake: Wake, options: RouterOptions) -> SharedState:
        return SharedState(
            decisions=DecisionLog(observer=self.request_metrics.record_outcome),
            rng=options.rng,
            time_of_day=options.time_of_day,
            monotonic=options.clock,
            wake=wake,
            router=options.router,
            on_held=self._demand_publisher.publish_soon,
            reservation_listeners=self.limits.listeners,
            recent_use_listeners=(self.limits,),
        )

    def _follow(self, accounts: AccountsClient | None) -> AccountsFollower | None:
        """Follower of Accounts, whose projects, keys and spend the router goes by."""
        if accounts is None:
            return None
        follower = AccountsFollower(accounts)
        follower.add_listener(self.limits.record_view)
        follower.add_listener(self._adopt_directory)
        self.live_config.directory.expect(ACCOUNTS)
        return follower

    def _adopt_directory(self, view: AccountsView) -> None:
        """Know the projects and keys of the database from now on."""
        if view.directory is not None:
            self.live_config.directory.replace(ACCOUNTS, view.directory)

    def _settlements(
        self, accounts: AccountsClient | None, recorder: Recorder
    ) -> Settlements | None:
        """What the ledger must hear; it forgets what the ledger has."""
        if accounts is None or self.accounts is None:
            return None
        settlements = Settlements(accounts, lambda: self.fleet.replica_ids, recorder)
        self.accounts.add_listener(lambda view: settlements.record_watermarks(view.watermarks))
        return settlements

    def _app(self, resolver: TargetResolver, options: RouterOptions) -> GatewayApp:
        context, live_config, shadows = self.context, self.live_config, self._shadows
        inference = InferenceHandler(
            resolver, context, shadows, live_config, self._bodies, self.request_metrics
        )
        direct = DirectRoutes(inference, StateForwarder(options.state, context.drain))
        routers = (
            models_router(self.fleet, live_config, self._health_of),
            health_router(
                self.fleet,
                self._health_of,
                lambda: not live_config.config.is_authenticated,
                self._knows_clients,
            ),
            administration_router(options.accounts, self.accounts, self._address_of),
            operators_router(
                resolver, self.pools, live_config, AllRouters(self.inspector, options.peers)
            ),
        )
        return create_app(
            *(direct, routers, self._shut_down, self._access_control(options)),
            shared_origins=self._shared_origins,
            proxy_key=options.proxy_key,
        )

    def _access_control(self, options: RouterOptions) -> AccessControl | TrustedRequests:
        if options.trusts_requests:
            return TrustedRequests(self.live_config)
        operators = OperatorAccess(
            self.live_config, is_local=options.is_local, is_forwarded=options.is_forwarded
        )
        return AccessControl(
            self.live_config,
            self._authenticator,
            operators,
            self.request_metrics.recorder,
            is_forwarded=options.is_forwarded,
        )

    def _address_of(self, scope: Scope) -> str:
        """Address of the client that has sent a request."""
        address = address_of(
            fields_of(scope),
            scope,
            is_forwarded=self.context.is_forwarded,
            proxies=self.live_config.trusted_proxies,
        )
        return shown_address(address)

    async def _refresh_identities(self) -> None:
        """Follow projects files, and fetch the keys of identity providers."""
        await self._authenticator.refresh()
        await self.live_config.refresh_projects()

    def _shared_origins(self) -> SharedOrigins | None:
        """The web pages that may use the gateway, by the config in force."""
        cors = self.live_config.config.cors
        return None if cors is None else SharedOrigins(cors)

    def _is_heard(self, decision: Decision) -> bool:
        return self.pools.has_telemetry(decision.model, decision.replica.id)

    def _health_of(self, model: ServedModel) -> Counter[str]:
        return self.pools.of(model).scheduler.replicas.health_counts()

    async def _shut_down(self) -> None:
        """Cancel copies and close connections: the server of the application shuts down."""
        await self._shadows.close()
        await self.context.engines.close()


def _project_limits(live_config: LiveConfig, options: RouterOptions) -> ProjectLimits:
    """Limits of the projects in the directory, by the config in force."""
    limits = ProjectLimits(
        options.clock,
        options.time_of_day,
        lambda: live_config.config.rate_limits.count_tokens == "all",
        lambda: live_config.config.rate_limits.on_unknown_spend == "refuse",
    )
    directory = live_config.directory
    directory.subscribe(lambda: limits.replace(directory.projects.values()))
    limits.replace(directory.projects.values())
    return limits


def build_router(
    fleet: Fleet,
    wake: Wake,
    *,
    live_config: LiveConfig | None = None,
    upstream: UpstreamClient | None = None,
    options: RouterOptions | None = None,
) -> AssembledRouter:
    """A router for the models in `fleet`; `wake` requests engines for models that have none."""
    return AssembledRouter(
        fleet,
        wake,
        live_config or LiveConfig(),
        upstream or UpstreamClient(),
        options or RouterOptions(),
    )
