"""Lines are handed out lane by lane, and wait for what they share to be in the cache."""

from gateway.batch.line_feed import LARGE_BYTES, LineFeed, LineTry
from gateway.batch.line_plan import LinePlace, LinePlan
from gateway.batch.line_set import LineSet

LARGE = {1, 4}
"""Lines that begin a group."""


def _feed(lines: int = 6, done: int = 0) -> LineFeed:
    places = [LinePlace(n, 0, 1, LARGE_BYTES if n in LARGE else 1) for n in range(1, lines + 1)]
    lines_done = LineSet(lines)
    lines_done.update(range(1, done + 1))
    return LineFeed(LinePlan.of(places), lines_done)


def _all(feed: LineFeed, now_s: float = 0.0) -> list[LineTry]:
    found = []
    while (line := feed.next(now_s)) is not None:
        found.append(line)
    return found


def _numbers(lines: list[LineTry]) -> list[int]:
    return [line.place.number for line in lines]


def test_lines_wait_for_the_prompt_that_they_share() -> None:
    """Once the first of a group is done, the others follow; another group need not wait."""
    feed = _feed()

    first = _all(feed)
    feed.end(first[0])
    then = _all(feed)
    feed.end(then[-1])

    assert _numbers(first) == [1]
    assert _numbers(then) == [2, 3, 4]
    assert _numbers(_all(feed)) == [5, 6]


def test_lanes_run_side_by_side() -> None:
    """Each from a place of its own; what a lane held is not lost when it ends."""
    feed = _feed()
    feed.use_lanes(2)

    first = _all(feed)
    feed.use_lanes(1)
    for line in first:
        feed.end(line)
    rest: list[int] = []
    while lines := _all(feed):
        rest += _numbers(lines)
        for line in lines:
            feed.end(line)

    assert {line.lane for line in first} == {0, 1}
    assert sorted([*_numbers(first), *rest]) == [1, 2, 3, 4, 5, 6]


def test_a_line_is_tried_again_at_its_time() -> None:
    """Before all that have not been tried."""
    feed = _feed(done=4)
    (line, _) = _all(feed)
    feed.end(line)

    feed.try_again(line, 5.0)

    assert feed.retry_s == 5.0
    assert _all(feed, 4.0) == []
    assert _all(feed, 5.0) == [line]
