"""A whole gateway in one process, for tests of the ledger: engines, routers and Accounts."""

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from deployments.engines.server import EngineServer
from deployments.engines.sim.engine import SimulatedEngine
from gateway.accounts.keeper import LedgerKeeper
from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.accounts import AccountsConfig
from gateway.config.sim import SimEntry, Simulation
from gateway.errors.gateway_error import GatewayError
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.accounts_client import AccountsUnavailable
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.serving.fallback import FallbackChain
from gateway.serving.target_resolver import TargetResolver
from gateway.store.database import Database, DatabaseUnavailable
from gateway.store.tables import ROLL_UPS, usage
from gateway.telemetry.facts import ReplicaMetadata
from gateway.telemetry.usage import UsageTotals
from tests.unit.conftest import PATIENCE_S, Client
from tests.unit.recorder import KeptRecorder

MODEL = "m"
CONFIG = {
    "prices": {MODEL: [{"input": 0.5, "cached_input": "0.05", "output": 1.5, "gpu_hour": 2}]},
}
IDENTITY = ClientIdentity(project=Project(id="proj_a"), key="key_1", user="ann")


class LocalAccounts:
    """`AccountsClient` of the keeper that runs now, if one does."""

    def __init__(self) -> None:
        self.keeper: LedgerKeeper | None = None
        self.loses_settlements = False
        """Routers are killed before they can hand over anything."""

    async def follow(self, known: str) -> AccountsView:
        """The newest view."""
        try:
            return await self._running.follow(known)
        except DatabaseUnavailable as error:
            raise AccountsUnavailable(str(error)) from None

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Hand over settlements; the call fails if the keeper is killed meanwhile."""
        if self.loses_settlements:
            return
        submitting = asyncio.ensure_future(self._running.submit(settlements))
        keeper = self.keeper
        while not submitting.done():
            await asyncio.wait([submitting], timeout=0.05)
            if self.keeper is not keeper:
                submitting.cancel()
                raise AccountsUnavailable("killed")
        await submitting

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """No admin API."""
        raise AccountsUnavailable(call.path)

    @property
    def _running(self) -> LedgerKeeper:
        if self.keeper is None:
            raise AccountsUnavailable("not running")
        return self.keeper


@dataclass
class RunningSim:
    """A simulated engine with its server."""

    engine: SimulatedEngine
    server: EngineServer
    replica: Replica

    @property
    def totals(self) -> UsageTotals:
        """Sums of all records that it has written."""
        return self.engine.tracker.usage.log.page().totals


class WholeGateway:
    """Engines, routers and Accounts over one database; enter it to start them."""

    def __init__(self, database_url: str, engines: int = 2, routers: int = 2, **settings: object):
        self.database_url = database_url
        self.fleet = Fleet()
        self.fleet.add(ServedModel(MODEL, created_s=0))
        self.accounts = LocalAccounts()
        self.recorder = KeptRecorder()
        self.config = AccountsConfig.model_validate(
            CONFIG | {"database": "sqlite:////nowhere.db"} | settings
        )
        self.engines: list[RunningSim] = []
        self.routers: list[AssembledRouter] = []
        self._counts = engines, routers
        self.ended: list[RunningSim] = []

    async def __aenter__(self) -> "WholeGateway":
        """Start everything."""
        for _ in range(self._counts[0]):
            await self.start_engine()
        for i in range(self._counts[1]):
            options = RouterOptions(accounts=self.accounts, rng=random.Random(i))  # noqa: S311
            router = build_router(self.fleet, lambda *_: None, options=options)
            router.start()
            self.routers.append(router)
        await self.start_accounts()
        for router in self.routers:  # what a test sets must not be replaced by what comes late
            if router.accounts is not None:
                await router.accounts.wait_until_known()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        for router in self.routers:
            await router.close()
        await self.kill_accounts()
        for each in self.engines:
            await each.server.stop()
            await each.engine.stop()

    async def start_engine(self, **simulation: object) -> RunningSim:
        """Add an engine to the fleet."""
        fast = {"step_s": 0.002, "step_s_per_sequence": 0.0, "output_tokens": 12} | simulation
        entry = SimEntry(name=MODEL, engine="sim", simulation=Simulation.model_validate(fast))
        engine = SimulatedEngine(entry)
        server = EngineServer(engine, "127.0.0.1")
        await server.start()
        metadata = ReplicaMetadata(
            model=MODEL, host=server.host, port=server.port, key=server.key, facts=engine.facts
        )
        running = RunningSim(engine, server, Replica(f"replica-{server.port}", metadata))
        self.engines.append(running)
        self._publish()
        return running

    async def kill_engine(self, running: RunningSim) -> None:
        """End an engine at once: what it has not handed over is lost."""
        self.engines.remove(running)
        self.ended.append(running)
        running.server._control.usage.close()
        await running.server.stop()
        await running.engine.stop()
        self._publish()

    async def drain_engine(self, running: RunningSim) -> None:
        """Have an engine leave the fleet, as Serve does, finish what it has, and stop."""
        self.engines.remove(running)
        self.ended.append(running)
        self._publish()
        await running.server.drain(PATIENCE_S)
        await running.server.stop()
        await running.engine.stop()

    async def start_accounts(self) -> LedgerKeeper:
        """Start Accounts."""
        database = await Database.open(self.database_url)
        keeper = LedgerKeeper(database, self.config, self.fleet, self.recorder)
        keeper.start()
        self.accounts.keeper = keeper
        return keeper

    async def kill_accounts(self) -> None:
        """End Accounts in the middle of whatever it does; a transaction may commit or not."""
        if (keeper := self.accounts.keeper) is not None:
            self.accounts.keeper = None
            await keeper.close()

    async def ask(
        self,
        router: int,
        fields: Mapping[str, object],
        identity: ClientIdentity = IDENTITY,
        path: str = "/v1/completions",
        client: Client | None = None,
    ) -> Client:
        """Have a router answer a request; errors are the client's."""
        body = json.dumps({"model": MODEL, "prompt": "Once upon a time " * 8, **fields}).encode()
        request = InferenceRequest(
            head=parse_head(path, body, b""),
            path=path,
            headers=[(b"content-type", b"application/json")],
            body=body,
            request_id=b"req",
            identity=identity,
            arrived_s=asyncio.get_running_loop().time(),
        )
        client = client or Client()
        chain = FallbackChain(
            request,
            (MODEL,),
            TargetResolver(self.fleet),
            self.routers[router].context,
            client.response,
        )
        with contextlib.suppress(GatewayError):
            await chain.run()
        return client

    async def until_settled(self) -> None:
        """Wait until Accounts has all records, and routers have nothing to say."""
        async with asyncio.timeout(PATIENCE_S):
            while (  # noqa: ASYNC110 - they have no event in common
                any(len(each.engine.tracker.usage.log) for each in self.engines)
                or any(each.engine.tracker.usage.running for each in self.engines)
                or any(_owes(router) for router in self.routers)
            ):
                await asyncio.sleep(0.05)

    def _publish(self) -> None:
        model = self.fleet.model(MODEL)
        self.fleet.replace_replicas(model, [each.replica for each in self.engines])


