"""CPU time that a router spends on the record of one request: metrics, history and request log."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from gateway.asgi import Message, Scope
from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.kvcache.prefix import NO_PROMPT
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.routing.target import Target
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Finished, Load, Update

CALLS, ROUNDS = 5_000, 7
ROUTE = "/v1/chat/completions"
FACTS = EngineFacts(
    engine="sim", routes=(ROUTE,), kv_tokens=0, block_size=0, max_sequences=8, max_model_len=100
)
HEADERS = [
    (b"host", b"gateway.example"),
    (b"authorization", b"Bearer sk-0123456789"),
    (b"content-type", b"application/json"),
    (b"content-length", b"200"),
    (b"user-agent", b"openai-python"),
    (b"accept", b"*/*"),
    (b"x-forwarded-for", b"203.0.113.9"),
]
SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": ROUTE,
    "client": ("192.0.2.1", 4000),
    "headers": HEADERS,
}


class Bench:
    """A router with one replica, and a request that has been answered there."""

    def __init__(self, folder: Path) -> None:
        fleet = Fleet()
        model = ServedModel("m", created_s=1, state=ModelState.READY)
        fleet.add(model)
        options = RouterOptions(log_folder=folder, is_forwarded=True)
        self.router: AssembledRouter = build_router(fleet, lambda _, __: None, options=options)
        metadata = ReplicaMetadata(model="m", host="192.0.2.2", port=1, key="k", facts=FACTS)
        fleet.replace_replicas(model, [Replica("r", metadata)])
        scheduler = self.router.pools.of(model).scheduler
        load = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
        scheduler.record_update("r", Update(is_snapshot=True, load=load))
        request = InferenceRequest(
            head=RequestHead("m"), body=b"x" * 200, request_id=b"0" * 32, headers=HEADERS
        )
        decision = scheduler.choose(Target(request, model, "m", NO_PROMPT))
        self._decision = decision
        self._finished = Finished(
            id=decision.id,
            prompt_tokens=30,
            cached_tokens=16,
            completion_tokens=5,
            prompt_bytes=90,
            queue_s=0.0,
            prefill_s=0.1,
            decode_s=0.4,
            running=1.0,
        )
        self._response = ClientResponse(_drop, [], request_id=b"0" * 32)
        self._response.status = 200
        self._chain = _Answered(request, decision)

    def record(self) -> None:
        """A request comes, ends, and its engine reports on it."""
        metrics = self.router.request_metrics
        record = metrics.open(SCOPE, self._response, b"0" * 32, ("key", "interactive"))
        with record:
            record.record_chain(cast("FallbackChain", self._chain))
        metrics.record_outcome(self._decision, self._finished)

    def configure(self, *, enabled: bool) -> None:
        """Turn the request log on or off."""
        fields = {"auth": "none", "request_log": {"enabled": enabled}}
        self.router.live_config.apply(parse_gateway(fields))


class _Answered:
    """What a record reads of the chain that has answered the request."""

    failure = None
    model = "m"
    is_batch = False

    def __init__(self, request: InferenceRequest, decision: object) -> None:
        self.request = request
        self.decisions = [decision]


async def _drop(message: Message) -> None:
    del message


async def _measure(folder: Path) -> None:
    bench = Bench(folder)
    for name, enabled in (("without the request log", False), ("with it", True)):
        bench.configure(enabled=enabled)
        loop_s, thread_s = [], []
        for _ in range(ROUNDS):
            loop_s.append(_cpu_s(time.thread_time, bench.record))
            start_s = time.process_time()
            await bench.router.flush_log()
            thread_s.append((time.process_time() - start_s) / CALLS)
        sys.stdout.write(
            f"{name}: {min(loop_s) * 1e6:.1f} µs on the event loop,"
            f" {min(thread_s) * 1e6:.1f} µs to write it\n"
        )


def _cpu_s(clock: Callable[[], float], call: Callable[[], None]) -> float:
    start_s = clock()
    for _ in range(CALLS):
        call()
    return (clock() - start_s) / CALLS


def main() -> None:
    """Print microseconds for one request."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


if __name__ == "__main__":
    main()
