"""Tracks an engine's requests and collects what routers must know: cache, load, finished requests.

One tracker runs in each engine process. The engine feeds it, the replica's HTTP server reads it.
"""

import time
from collections.abc import Callable, Sequence

from gateway.engine_telemetry.router_demand import RouterDemand
from gateway.engine_telemetry.tracked_request import TrackedRequest, dispatched_prompt
from gateway.engine_telemetry.tracked_requests import TrackedRequests
from gateway.engine_telemetry.unsent_changes import UnsentChanges
from gateway.engine_telemetry.usage_meter import CallUsage, UsageMeter
from gateway.engine_telemetry.work_meter import WorkMeter
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.telemetry.demand import Demand
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.update import AdapterState, Finished, Load, Update

NO_DISPATCH = Dispatch(id=0)


class EngineTracker:
    """State of one engine's requests, and the changes that routers have not been sent yet.

    Every kind of engine must feed its tracker, all from one thread:

    - `record_arrival` when a request has reached it and the length of its prompt is known;
    - `record_first_token` at a request's first token;
    - `record_finished` at its last token, and also if it is aborted or fails at any time before;
    - `record_pooled` instead of these two, for a request without tokens (an embedding);
    - `record_progress` whenever a step has ended, so that an engine that is stuck is noticed, and
      `record_ping` when it has been asked for a sign of life;
    - `record_load_change` when `waiting` or `free_tokens` give another value than before;
    - `record_adapters` when LoRA adapters are loaded, evicted or found to be broken;
    - `record_cache_reset` when it has emptied its prefix cache;
    - `record_draining` when it accepts no more requests.

    The server tells `usage` of every HTTP call; its parts name their call at `record_arrival`.

    The server sends each new router a `snapshot`. It sends all routers what `pop_update` returns
    whenever a listener is called, or what `heartbeat` returns if nothing has changed for a while.

    `now`: the engine's clock, in seconds.
    `waiting`: number of requests that arrived but are not scheduled yet, if the engine knows.
    `free_tokens`: tokens of the KV cache that no running request uses, if the engine knows.
    `holds_prefixes`: whether the engine has a prefix cache.
    `time_of_day`: seconds since the epoch.
    """

    def __init__(
        self,
        facts: EngineFacts,
        now: Callable[[], float],
        waiting: Callable[[], int] = lambda: 0,
        free_tokens: Callable[[], int] | None = None,
        *,
        holds_prefixes: bool = True,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._facts = facts
        self._now = now
        self._waiting = waiting
        self._free_tokens = free_tokens or self._tokens_beside_prompts
        self.meter = WorkMeter(now)
        """Rate of arriving work, and its cost."""
        self.router_demand = RouterDemand(now)
        """Requests that routers hold back for the engine."""
        self.usage = UsageMeter(facts, self._call_listeners, time_of_day)
        """What the calls of projects take of the engine."""
        self._shadow_cache = ShadowCache(facts.kv_tokens if holds_prefixes else 0)
        self._listeners: list[Callable[[], None]] = []
        self._requests = TrackedRequests()
        self._unsent = UnsentChanges(self._shadow_cache, self.usage, self.router_demand)
        self._request_s = 0.0
        """Time integral of the number of running requests, until `_integrated_until_s`."""
        self._integrated_until_s = self._progressed_s = now()
        self._running = 0
        """Number of running requests since `_integrated_until_s`."""
        self._is_pinged = False

    @property
    def is_draining(self) -> bool:
        """Whether the engine accepts no more requests."""
        return self._unsent.is_draining

    @property
    def load(self) -> Load:
        """Current load of the engine."""
        sequences = self._requests.sequences
        waiting = min(self._waiting(), sequences)
        return Load(
            running=sequences - waiting,
            waiting=waiting,
            yielding=self._yielding(waiting),
            pending_tokens=self._requests.pending_tokens,
            # The engine's own count may be older than the end of its last request.
            free_tokens=self._free_tokens() if self._requests else self._facts.kv_tokens,
        )

    @property
    def prefill_backlog(self) -> tuple[int, int]:
        """Prompts ahead of a new interactive request, and their tokens still to be computed."""
        passes = self._facts.supports_priority
        pending = [
            tracked.pending_tokens
            for tracked in self._requests
            if tracked.pending_tokens and not (passes and tracked.dispatch.is_batch)
        ]
        return len(pending), sum(pending)

    @property
    def stalled_s(self) -> float:
        """Seconds since the engine last made progress; 0 if it has no work, not even a ping."""
        has_work = self._requests or self._is_pinged
        return max(0.0, self._now() - self._progressed_s) if has_work else 0.0

    @property
    def has_requests(self) -> bool:
        """Whether the engine has requests."""
        return bool(self._requests)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever there may be an update to send."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def record_demand(self, demand: Demand) -> None:
        """Record what a router holds back for the engine; other routers learn it by project."""
        self.router_demand.record(demand)
        if self.router_demand.has_changes:
            self._call_listeners()

    def record_load_change(self) -> None:
        """Record that the number of waiting requests or of free tokens has changed."""
        self._integrate_running()
        self._call_listeners()

    def record_progress(self) -> None:
        """Record that the engine has made progress."""
        self._progressed_s = self._now()
        self._is_pinged = False

    def record_ping(self) -> None:
        """Record that the engine has been asked for a sign of life: work until its progress."""
        if not (self._requests or self._is_pinged):
            self._progressed_s = self._now()
        self._is_pinged = True

    def record_arrival(
        self,
        dispatch: Dispatch | None,
        prompt_tokens: int,
        sequences: int = 1,
        *,
        call: CallUsage | None = None,
        is_same_prompt: bool = False,
    ) -> TrackedRequest:
        """Record a request that has reached the engine.

        `dispatch`: None if it is a further part of a request that a router sent, or if no router
        sent it. `sequences`: its answers. `call`: the HTTP call whose part it is. `is_same_prompt`:
        another part of that call has the same prompt.

        Raises:
            ValueError: the dispatch's keys are invalid.
        """
        dispatch = dispatch or NO_DISPATCH
        self._integrate_running()
        cached_prompt = self._shadow_cache.record_arrival(
            dispatched_prompt(dispatch), prompt_tokens
        )
        tracked = TrackedRequest(
            *(dispatch, cached_prompt, prompt_tokens, self._now(), self._request_s),
            sequences=sequences,
            call=call,
            is_same_prompt=is_same_prompt,
        )
        if call is not None:
            self.usage.begin_part(call)
        if not (self._requests or self._is_pinged):
            self._progressed_s = tracked.arrived_s
        tracked.cached_tokens = min(round(cached_prompt.matched_tokens), prompt_tokens)
        tracked.pending_tokens = prompt_tokens - tracked.cached_tokens
        self.meter.record_arrival(tracked.pending_tokens)
        self._requests.add(tracked)
        if dispatch.id:
            self._unsent.accepted.append(dispatch.id)
        self._call_listeners()
        return tracked

    def record_first_token(
        self,
        tracked: TrackedRequest,
        cached_tokens: int,
        scheduled_s: float | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """Record a request's first token.

        `cached_tokens`: prompt tokens that the engine found in its cache.
        `scheduled_s`: when the engine began to compute the prompt; by default, on arrival.
        `first_token_s`: when the token was generated, if that was before now.
        """
        if tracked not in self._requests or tracked.first_token_s is not None:
            return
        self._integrate_running()
        now_s = self._now()
        arrived_s = tracked.arrived_s
        first_s = now_s if first_token_s is None else min(max(first_token_s, arrived_s), now_s)
        self._requests.start(tracked, first_s)
        tracked.scheduled_s = (
            arrived_s if scheduled_s is None else min(max(scheduled_s, arrived_s), first_s)
        )
        # For a token reported late, the integral is interpolated between arrival and now.
        share = (first_s - arrived_s) / (now_s - arrived_s) if first_s < now_s else 1.0
        tracked.request_s_before += share * (self._request_s - tracked.request_s_before)
        self._progressed_s = now_s
        new_tokens = tracked.prompt_tokens - cached_tokens
        self.meter.record_prefill(new_tokens, tracked.scheduled_s, first_s)
        self._take_prefill(tracked, new_tokens)
        self._settle_prefill(tracked, cached_tokens)
        self._call_listeners()

    def record_finished(
        self,
        tracked: TrackedRequest,
        completion_tokens: int,
        replies: Sequence[bytes] = (),
        *,
        is_aborted: bool = False,
    ) -> None:
        """Record the end of a request, complete or aborted.

        `replies`: the text of each answer, or its token ids.
        """
        if tracked not in self._requests:
            return
        self._integrate_running()
        is_computed = self._is_computed(tracked, is_aborted=is_aborted)
        self._requests.remove(tracked)
        if tracked.first_token_s is None and is_aborted:
            self._shadow_cache.record_cancellation(tracked.cached_prompt)
        else:
            answers = tracked.answers(completion_tokens, replies)
            self._shadow_cache.record_end(tracked.cached_prompt, answers)
        finished = self._finished_request(tracked, completion_tokens, is_aborted=is_aborted)
        self._unsent.finished.append(finished)
        if tracked.call is not None:
            tracked.call.add_times(
                finished.queue_s, finished.prefill_s, finished.decode_s, self._busy_s(tracked)
            )
            has_prompt = is_computed and not tracked.is_same_prompt
            tracked.call.add_tokens(
                tracked.prompt_tokens * has_prompt,
                tracked.cached_tokens * has_prompt,
                completion_tokens,
            )
            self.usage.end_part(tracked.call, is_aborted=is_aborted)
        if not self._requests:
            self.usage.device_time.discard_prefill()
        self._call_listeners()

    def record_pooled(self, tracked: TrackedRequest, cached_tokens: int) -> None:
        """Record the end of a request whose result is not made of tokens, such as an embedding."""
        if tracked in self._requests:
            self.record_progress()
            new_tokens = tracked.prompt_tokens - cached_tokens
            self.meter.record_prefill(new_tokens, tracked.arrived_s, self._now())
            self._integrate_running()
            self._take_prefill(tracked, new_tokens)
            self._settle_prefill(tracked, cached_tokens)
            self.record_finished(tracked, 0)

    def record_adapters(self, state: AdapterState) -> None:
        """Record the current state of the engine's adapters."""
        self._unsent.adapters = state
        self.record_load_change()

    def record_cache_reset(self) -> None:
        """Record that the engine has emptied its cache."""
        self._shadow_cache.clear()
        self.record_load_change()

    def record_draining(self) -> None:
        """Record that the engine accepts no more requests."""
        self._unsent.is_draining = True
        self.record_load_change()

    def pop_update(self) -> Update | None:
        """Return what has changed since the last call; None if nothing has."""
        return self._unsent.pop(self.load, self.stalled_s)

    def heartbeat(self) -> Update:
        """Return what has changed since the last update, or an empty update: a sign of life."""
        return self.pop_update() or Update(is_draining=self.is_draining, stalled_s=self.stalled_s)

    def snapshot(self) -> Update:
        """Return the whole state, for a new router.

        Send the other routers what `pop_update` returns first: a snapshot does not mark it as sent.
        """
        accepted = [tracked.dispatch.id for tracked in self._requests if tracked.dispatch.id]
        return self._unsent.snapshot(self.load, self.stalled_s, accepted)

    def _yielding(self, waiting: int) -> int:
        """Waiting sequences that let new requests pass, by their priority."""
        further = self._requests.further_sequences
        if not (further and self._facts.supports_priority):
            return 0
        return min(further, max(0, waiting - self._requests.unstarted))

    def _tokens_beside_prompts(self) -> int:
        return max(0, self._facts.kv_tokens - self._requests.prompt_tokens)

    def _settle_prefill(self, tracked: TrackedRequest, cached_tokens: int) -> None:
        self._requests.settle_prefill(tracked, cached_tokens)
        block_size = max(self._facts.block_size, 1)
        self._shadow_cache.record_prefill(tracked.cached_prompt, cached_tokens, block_size)

    def _take_prefill(self, tracked: TrackedRequest, new_tokens: int) -> None:
        """Give a request its share of the time that prompts have taken; before it is settled."""
        pending_tokens = self._requests.pending_tokens - tracked.pending_tokens + new_tokens
        expected_s = new_tokens * self.meter.prefill_s
        share_s = self.usage.device_time.take_prefill(new_tokens, pending_tokens, expected_s)
        tracked.prefill_busy_s = share_s
        tracked.decode_s_before = self.usage.device_time.decode_s

    def _is_computed(self, tracked: TrackedRequest, *, is_aborted: bool) -> bool:
        """Whether the engine has computed a request's prompt, or some of it.

        One that ends without a token has been computed if no more requests wait than the engine
        would start after it: those that came later, or have a lower priority.
        """
        if tracked.first_token_s is not None or not is_aborted:
            return True
        later = self._requests.pending_after(tracked, has_priorities=self._facts.supports_priority)
        is_computed = self._waiting() <= later
        if is_computed and tracked.call is not None:
            self._take_prefill(tracked, tracked.pending_tokens)
        return is_computed

    def _finished_request(
        self, tracked: TrackedRequest, completion_tokens: int, *, is_aborted: bool
    ) -> Finished:
        queue_s = prefill_s = decode_s = 0.0
        if tracked.first_token_s is not None:
            scheduled_s = tracked.arrived_s if tracked.scheduled_s is None else tracked.scheduled_s
            queue_s = scheduled_s - tracked.arrived_s
            prefill_s = tracked.first_token_s - scheduled_s
            decode_s = self._now() - tracked.first_token_s
            self.meter.record_service_time(prefill_s + decode_s)
        running = (self._request_s - tracked.request_s_before) / decode_s if decode_s > 0 else 1.0
        return Finished(
            id=tracked.dispatch.id,
            prompt_tokens=tracked.prompt_tokens,
            cached_tokens=tracked.cached_tokens,
            completion_tokens=completion_tokens,
            prompt_bytes=tracked.text_bytes,
            queue_s=queue_s,
            prefill_s=prefill_s,
            decode_s=decode_s,
            running=max(1.0, running),
            is_aborted=is_aborted,
        )

    def _busy_s(self, tracked: TrackedRequest) -> float:
        if tracked.first_token_s is None:
            return tracked.prefill_busy_s
        decode_s = self.usage.device_time.decode_s - tracked.decode_s_before
        return tracked.prefill_busy_s + tracked.sequences * decode_s

    def _integrate_running(self) -> None:
        now_s = self._now()
        self.usage.device_time.advance(now_s)
        self._request_s += self._running * (now_s - self._integrated_until_s)
        self._integrated_until_s = now_s

    def _call_listeners(self) -> None:
        requests = self._requests
        waiting = min(self._waiting(), requests.sequences)
        self._running = requests.sequences - waiting
        is_computing = requests.pending_sequences > waiting
        self.usage.device_time.set_work(
            requests.pending_tokens if is_computing else 0,
            requests.sequences - requests.pending_sequences,
        )
        for listener in self._listeners:
            listener()
