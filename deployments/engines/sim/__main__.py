"""Command line of a simulated engine: `python -m deployments.engines.sim --port 9000`."""

import argparse
import logging

import uvicorn

from deployments.engines.sim.engine import SimulatedEngine
from deployments.private_server import KeyGuard, server_config
from gateway.config.sim import SimEntry, Simulation


def main() -> None:
    """Run a simulated engine until it is interrupted."""
    parser = argparse.ArgumentParser(description="Run a simulated OpenAI-compatible engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--model", default="sim", help="the model's name")
    parser.add_argument("--instant", action="store_true", help="answer at once")
    parser.add_argument(
        "--simulation",
        default=Simulation(),
        type=Simulation.model_validate_json,
        help='speeds and sizes, as in a model entry: {"step_s": 0.03, "kv_tokens": 32768}',
    )
    parser.add_argument("--key", default="none", help="the access key; `none`: no key is needed")
    args = parser.parse_args()
    simulation = args.simulation.model_copy(update={"instant": True} if args.instant else {})
    entry = SimEntry(name=args.model, engine="sim", simulation=simulation)
    engine = SimulatedEngine(entry)
    config = server_config(engine.app if args.key == "none" else KeyGuard(engine.app, args.key))
    config.host, config.port = args.host, args.port
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