def _owes(router: AssembledRouter) -> bool:
    """Whether a router has something that the ledger needs."""
    settlements = router.settlements
    assert settlements is not None
    sent = settlements._sent.values()
    is_due = any(each.has_delivered or each.is_answered for each in sent)
    return is_due or len(settlements) > len(sent)


def engine_sums(engines: Sequence[RunningSim]) -> UsageTotals:
    """Sums that all engines report of themselves."""
    totals = [each.totals for each in engines]
    return UsageTotals(
        records=sum(each.records for each in totals),
        prompt_tokens=sum(each.prompt_tokens for each in totals),
        cached_tokens=sum(each.cached_tokens for each in totals),
        completion_tokens=sum(each.completion_tokens for each in totals),
    )


def ledger_sums(connection: Connection) -> UsageTotals:
    """The same sums of the ledger's rows, without estimates."""
    columns = usage.c
    row = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(columns.prompt_tokens), 0),
            func.coalesce(func.sum(columns.cached_tokens), 0),
            func.coalesce(func.sum(columns.completion_tokens), 0),
        ).where(columns.is_estimated.is_(False))
    ).one()
    return UsageTotals(
        records=int(row[0]),
        prompt_tokens=int(row[1]),
        cached_tokens=int(row[2]),
        completion_tokens=int(row[3]),
    )


def charged_sums(connection: Connection, table: Table | None = None) -> tuple[int, ...]:
    """What clients are charged for, by the rows, or by a table of sums."""
    tokens: tuple[str, ...] = ("prompt_tokens", "cached_tokens", "completion_tokens")
    if table is None:
        table, tokens = usage, tuple(f"charged_{name}" for name in tokens)
    chosen = (table.c[name] for name in (*tokens, "device_us", "cost_nano"))
    sums = [func.coalesce(func.sum(column), 0) for column in chosen]
    return tuple(int(value) for value in connection.execute(select(*sums)).one())


def all_sums(connection: Connection) -> list[tuple[int, ...]]:
    """The charged sums by rows, minutes, hours and days: they must be equal."""
    return [charged_sums(connection, table) for table in (None, *ROLL_UPS.values())]
