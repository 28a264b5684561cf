"""The gateway's HTTP application without Ray, in front of one engine.

`python -m loadtests.router PORT ENGINE_PORT` is the target `router` of `loadtests.compare path`.
"""

import sys

import uvicorn

from deployments.engines.sim.engine import SimulatedEngine
from deployments.serve_internals.body_writer import body_writer_behind
from gateway.asgi import App, Receive, Scope, Send
from gateway.assembly import build_router
from gateway.config.sim import SimEntry
from gateway.http.app import GatewayApp
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.telemetry.facts import ReplicaMetadata
from loadtests.launch import HOST, MODEL


def fleet_of_one(engine_port: int) -> Fleet:
    """A fleet of one model with one engine on this machine."""
    facts = SimulatedEngine(SimEntry(name=MODEL, engine="sim")).facts
    metadata = ReplicaMetadata(model=MODEL, host=HOST, port=engine_port, key="none", facts=facts)
    fleet = Fleet()
    fleet.add(ServedModel(MODEL, created_s=0))
    fleet.model(MODEL).replace_replicas([Replica("engine", metadata)])
    return fleet


def on_uvicorn(gateway: GatewayApp) -> App:
    """The gateway's application as a router's replica serves it: events are written past ASGI."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await gateway.answer(scope, receive, send, body_writer_behind(send))
        else:
            await gateway(scope, receive, send)

    return app


def main() -> None:
    """Serve until interrupted."""
    port, engine_port = int(sys.argv[1]), int(sys.argv[2])
    gateway = build_router(fleet_of_one(engine_port), lambda *_: None).app
    uvicorn.run(
        on_uvicorn(gateway), port=port, access_log=False, log_level="warning", http="httptools"
    )


if __name__ == "__main__":
    main()
