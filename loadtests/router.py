"""The gateway's HTTP application without Ray, in front of one engine.

`python -m loadtests.router PORT ENGINE_PORT` is the target `router` of `loadtests.compare path`.
"""

import sys

import uvicorn

from deployments.engines.sim.engine import SimulatedEngine
from gateway.assembly import build_router
from gateway.config.sim import SimEntry
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


def main() -> None:
    """Serve until interrupted."""
    port, engine_port = int(sys.argv[1]), int(sys.argv[2])
    app = build_router(fleet_of_one(engine_port), lambda *_: None).app
    uvicorn.run(app, port=port, access_log=False, log_level="warning", http="httptools")


if __name__ == "__main__":
    main()
