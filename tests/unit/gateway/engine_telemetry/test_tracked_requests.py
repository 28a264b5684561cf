"""Requests at an engine, and the sums over them."""

import random

from gateway.engine_telemetry.tracked_request import TrackedRequest, dispatched_prompt
from gateway.engine_telemetry.tracked_requests import TrackedRequests
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.telemetry.dispatch import Dispatch


def request(number: int, prompt_tokens: int = 10, sequences: int = 1) -> TrackedRequest:
    """A request that has just arrived; with number 0, none that a router sent."""
    dispatch = Dispatch(id=number)
    prompt = ShadowCache(0).record_arrival(dispatched_prompt(dispatch), prompt_tokens)
    tracked = TrackedRequest(dispatch, prompt, prompt_tokens, 0.0, 0.0, sequences=sequences)
    tracked.pending_tokens = prompt_tokens
    return tracked


def test_sums_are_those_of_the_requests_that_have_not_ended() -> None:
    """Whatever order they start and end in."""
    rng = random.Random(1)  # noqa: S311 - a test, not secrets
    requests = TrackedRequests()
    for number in range(300):
        requests.add(request(number % 3, rng.randint(0, 9), rng.randint(1, 4)))
        tracked = rng.choice(list(requests))
        if rng.random() < 0.5 and tracked.first_token_s is None:
            requests.start(tracked, 1.0)
            requests.settle_prefill(tracked, 3)
        if rng.random() < 0.5:
            requests.remove(rng.choice(list(requests)))
        waiting = [each for each in requests if each.first_token_s is None]
        assert requests.prompt_tokens == sum(each.prompt_tokens for each in requests)
        assert requests.pending_tokens == sum(each.prompt_tokens for each in waiting)
        assert requests.sequences == sum(each.sequences for each in requests)
        assert requests.further_sequences == sum(each.further_sequences for each in requests)
        assert requests.pending_sequences == sum(each.sequences for each in waiting)
        assert requests.unstarted == sum(bool(each.dispatch.id) for each in waiting)


def test_only_later_requests_without_a_token_come_after_one() -> None:
    """Those that have started do not count, nor do earlier ones."""
    requests = TrackedRequests()
    first, second, third, fourth = map(request, (1, 2, 3, 4))
    for each in (first, second, third, fourth):
        requests.add(each)
    requests.start(third, 1.0)

    assert requests.pending_after(second, has_priorities=False) == 1
    assert requests.pending_after(fourth, has_priorities=False) == 0
