"""Processes of a gateway without Ray, whose router authenticates, limits and accounts, or does not.

    python -m loadtests.router_with_projects engine [FRAME_PERIOD_S]
    python -m loadtests.router_with_projects accounts FOLDER ENGINE
    python -m loadtests.router_with_projects router ENGINE [PROJECTS_FILE ACCOUNTS_PORT]

Each prints `ready` and a line of JSON once it can be used. They are targets of
`python -m loadtests.compare projects`.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import aiohttp
import msgspec
import uvicorn
import uvloop

from deployments.engines.server import EngineServer
from deployments.engines.sim.engine import SimulatedEngine
from deployments.process_setup import collect_garbage_rarely
from gateway.accounts.keeper import LedgerKeeper, open_database
from gateway.asgi import Receive, Scope, Send
from gateway.assembly import RouterOptions, build_router
from gateway.config.accounts import AccountsConfig
from gateway.config.sim import SimEntry, Simulation
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.metrics import NullRecorder
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.accounts_client import AccountsUnavailable
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.serving.live_config import LiveConfig
from gateway.telemetry.facts import ReplicaMetadata
from loadtests.launch import HOST, MODEL

READY = "ready "
PRICES = {MODEL: [{"input": "0.5", "cached_input": "0.05", "output": "1.5"}]}


class AccountsServer:
    """HTTP in front of a keeper, in place of a handle of Serve's."""

    def __init__(self, keeper: LedgerKeeper) -> None:
        self._keeper = keeper
        self._settlements = msgspec.msgpack.Decoder(list[Settlement])

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`/follow` with the known version as its body, or `/submit` with settlements."""
        if scope["type"] != "http":
            return
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = dict(await receive())
            body += bytes(message.get("body", b""))
        answer = b""
        if scope["path"] == "/follow":
            answer = msgspec.msgpack.encode(await self._keeper.follow(body.decode()))
        else:
            await self._keeper.submit(self._settlements.decode(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


class AccountsOverHttp:
    """`AccountsClient` of an `AccountsServer` on this machine."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}"
        self._session: aiohttp.ClientSession | None = None
        self._views = msgspec.msgpack.Decoder(AccountsView)

    async def follow(self, known: str) -> AccountsView:
        """The newest view, once it is another one."""
        return self._views.decode(await self._post("/follow", known.encode()))

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Hand over settlements."""
        await self._post("/submit", msgspec.msgpack.encode(settlements))

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """There is no admin API."""
        raise AccountsUnavailable(call.path)

    async def _post(self, path: str, body: bytes) -> bytes:
        self._session = self._session or aiohttp.ClientSession()
        try:
            async with self._session.post(self._url + path, data=body) as response:
                response.raise_for_status()
                return await response.read()
        except aiohttp.ClientError as error:
            raise AccountsUnavailable(str(error)) from None


async def run_engine(frame_period_s: str = "0.05") -> None:
    """An engine that answers at once, with its telemetry and its usage."""
    entry = SimEntry(name=MODEL, engine="sim", simulation=Simulation(instant=True))
    engine = SimulatedEngine(entry)
    server = EngineServer(engine, HOST, frame_period_s=float(frame_period_s))
    await server.start()
    _say_ready(
        ReplicaMetadata(
            model=MODEL, host=HOST, port=server.port, key=server.key, facts=engine.facts
        )
    )
    await asyncio.Event().wait()


async def run_accounts(folder: str, engine: str) -> None:
    """Accounts with a database of its own."""
    database = f"sqlite:///{Path(folder, 'accounts.db')}"
    config = AccountsConfig.model_validate({"database": database, "prices": PRICES})
    opened = await open_database(config, {}, NullRecorder())
    keeper = LedgerKeeper(opened, config, fleet_of(engine), NullRecorder())
    keeper.start()
    await _serve(AccountsServer(keeper).app)


async def run_router(engine: str, projects: str = "", accounts_port: str = "") -> None:
    """A router, as in production but for Ray and metrics."""
    live_config = LiveConfig()
    if projects:
        await live_config.adopt({"auth": {"projects": [projects]}})
    accounts = AccountsOverHttp(int(accounts_port)) if accounts_port else None
    options = RouterOptions(accounts=accounts)
    router = build_router(
        fleet_of(engine), lambda *_: None, live_config=live_config, options=options
    )
    router.start()
    collect_garbage_rarely()
    await _serve(router.app)


def fleet_of(engine: str) -> Fleet:
    """A fleet with the one engine whose metadata this is, in JSON."""
    fleet = Fleet()
    fleet.add(ServedModel(MODEL, created_s=0))
    metadata = msgspec.json.decode(engine, type=ReplicaMetadata)
    fleet.model(MODEL).replace_replicas([Replica("engine", metadata)])
    return fleet


async def _serve(app: object) -> None:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # an ASGI application of our own types
        host=HOST,
        port=0,
        access_log=False,
        log_level="warning",
        http="httptools",
        interface="asgi3",  # a bound method is taken for ASGI 2 otherwise
        lifespan="off",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    _say_ready(server.servers[0].sockets[0].getsockname()[1])
    await serving


def _say_ready(value: object) -> None:
    sys.stdout.write(f"{READY}{msgspec.json.encode(value).decode()}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the process that the arguments name, until interrupted."""
    role, *arguments = sys.argv[1:]
    roles: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "engine": run_engine,
        "accounts": run_accounts,
        "router": run_router,
    }
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # as in Serve's replicas
    ):
        runner.run(roles[role](*arguments))


if __name__ == "__main__":
    main()
