"""Tokens of the requests that a replica has finished lately."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.recent_tokens import WINDOW_S, FinishedTokens, RecentTokens
from gateway.telemetry.update import Finished


def finished(prompt: int, cached: int, completion: int) -> Finished:
    """Report of one request."""
    return Finished(
        id=1,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        prompt_bytes=0,
        queue_s=0,
        prefill_s=0,
        decode_s=0,
        running=1,
    )


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_sums_are_those_of_the_last_seconds(events: list[tuple[float, int, int]]) -> None:
    """As if all reports were kept and looked through each time."""
    recent, seen = RecentTokens(), []
    for now_s, prompt, completion in sorted(events):
        recent.record(finished(prompt, prompt // 2, completion), now_s)
        seen.append((int(now_s), prompt, prompt // 2, completion))
        kept = [each for each in seen if each[0] > int(now_s) - WINDOW_S]

        assert recent.sums(now_s) == FinishedTokens(
            len(kept), *(sum(each[i] for each in kept) for i in (1, 2, 3))
        )


def test_an_idle_replica_has_none() -> None:
    """What is older than the window does not count."""
    recent = RecentTokens()
    recent.record(finished(10, 4, 7), 100.5)

    assert recent.sums(100.0 + WINDOW_S - 1).completion_tokens == 7
    assert recent.sums(100.0 + WINDOW_S) == FinishedTokens()
