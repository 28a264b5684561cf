"""Requests at an engine, and the sums over them that its load is made of."""

from collections.abc import Iterator

from gateway.engine_telemetry.tracked_request import TrackedRequest


class TrackedRequests:
    """Requests that have not ended, in the order of their arrival; O(1) for each event of one."""

    def __init__(self) -> None:
        self._requests: dict[TrackedRequest, None] = {}
        self.prompt_tokens = 0
        """Tokens of all their prompts."""
        self.pending_tokens = 0
        """Of these, those still to be computed."""
        self.sequences = 0
        """Sequences of all requests."""
        self.further_sequences = 0
        """Of these, those that are not the first of their requests."""
        self.pending_sequences = 0
        """Sequences of requests without a first token."""
        self.unstarted = 0
        """Requests of routers without a first token."""

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[TrackedRequest]:
        return iter(self._requests)

    def __contains__(self, tracked: TrackedRequest) -> bool:
        return tracked in self._requests

    def add(self, tracked: TrackedRequest) -> None:
        """Count a request that has arrived."""
        self._requests[tracked] = None
        self.prompt_tokens += tracked.prompt_tokens
        self.pending_tokens += tracked.pending_tokens
        self.sequences += tracked.sequences
        self.further_sequences += tracked.further_sequences
        self.pending_sequences += tracked.sequences
        self.unstarted += bool(tracked.dispatch.id)

    def start(self, tracked: TrackedRequest, first_token_s: float) -> None:
        """Record a request's first token."""
        tracked.first_token_s = first_token_s
        self.pending_sequences -= tracked.sequences
        self.unstarted -= bool(tracked.dispatch.id)

    def settle_prefill(self, tracked: TrackedRequest, cached_tokens: int) -> None:
        """Record that a request's prompt has been computed, but for its cached tokens."""
        tracked.cached_tokens = cached_tokens
        self.pending_tokens -= tracked.pending_tokens
        tracked.pending_tokens = 0

    def remove(self, tracked: TrackedRequest) -> None:
        """Stop counting a request."""
        del self._requests[tracked]
        self.prompt_tokens -= tracked.prompt_tokens
        self.pending_tokens -= tracked.pending_tokens
        self.sequences -= tracked.sequences
        self.further_sequences -= tracked.further_sequences
        if tracked.first_token_s is None:
            self.pending_sequences -= tracked.sequences
            self.unstarted -= bool(tracked.dispatch.id)

    def pending_after(self, tracked: TrackedRequest, *, has_priorities: bool) -> int:
        """Requests without a first token that the engine starts after a request; O(n).

        Those came later, or have a lower priority where the engine goes by that.
        """
        later, is_later = 0, False
        own = tracked.priority if has_priorities else 0
        for each in self._requests:
            priority = each.priority if has_priorities else 0
            is_after = priority > own or (priority == own and is_later)
            later += is_after and each.first_token_s is None
            is_later = is_later or each is tracked
        return later
