"""Runs a Ray cluster with one application of Ray Serve LLM until a signal comes.

`python -m loadtests.peers.ray_cluster app.json` is started by `ray_llm` as the leader of a session.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import ray
import typer
from ray import serve
from ray.serve.llm import build_openai_app

from loadtests.peers.ray_llm import DEPLOYED

POLL_S = 0.5
LOGICAL_CPUS = 8
"""More than a small machine has: Ray's own defaults reserve several for a replica."""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """The application to deploy."""

    host: str
    port: int
    llm_config: dict[str, Any]
    """Fields of Ray's `LLMConfig`."""


def main() -> None:
    """Run until a signal comes or the process that started this one has ended."""
    app = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=App)
    stopping = threading.Event()
    threading.Thread(target=_until_orphaned, args=(stopping,), daemon=True).start()
    ray.init(
        address="local",
        num_cpus=LOGICAL_CPUS,
        include_dashboard=False,
        log_to_driver=False,  # as after `serve deploy`
        logging_level="warning",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())  # after Ray, which sets its own
    wanted = {"llm_configs": [app.llm_config]}
    try:
        serve.start(http_options={"host": app.host, "port": app.port})
        serve.run(build_openai_app(wanted))  # returns once all replicas run
        typer.echo(DEPLOYED)
        while not stopping.wait(POLL_S):  # not for ever: a signal may arrive in another thread
            pass
    finally:
        ray.shutdown()  # without a drain; the session's end stops the rest


def _until_orphaned(stopping: threading.Event) -> None:
    os.read(sys.stdin.fileno(), 1)
    stopping.set()


if __name__ == "__main__":
    main()
