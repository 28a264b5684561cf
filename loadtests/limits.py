"""How far limits are exceeded: several routers, one project, three times as much as it may have.

`python -m loadtests.limits` prints a table. The routers are assembled as in production, but
requests reach simulated engines in virtual time, and engines' telemetry routers every 50 ms.
"""

import json
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.engine_telemetry.usage_meter import CallUsage, UsageMeter
from gateway.errors.limits import RateLimited
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, RateLimit
from gateway.limits.claim import Claim
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import CHAT, parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.target_resolver import TargetResolver
from gateway.simulation.timeline import Timeline
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Finished, Update

MODEL = "m"
ENGINES = 2
FRAME_S = 0.05
TRANSIT_S = 0.002
"""From a router to an engine, and back."""
BLIND_S = FRAME_S + 2 * TRANSIT_S
"""How long no other router knows of a request."""
MINUTE_S = 60.0
RESTART_S = 2.0
"""From the death of a router until another takes its place."""
PROMPT_BYTES = (200, 800, 3200)
ANSWER_TOKENS = 120
TOKEN_S = 0.02
FACTS = EngineFacts(
    engine="sim",
    routes=(CHAT,),
    kv_tokens=10**7,
    block_size=16,
    max_sequences=10_000,
    max_model_len=8192,
    model=MODEL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitScenario:
    """What comes, and how it is spread over the routers."""

    name: str
    routers: int
    shares: Sequence[float]
    """Each router's share of the requests."""
    kills: bool = False
    """The first router is killed in the middle, and replaced."""


SCENARIOS = (
    LimitScenario(name="1 router", routers=1, shares=(1.0,)),
    LimitScenario(name="2, even", routers=2, shares=(0.5, 0.5)),
    LimitScenario(name="2, skewed 9:1", routers=2, shares=(0.9, 0.1)),
    LimitScenario(name="4, even", routers=4, shares=(0.25,) * 4),
    LimitScenario(name="4, skewed 17:1:1:1", routers=4, shares=(0.85, 0.05, 0.05, 0.05)),
    LimitScenario(name="2, even, one killed", routers=2, shares=(0.5, 0.5), kills=True),
    LimitScenario(name="4, even, one killed", routers=4, shares=(0.25,) * 4, kills=True),
)


@dataclass(slots=True, eq=False)
class SentRequest:
    """A request that an engine has got."""

    router: "LimitedRouter"
    claim: Claim
    sending: AbstractContextManager[Dispatch]
    dispatch: Dispatch
    prompt_tokens: int
    answer_tokens: int
    reserved_tokens: int
    arrived_s: float = 0.0
    call: CallUsage | None = None
    taken_tokens: int = 0
    ended_s: float = 0.0
    is_over: bool = False


class LimitedEngine:
    """An engine that answers at a constant speed, and reports to all routers."""

    def __init__(self, name: str, timeline: Timeline) -> None:
        self.name = name
        self._timeline = timeline
        self._usage = UsageMeter(FACTS, lambda: None, timeline)
        self._finished: list[Finished] = []

    def accept(self, request: SentRequest) -> None:
        """Begin to answer."""
        request.arrived_s = self._timeline()
        request.call = self._usage.open_call(request.dispatch)
        answer_s = request.answer_tokens * TOKEN_S
        self._timeline.call_at(self._timeline() + answer_s, lambda: self.end(request))

    def end(self, request: SentRequest, *, is_aborted: bool = False) -> None:
        """End an answer: it is complete, or its router has died."""
        if request.is_over or request.call is None:
            return
        request.is_over = True
        request.ended_s = self._timeline()
        share = (self._timeline() - request.arrived_s) / (request.answer_tokens * TOKEN_S)
        answered = round(request.answer_tokens * min(1.0, share))
        request.taken_tokens = request.prompt_tokens + answered
        request.call.is_aborted = is_aborted
        request.call.add_tokens(request.prompt_tokens, 0, answered)
        self._usage.close_call(request.call)
        self._finished.append(
            Finished(
                id=request.dispatch.id,
                prompt_tokens=request.prompt_tokens,
                cached_tokens=0,
                completion_tokens=answered,
                prompt_bytes=request.dispatch.prompt_bytes,
                queue_s=0.0,
                prefill_s=0.0,
                decode_s=0.0,
                running=1.0,
                is_aborted=is_aborted,
            )
        )
        if not is_aborted:
            self._timeline.call_at(
                self._timeline() + TRANSIT_S, lambda: request.router.end(request)
            )

    def frame(self) -> Update:
        """What has changed since the last frame."""
        reserved, usage = self._usage.pop()
        finished, self._finished = self._finished, []
        return Update(
            accepted=[each.id for each in reserved],
            finished=finished,
            reserved=reserved,
            usage=usage,
        )

    def snapshot(self) -> Update:
        """All of it, for a new router."""
        usage = self._usage
        return Update(is_snapshot=True, reserved=usage.running, recent=usage.recent)


class LimitedRouter:
    """A router, without the network around it."""

    def __init__(self, timeline: Timeline, project: Project, rng: random.Random) -> None:
        self._timeline = timeline
        fleet = Fleet()
        model = ServedModel(MODEL, created_s=0)
        fleet.add(model)
        metadata = ReplicaMetadata(model=MODEL, host="127.0.0.1", port=1, key="none", facts=FACTS)
        replicas = [Replica(f"engine-{number}", metadata) for number in range(ENGINES)]
        fleet.replace_replicas(model, replicas)
        options = RouterOptions(clock=timeline, time_of_day=timeline, rng=rng)
        self.assembled: AssembledRouter = build_router(fleet, lambda *_: None, options=options)
        self.assembled.limits.replace([project])
        self._resolver = TargetResolver(fleet)
        self.scheduler = self.assembled.pools.of(model).scheduler
        self.running: dict[SentRequest, str] = {}

    def send(self, request: InferenceRequest, tokens: tuple[int, int]) -> tuple[str, SentRequest]:
        """Admit a request, or raise `RateLimited`; returns its engine.

        `tokens`: of its prompt and its answer, as the engine will find them.
        """
        target = self._resolver.target(request, MODEL)
        claim = self.assembled.limits.claim(target, self.scheduler)
        decision = self.scheduler.choose(target)
        reserved = claim.record_sending(decision.id, decision.cached_tokens)
        sending = self.scheduler.sending(decision, target, 1, reserved)
        dispatch = sending.__enter__()
        sent = SentRequest(self, claim, sending, dispatch, *tokens, reserved.tokens)
        self.running[sent] = decision.replica.id
        return decision.replica.id, sent

    def end(self, request: SentRequest) -> None:
        """Record that a client has its answer."""
        if self.running.pop(request, None) is not None:
            request.sending.__exit__(None, None, None)
            request.claim.record_ended()


@dataclass(slots=True)
class LimitResult:
    """What came of a scenario: the worst minute, against its limit."""

    scenario: str
    kind: str
    limit: int
    worst: int
    """Most in any minute, as the engines found it."""
    in_frame: int
    """Most that was offered within a frame and twice the transit: what nobody can know of."""
    underestimated: int
    """Tokens that answers had more than expected, of those that were not complete at the end of
    the worst minute, or just then."""
    share: float
    """Share of the limit that was used, in the whole minutes after the first."""

    @property
    def excess(self) -> int:
        """What was above the limit in the worst minute."""
        return max(0, self.worst - self.limit)

    @property
    def bound(self) -> int:
        """What may be above it."""
        return self.in_frame + self.underestimated


class LimitRun:
    """One scenario in virtual time; `offered_per_s`: requests that come, on average."""

    def __init__(
        self,
        scenario: LimitScenario,
        limit: RateLimit,
        offered_per_s: float,
        seconds: float,
        seed: int = 7,
    ) -> None:
        self._scenario = scenario
        self._limit = limit
        self._offered_per_s = offered_per_s
        self._seconds = seconds
        self._rng = random.Random(seed)  # noqa: S311 - the same requests every time
        self._timeline = Timeline()
        self._project = Project(id="proj", name="team", rate_limits=(limit,))
        self._engines = {
            name: LimitedEngine(name, self._timeline)
            for name in (f"engine-{number}" for number in range(ENGINES))
        }
        self._routers: list[LimitedRouter | None] = [
            self._router() for _ in range(scenario.routers)
        ]
        self._sent: list[SentRequest] = []
        self._offers: list[tuple[float, int]] = []
        """When each request came, and its tokens."""

    def run(self) -> LimitResult:
        """Run it to its end."""
        for number, name in enumerate(self._engines):
            first_s = FRAME_S * (number + 1) / ENGINES
            self._timeline.call_at(first_s, partial(self._publish, name))
        self._timeline.call_at(0.0, self._arrive)
        if self._scenario.kills:
            self._timeline.call_at(self._seconds / 2, self._kill)
        self._timeline.run()
        return self._result()

    def _router(self) -> LimitedRouter:
        seed = self._rng.random()
        rng = random.Random(seed)  # noqa: S311 - it breaks ties
        router = LimitedRouter(self._timeline, self._project, rng)
        for name, engine in self._engines.items():
            router.scheduler.record_update(name, engine.snapshot())
        return router

    def _arrive(self) -> None:
        now_s = self._timeline()
        if now_s >= self._seconds:
            return
        self._timeline.call_at(now_s + self._rng.expovariate(self._offered_per_s), self._arrive)
        (number,) = self._rng.choices(range(self._scenario.routers), self._scenario.shares)
        size = self._rng.choice(PROMPT_BYTES)
        prompt = round(size / 4 * self._rng.uniform(0.8, 1.25))
        answer = min(2000, 1 + round(self._rng.lognormvariate(0.0, 0.6) * ANSWER_TOKENS))
        self._offers.append((now_s, prompt + answer))
        router = self._routers[number] or next(filter(None, self._routers))
        try:
            request = _request(self._project, size, len(self._offers))
            engine, sent = router.send(request, (prompt, answer))
        except RateLimited:
            return
        self._sent.append(sent)
        self._timeline.call_at(now_s + TRANSIT_S, lambda: self._engines[engine].accept(sent))

    def _send_frame(self, name: str) -> None:
        update = self._engines[name].frame()
        for router in filter(None, self._routers):
            router.scheduler.record_update(name, update)

    def _publish(self, name: str) -> None:
        self._send_frame(name)
        if self._timeline() < self._seconds + MINUTE_S:
            self._timeline.call_at(self._timeline() + FRAME_S, lambda: self._publish(name))

    def _kill(self) -> None:
        dead, self._routers[0] = self._routers[0], None
        if dead is None:
            return
        for request, engine in dead.running.items():
            self._engines[engine].end(request, is_aborted=True)
        dead.running.clear()

        def restart() -> None:
            for name in self._engines:  # all others get first what a snapshot does not mark as sent
                self._send_frame(name)
            self._routers[0] = self._router()

        self._timeline.call_at(self._timeline() + RESTART_S, restart)

    def _result(self) -> LimitResult:
        is_requests = self._limit.requests_per_minute is not None
        limit = self._limit.requests_per_minute or self._limit.tokens_per_minute or 0
        taken = [(each.arrived_s, 1 if is_requests else each.taken_tokens) for each in self._sent]
        offers = [(at_s, 1 if is_requests else tokens) for at_s, tokens in self._offers]
        worst, end = worst_minute(taken)
        error = 0 if is_requests else self._unknown_tokens(self._sent[end].arrived_s)
        minutes = int(self._seconds / MINUTE_S) - 1
        until_s = MINUTE_S * (minutes + 1)
        return LimitResult(
            scenario=self._scenario.name,
            kind="requests" if is_requests else "tokens",
            limit=limit,
            worst=worst,
            in_frame=worst_minute(offers, BLIND_S)[0] if self._scenario.routers > 1 else 0,
            underestimated=error,
            share=sum(amount for at_s, amount in taken if MINUTE_S <= at_s < until_s)
            / (limit * minutes),
        )

    def _unknown_tokens(self, at_s: float) -> int:
        """Tokens above what was expected, of the requests that no router knew better at a time."""
        return sum(
            max(0, each.taken_tokens - each.reserved_tokens)
            for each in self._sent
            if each.arrived_s <= at_s < each.ended_s + BLIND_S
        )


def worst_minute(
    events: Sequence[tuple[float, int]], length_s: float = MINUTE_S
) -> tuple[int, int]:
    """Most within any such time, and the event that it ends with; events are in order of time."""
    total, first, best, best_end = 0, 0, 0, 0
    for end, (at_s, amount) in enumerate(events):
        total += amount
        while events[first][0] <= at_s - length_s:
            total -= events[first][1]
            first += 1
        if total > best:
            best, best_end = total, end
    return best, best_end


def _request(project: Project, size: int, number: int) -> InferenceRequest:
    """A request whose prompt shares nothing with others."""
    messages = [{"role": "user", "content": f"{number} ".ljust(size, "x")}]
    body = json.dumps({"model": MODEL, "messages": messages}).encode()
    identity = ClientIdentity(project=project, key="key")
    return InferenceRequest(head=parse_head(CHAT, body, b""), body=body, identity=identity)


def limits_of(kind: str, rate: int) -> RateLimit:
    """A limit of so many requests a minute, or of the tokens of so many average ones."""
    if kind == "requests":
        return RateLimit(requests_per_minute=rate)
    average = sum(PROMPT_BYTES) / len(PROMPT_BYTES) / 4 + ANSWER_TOKENS
    return RateLimit(tokens_per_minute=round(rate * average))


def main(
    rate: Annotated[int, typer.Option(min=1, help="Requests a minute that are allowed.")] = 1200,
    seconds: Annotated[float, typer.Option(min=120)] = 180,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Measure how far limits are exceeded, by the number of routers and how requests reach them."""
    results = [
        LimitRun(scenario, limits_of(kind, rate), 3 * rate / 60, seconds).run()
        for kind in ("requests", "tokens")
        for scenario in SCENARIOS
    ]
    table = Table(title=f"Three times the limit is offered, {seconds:g} s")
    for heading in ("limit", "routers", "most in a minute", "above", "bound", "% above", "% used"):
        table.add_column(heading, justify="left" if heading in {"limit", "routers"} else "right")
    for each in results:
        table.add_row(
            f"{each.limit:,} {each.kind}",
            each.scenario,
            f"{each.worst:,}",
            f"{each.excess:,}",
            f"{each.bound:,}",
            f"{100 * each.excess / each.limit:.2f}",
            f"{100 * each.share:.1f}",
        )
    Console(width=120).print(table)
    if json_file is not None:
        rows = [
            {"routers": each.scenario, "limit": each.kind, "above": each.excess} for each in results
        ]
        json_file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
