"""An engine's side of the telemetry: what its requests did to its cache and its load.

An engine tells its `EngineTracker` of every request: `arrive` when the prompt's length is known,
`start` with the first token, `finish` with the last. What routers have to hear is collected until
it is taken.
"""

from collections.abc import Callable, Sequence

from gateway.engine_telemetry.tracked_request import TrackedRequest, dispatched_prompt
from gateway.engine_telemetry.work_meter import WorkMeter
from gateway.kvcache.prefix_index import packed, packed_tokens
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.telemetry import AdapterState, Dispatch, EngineFacts, Finished, Load, Update

NO_DISPATCH = Dispatch(id=0)


class EngineTracker:
    """What one engine has to tell; `now` is its clock, in seconds.

    `waiting`: how many of the requests that arrived have not been started, where the engine knows.
    `free_tokens`: what of the KV cache no running request uses, where the engine knows.
    `holds_prefixes`: whether it keeps what it computed of prompts, for others that begin the same.
    """

    def __init__(
        self,
        facts: EngineFacts,
        now: Callable[[], float],
        waiting: Callable[[], int] = lambda: 0,
        free_tokens: Callable[[], int] | None = None,
        *,
        holds_prefixes: bool = True,
    ) -> None:
        self._facts = facts
        self._now = now
        self._waiting = waiting
        self._free_tokens = free_tokens or self._beside_prompts
        self.meter = WorkMeter(now)
        """How much work comes, and what it takes."""
        self._ledger = ShadowCache(facts.kv_tokens if holds_prefixes else 0)
        self._listeners: list[Callable[[], None]] = []
        self._tracked_requests: dict[TrackedRequest, None] = {}
        self._pending_tokens = 0
        self._used_tokens = 0
        self._work = 0.0
        self._work_until_s = self._progressed_s = now()
        self._running = 0
        """Since `_work_until_s`."""
        self._accepted: list[int] = []
        self._finished: list[Finished] = []
        self._told: Load | None = None
        self._adapters = AdapterState()
        self._told_adapters = self._adapters
        self._is_draining = self._is_known_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the engine takes no more requests."""
        return self._is_draining

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        waiting = min(self._waiting(), len(self._tracked_requests))
        return Load(
            running=len(self._tracked_requests) - waiting,
            waiting=waiting,
            pending_tokens=self._pending_tokens,
            # What the engine said last may be older than the end of all there was.
            free_tokens=self._free_tokens() if self._tracked_requests else self._facts.kv_tokens,
        )

    @property
    def backlog(self) -> tuple[int, int]:
        """Prompts that an interactive request finds before it, and their tokens to be computed."""
        passes = self._facts.takes_priority
        pending = [
            tracked.pending_tokens
            for tracked in self._tracked_requests
            if tracked.pending_tokens and not (passes and tracked.dispatch.is_batch)
        ]
        return len(pending), sum(pending)

    @property
    def stalled_s(self) -> float:
        """Seconds since the engine last got on with its work, while it has some."""
        return max(0.0, self._now() - self._progressed_s) if self._tracked_requests else 0.0

    def watch(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever there may be something to take."""
        self._listeners.append(listener)

    def unwatch(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more."""
        self._listeners.remove(listener)

    def notify(self) -> None:
        """Tell the listeners; for an engine whose number of waiting requests has changed."""
        self._count()
        self._tell()

    def progress(self) -> None:
        """The engine has got on with its work."""
        self._progressed_s = self._now()

    def arrive(self, dispatch: Dispatch | None, prompt_tokens: int) -> TrackedRequest:
        """A request has reached the engine; `dispatch` is None for one not sent by a router.

        Raises:
            ValueError: the dispatch's keys are none.
        """
        dispatch = dispatch or NO_DISPATCH
        self._count()
        holding = self._ledger.begin(dispatched_prompt(dispatch), prompt_tokens)
        tracked = TrackedRequest(dispatch, holding, prompt_tokens, self._now(), self._work)
        if not self._tracked_requests:
            self._progressed_s = tracked.arrived_s
        tracked.cached_tokens = min(round(holding.matched_tokens), prompt_tokens)
        tracked.pending_tokens = prompt_tokens - tracked.cached_tokens
        self._pending_tokens += tracked.pending_tokens
        self._used_tokens += prompt_tokens
        self.meter.arrive(tracked.pending_tokens)
        self._tracked_requests[tracked] = None
        if dispatch.id:
            self._accepted.append(dispatch.id)
        self._tell()
        return tracked

    def start(
        self,
        tracked: TrackedRequest,
        cached_tokens: int,
        scheduled_s: float | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """Its first token is there; the engine had `cached_tokens` of its prompt in its cache.

        `scheduled_s`: when the engine began with its prompt; on arrival, if not known.
        `first_token_s`: when it made the token, if that was before now.
        """
        if tracked not in self._tracked_requests or tracked.first_token_s is not None:
            return
        self._count()
        now_s = self._now()
        arrived_s = tracked.arrived_s
        first_s = now_s if first_token_s is None else min(max(first_token_s, arrived_s), now_s)
        tracked.first_token_s = first_s
        tracked.scheduled_s = (
            arrived_s if scheduled_s is None else min(max(scheduled_s, arrived_s), first_s)
        )
        # What has run since a token that we hear of late is a share of what has run since arrival.
        share = (first_s - arrived_s) / (now_s - arrived_s) if first_s < now_s else 1.0
        tracked.work_before += share * (self._work - tracked.work_before)
        self._progressed_s = now_s
        self.meter.prefill(tracked.prompt_tokens - cached_tokens, tracked.scheduled_s, first_s)
        self._settle(tracked, cached_tokens)
        self._tell()

    def finish(
        self,
        tracked: TrackedRequest,
        completion_tokens: int,
        replies: Sequence[bytes] = (),
        *,
        is_aborted: bool = False,
    ) -> None:
        """It has ended, or was aborted; `replies`: the text of each answer, or its token ids."""
        if tracked not in self._tracked_requests:
            return
        self._count()
        del self._tracked_requests[tracked]
        self._used_tokens -= tracked.prompt_tokens
        now_s = self._now()
        self._pending_tokens -= tracked.pending_tokens
        if tracked.first_token_s is None:
            queue_s = prefill_s = decode_s = 0.0
        else:
            scheduled_s = tracked.arrived_s if tracked.scheduled_s is None else tracked.scheduled_s
            queue_s = scheduled_s - tracked.arrived_s
            prefill_s = tracked.first_token_s - scheduled_s
            decode_s = now_s - tracked.first_token_s
            self.meter.serve(prefill_s + decode_s)
        if tracked.first_token_s is None and is_aborted:
            self._ledger.cancel(tracked.holding)
        else:
            self._ledger.end(tracked.holding, tracked.answers(completion_tokens, replies))
        running = (self._work - tracked.work_before) / decode_s if decode_s > 0 else 1.0
        self._finished.append(
            Finished(
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
        )
        self._tell()

    def pool(self, tracked: TrackedRequest, cached_tokens: int) -> None:
        """It has ended with a vector, or anything else that is not made of tokens."""
        if tracked in self._tracked_requests:
            self.progress()
            new_tokens = tracked.prompt_tokens - cached_tokens
            self.meter.prefill(new_tokens, tracked.arrived_s, self._now())
            self._settle(tracked, cached_tokens)
            self.finish(tracked, 0)

    def note_adapters(self, state: AdapterState) -> None:
        """The engine's adapters stand like this now."""
        self._adapters = state
        self.notify()

    def forget(self) -> None:
        """The engine has emptied its cache."""
        self._ledger.clear()
        self.notify()

    def drain(self) -> None:
        """The engine takes no more requests."""
        self._is_draining = True
        self.notify()

    def take(self) -> Update | None:
        """What has changed since the last call; None if nothing has."""
        load = self.load
        added, dropped = self._ledger.take_changes()
        update = Update(
            added=packed(added),
            added_tokens=packed_tokens(added.values()),
            dropped=packed(dropped),
            accepted=self._accepted,
            finished=self._finished,
            load=None if load == self._told else load,
            is_draining=self._is_draining,
            stalled_s=self.stalled_s,
            adapters=None if self._adapters == self._told_adapters else self._adapters,
        )
        is_news = update != Update(is_draining=self._is_known_draining, stalled_s=update.stalled_s)
        self._accepted, self._finished, self._told = [], [], load
        self._is_known_draining, self._told_adapters = self._is_draining, self._adapters
        return update if is_news else None

    def beat(self) -> Update:
        """What has changed since the last call of `take`, or that nothing has."""
        return self.take() or Update(is_draining=self._is_draining, stalled_s=self.stalled_s)

    def snapshot(self) -> Update:
        """All that a new listener has to know; `take` what has changed before, for the others."""
        held = self._ledger.held
        return Update(
            is_snapshot=True,
            added=packed(held),
            added_tokens=packed_tokens(held.values()),
            accepted=[
                tracked.dispatch.id for tracked in self._tracked_requests if tracked.dispatch.id
            ],
            load=self.load,
            is_draining=self._is_draining,
            stalled_s=self.stalled_s,
            adapters=self._adapters,
        )

    def _beside_prompts(self) -> int:
        return max(0, self._facts.kv_tokens - self._used_tokens)

    def _settle(self, tracked: TrackedRequest, cached_tokens: int) -> None:
        tracked.cached_tokens = cached_tokens
        self._pending_tokens -= tracked.pending_tokens
        tracked.pending_tokens = 0
        self._ledger.settle(tracked.holding, cached_tokens, max(self._facts.block_size, 1))

    def _count(self) -> None:
        now_s = self._now()
        self._work += self._running * (now_s - self._work_until_s)
        self._work_until_s = now_s

    def _tell(self) -> None:
        tracked_requests = len(self._tracked_requests)
        self._running = tracked_requests - min(self._waiting(), tracked_requests)
        for listener in self._listeners:
            listener()
