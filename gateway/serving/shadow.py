"""Copies of requests, which another model answers for nobody, to see how it would have done.

A copy is sent only where its model has an engine with room for one more batch request: it starts no
engine, waits for none and delays no other request. Its answer is read to the end and dropped.
"""

import asyncio
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from gateway.asgi import Message
from gateway.errors import GatewayError
from gateway.faults import Faults
from gateway.metrics import SHADOWED, NullRecorder, Recorder
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import ANONYMOUS
from gateway.serving.attempts import RouterContext
from gateway.serving.client_response import ClientResponse
from gateway.serving.fallback import FallbackChain
from gateway.serving.retry_budget import RetryBudget
from gateway.serving.target_resolver import TargetResolver
from gateway.serving.tracing import untraced

MOST = 64
"""Copies that are under way at the same time; no others are made meanwhile."""
KEPT = 1000
"""Answers of each model whose times are kept."""
TIMEOUT_S = 600.0
"""How long a copy may take."""
MOST_BYTES = 64 << 20
"""Of the bodies of copies that are under way."""
COMMENT = b":"
"""What a sign of life begins with."""
ANSWERED = "answered"
SKIPPED = "skipped"


class ResponseTimer:
    """Sees an answer go by, and when: in seconds from now."""

    def __init__(self) -> None:
        self._now_s = asyncio.get_running_loop().time
        self._began_s = self._now_s()
        self.status = 0
        self.first_s: float | None = None
        """To the first byte of the body."""
        self.whole_s: float | None = None
        """To the last."""

    def see(self, message: Message) -> None:
        """One ASGI message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.first_s is None and message["body"] and message["body"][:1] != COMMENT:
            self.first_s = self._now_s() - self._began_s
        if not message["more_body"]:
            self.whole_s = self._now_s() - self._began_s


@dataclass(slots=True)
class ShadowStats:
    """How a model has done."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many were `answered` or `skipped`, and the statuses or error codes of the others."""
    first_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    whole_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, watch: ResponseTimer, failure: GatewayError | None) -> str:
        """Count an answer that has gone by; returns how it ended."""
        if failure is not None:
            outcome = failure.code
        elif watch.status == 200 and watch.first_s is not None and watch.whole_s is not None:
            outcome = ANSWERED
            self.first_s.append(watch.first_s)
            self.whole_s.append(watch.whole_s)
        else:
            outcome = str(watch.status)
        self.outcomes[outcome] += 1
        return outcome

    def report(self) -> dict[str, object]:
        """As the operators' route shows it; times in seconds."""
        return {
            "outcomes": dict(self.outcomes),
            "first_byte_s": _quantiles(self.first_s),
            "whole_s": _quantiles(self.whole_s),
        }


class ShadowTraffic:
    """Those of one router."""

    def __init__(
        self, resolver: TargetResolver, context: RouterContext, recorder: Recorder | None = None
    ) -> None:
        self._resolver = resolver
        self._recorder = recorder or NullRecorder()
        # What happens to copies is no fault that a client has seen, and uses up no retries.
        self._context = replace(context, faults=Faults(), budgets=defaultdict(RetryBudget))
        self._bytes = 0
        self._copies: set[asyncio.Task[None]] = set()
        self._records: dict[tuple[str, str], tuple[ShadowStats, ShadowStats]] = {}
        """By the name that clients use and the shadow's: of the copied requests themselves, and of
        their copies."""

    def copy(
        self,
        request: InferenceRequest,
        name: str,
        reply: ClientResponse,
        chain: FallbackChain,
    ) -> None:
        """Have the model `name` answer the request as well.

        `reply` is watched, and how its `chain` ends, to compare.
        """
        asked = request.head.model
        own, copied = self._records.setdefault((asked, name), (ShadowStats(), ShadowStats()))
        is_full = len(self._copies) >= MOST or self._bytes + len(request.body) > MOST_BYTES
        if is_full or not self._runs(name):
            copied.outcomes[SKIPPED] += 1
            self._recorder.count(SHADOWED, (asked, name, SKIPPED))
            return
        watch = ResponseTimer()

        def see(message: Message) -> None:
            watch.see(message)
            if watch.whole_s is not None:
                own.add(watch, chain.failure)

        reply.observe(see)
        task = asyncio.create_task(self._send(request, name, copied))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    def report(self) -> list[dict[str, object]]:
        """Each name that is copied, how it has done, and how its shadow has."""
        return [
            {"name": name, "shadow": shadow, "own": own.report(), "copies": copies.report()}
            for (name, shadow), (own, copies) in self._records.items()
        ]

    async def close(self) -> None:
        """End all copies."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    def _runs(self, name: str) -> bool:
        return self._resolver.knows(name) and bool(self._resolver.model(name).replicas)

    async def _send(self, request: InferenceRequest, name: str, record: ShadowStats) -> None:
        copy = msgspec.structs.replace(
            request,
            headers=untraced(request.headers),
            request_id=request.request_id + b"-shadow",
            tenant=ANONYMOUS,
            is_batch=True,
            is_copy=True,
            is_explained=False,
            timeout_s=TIMEOUT_S,
            arrived_s=asyncio.get_running_loop().time(),
        )
        watch = ResponseTimer()
        reply = ClientResponse(_drop, [])
        reply.observe(watch.see)
        chain = FallbackChain(copy, (name,), self._resolver, self._context, reply)
        self._bytes += len(copy.body)
        failure: GatewayError | None = None
        try:
            await chain.run()
        except GatewayError as error:
            failure = error
        finally:
            self._bytes -= len(copy.body)
        outcome = record.add(watch, failure or chain.failure)
        self._recorder.count(SHADOWED, (request.head.model, name, outcome))


async def _drop(_: Message) -> None:
    """Where copies' answers go."""


def _quantiles(times_s: Sequence[float]) -> dict[str, float]:
    if len(times_s) < 2:
        return {}
    cuts = statistics.quantiles(times_s, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94]}
