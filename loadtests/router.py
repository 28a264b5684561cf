"""The gateway's HTTP application without Ray, in front of one engine.

`python -m loadtests.router PORT ENGINE_PORT` is the target `router` of `loadtests.compare path`.
"""

import random
import sys
import time

import uvicorn

from deployments.engines.sim.engine import SimulatedEngine
from gateway.admission.admissions import Admissions
from gateway.admission.cold_start import ColdStarts
from gateway.config.sim import SimEntry
from gateway.http.app import create_app
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.schedulers import Schedulers
from gateway.serving.attempts import RouterContext
from gateway.serving.live_config import LiveConfig
from gateway.telemetry import ReplicaMetadata
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import EngineClient
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
    fleet = fleet_of_one(engine_port)
    rng = random.Random()  # noqa: S311 - breaks ties, keeps no secret
    schedulers = Schedulers(fleet, rng, time.time)
    app = create_app(
        fleet,
        schedulers,
        RouterContext(
            EngineClient(UpstreamClient()),
            schedulers,
            Admissions(fleet, schedulers, time.monotonic),
            ColdStarts(fleet, lambda *_: None),
        ),
        live_config=LiveConfig(),
    )
    uvicorn.run(app, port=port, access_log=False, log_level="warning", http="httptools")


if __name__ == "__main__":
    main()
