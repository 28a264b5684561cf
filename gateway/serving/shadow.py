"""Shadow traffic: copies of requests, sent to another model only to compare its answers.

A copy is sent only where its model has an engine with room for one more batch request: it starts no
engine, waits for none and delays no other request. Its answer is read to the end and dropped.
"""

import asyncio
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from gateway.asgi import Message
from gateway.errors.gateway_error import GatewayError
from gateway.faults import Faults
from gateway.metrics import SHADOWED, NullRecorder, Recorder
from gateway.request.inference_request import InferenceRequest
from gateway.request.service_tier import BATCH_TIER
from gateway.request.tenant import ANONYMOUS
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.serving.router_context import RouterContext
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.tracing import untraced

MAX_COPIES = 64
"""Copies under way at the same time; no others are made meanwhile."""
MAX_BYTES = 64 << 20
"""Bytes of the bodies of copies under way."""
KEPT_TIMES = 1000
"""Number of answers of each model whose times are kept."""
TIMEOUT_S = 600.0
"""How long a copy may take."""
COMMENT = b":"
"""First byte of a comment in a stream."""
ANSWERED = "answered"
SKIPPED = "skipped"


class ResponseTimer:
    """Observer of a response that records when it comes, in seconds from now."""

    def __init__(self) -> None:
        self._now_s = asyncio.get_running_loop().time
        self._began_s = self._now_s()
        self.status = 0
        self.first_s: float | None = None
        """Until the first byte of the body."""
        self.whole_s: float | None = None
        """Until the last byte."""

    def observe(self, message: Message) -> None:
        """Record one ASGI message of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.first_s is None and message["body"] and message["body"][:1] != COMMENT:
            self.first_s = self._now_s() - self._began_s
        if not message["more_body"]:
            self.whole_s = self._now_s() - self._began_s


@dataclass(slots=True)
class ShadowStats:
    """Outcomes and times of a model's answers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many were `answered` or `skipped`, and the statuses or error codes of the others."""
    first_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    whole_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))

    def record(self, timer: ResponseTimer, failure: GatewayError | None) -> str:
        """Count an answer that has ended; returns its outcome."""
        if failure is not None:
            outcome = failure.code
        elif timer.status == 200 and timer.first_s is not None and timer.whole_s is not None:
            outcome = ANSWERED
            self.first_s.append(timer.first_s)
            self.whole_s.append(timer.whole_s)
        else:
            outcome = str(timer.status)
        self.outcomes[outcome] += 1
        return outcome

    def report(self) -> dict[str, object]:
        """The stats as the operators' route shows them; times in seconds."""
        return {
            "outcomes": dict(self.outcomes),
            "first_byte_s": _quantiles(self.first_s),
            "whole_s": _quantiles(self.whole_s),
        }


class ShadowTraffic:
    """Shadow traffic of one router."""

    def __init__(
        self, resolver: TargetResolver, context: RouterContext, recorder: Recorder | None = None
    ) -> None:
        self._resolver = resolver
        self._recorder = recorder or NullRecorder()
        # No client sees the faults of copies.
        self._context = replace(context, faults=Faults())
        self._bytes = 0
        self._copies: set[asyncio.Task[None]] = set()
        self._stats: dict[tuple[str, str], tuple[ShadowStats, ShadowStats]] = {}
        """By the name that clients use and the shadow's: stats of the requests themselves, and of
        their copies."""

    def mirror(
        self,
        request: InferenceRequest,
        name: str,
        response: ClientResponse,
        chain: FallbackChain,
    ) -> None:
        """Have the model `name` answer a copy of the request.

        For comparison, `response` is observed, and the outcome of its `chain`.
        """
        requested = request.head.model
        own, copied = self._stats.setdefault((requested, name), (ShadowStats(), ShadowStats()))
        is_full = len(self._copies) >= MAX_COPIES or self._bytes + len(request.body) > MAX_BYTES
        if is_full or not self._runs(name):
            copied.outcomes[SKIPPED] += 1
            self._recorder.count(SHADOWED, (requested, name, SKIPPED))
            return
        timer = ResponseTimer()

        def observe(message: Message) -> None:
            timer.observe(message)
            if timer.whole_s is not None:
                own.record(timer, chain.failure)

        response.observe(observe)
        task = asyncio.create_task(self._send(request, name, copied))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    def report(self) -> list[dict[str, object]]:
        """The stats of each name that is mirrored, and of its shadow."""
        return [
            {"name": name, "shadow": shadow, "own": own.report(), "copies": copies.report()}
            for (name, shadow), (own, copies) in self._stats.items()
        ]

    async def close(self) -> None:
        """Cancel all copies."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    def _runs(self, name: str) -> bool:
        return self._resolver.knows(name) and bool(self._resolver.model(name).replicas)

    async def _send(self, request: InferenceRequest, name: str, stats: ShadowStats) -> None:
        copy = msgspec.structs.replace(
            request,
            headers=untraced(request.headers),
            request_id=request.request_id + b"-shadow",
            tenant=ANONYMOUS,
            tier=BATCH_TIER,
            is_copy=True,
            is_explained=False,
            timeout_s=TIMEOUT_S,
            arrived_s=asyncio.get_running_loop().time(),
        )
        timer = ResponseTimer()
        response = ClientResponse(_drop, [])
        response.observe(timer.observe)
        chain = FallbackChain(copy, (name,), self._resolver, self._context, response)
        self._bytes += len(copy.body)
        failure: GatewayError | None = None
        try:
            await chain.run()
        except GatewayError as error:
            failure = error
        finally:
            self._bytes -= len(copy.body)
        outcome = stats.record(timer, failure or chain.failure)
        self._recorder.count(SHADOWED, (request.head.model, name, outcome))


async def _drop(_: Message) -> None:
    """The answers of copies go nowhere."""


def _quantiles(times_s: Sequence[float]) -> dict[str, float]:
    if len(times_s) < 2:
        return {}
    cuts = statistics.quantiles(times_s, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94]}
