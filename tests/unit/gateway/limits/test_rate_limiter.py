"""Tests of the rate limiter."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.limits import RateLimited
from gateway.identity.project import Project, RateLimit
from gateway.ledger.view import MinuteUsage
from gateway.limits.hold import Hold
from gateway.limits.rate_limiter import RateLimiter
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import RecentUse, Reservation, UsageRecord
from tests.unit.conftest import Clock


def team(*limits: RateLimit) -> Project:
    """A project with these limits."""
    return Project(id="proj_a", name="team-a", rate_limits=limits)


def taken(id_: int, tokens: int, *, attempt: int = 1, is_continuation: bool = False) -> UsageRecord:
    """The usage of a request with so many tokens, and ten cached ones."""
    origin = Origin(project="proj_a", attempt=attempt, is_continuation=is_continuation)
    return UsageRecord(
        epoch=1,
        seq=id_,
        id=id_,
        origin=origin,
        model="m",
        arrived_s=0,
        ended_s=0,
        prompt_tokens=10 + tokens // 2,
        cached_tokens=10,
        completion_tokens=tokens - tokens // 2,
    )


def reserved(id_: int, tokens: int, *, attempt: int = 1, is_copy: bool = False) -> Reservation:
    """A request as its engine reports it."""
    return Reservation(
        id=id_,
        project="proj_a",
        key="k",
        model="m",
        tokens=tokens,
        is_counted=attempt > 1,
        is_copy=is_copy,
    )


class Bench:
    """A router's limits, and the requests that come to it."""

    def __init__(self, *limits: RateLimit) -> None:
        self.clock = Clock()
        self.limiter = RateLimiter(self.clock)
        self.project = team(*limits)
        self.limiter.replace([self.project])
        self.last_id = 0

    def ask(self, tokens: int = 10, *, model: str = "m", key: str = "k") -> Hold:
        """Admit a request, or raise."""
        meters = self.limiter.meters_of(self.project, model, key)
        hold = self.limiter.admit(meters, model, tokens, tokens // 2)
        hold.begin()
        return hold

    def admitted(self, tokens: int = 10) -> Hold:
        """Admit a request that does not wait, or raise."""
        meters = self.limiter.meters_of(self.project, "m", "k")
        return self.limiter.admit(meters, "m", tokens, tokens // 2)

    def send(self, hold: Hold, tokens: int = 10) -> int:
        """Send an attempt; returns its id."""
        self.last_id += 1
        self.limiter.record_sending(self.last_id, hold, tokens)
        self.limiter.record_reserved(reserved(self.last_id, tokens))
        return self.last_id

    def run(self, tokens: int = 10) -> None:
        """Have a request answered as expected."""
        hold = self.ask(tokens)
        id_ = self.send(hold, tokens)
        self.limiter.record_ended(hold)
        self.limiter.record_settled([(reserved(id_, tokens), taken(id_, tokens))])

    @property
    def used(self) -> list[tuple[int, int, int]]:
        """Requests, tokens and running requests of every meter."""
        return [(m.used_requests, m.used_tokens, m.running) for m in self.limiter.meters]


def test_requests_beyond_the_limit_of_a_minute_wait_until_one_has_left() -> None:
    """The error says how much there is, how much is used, and when to try again."""
    bench = Bench(RateLimit(requests_per_minute=2))
    bench.run()
    bench.clock.now_s += 20
    bench.run()
    bench.clock.now_s += 10
    with pytest.raises(RateLimited) as refused:
        bench.ask()
    assert str(refused.value) == (
        "Rate limit reached for m in project team-a on requests per min (RPM): Limit 2, Used 2,"
        " Requested 1. Please try again in 30s."
    )
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")
    assert refused.value.headers == [(b"retry-after", b"30"), (b"retry-after-ms", b"30000")]
    bench.clock.now_s += 30
    bench.run()


def test_tokens_beyond_the_limit_wait_until_enough_have_left() -> None:
    """Tokens that a request is expected to take count from its admission on."""
    bench = Bench(RateLimit(tokens_per_minute=100))
    bench.run(30)
    bench.clock.now_s += 15
    bench.ask(60)
    with pytest.raises(RateLimited, match=r"\(TPM\): Limit 100, Used 90, Requested 40.*in 45s"):
        bench.ask(40)


def test_a_request_that_is_too_large_by_itself_is_not_to_be_repeated() -> None:
    """The prompt alone is above the limit; an answer that may be shorter is no reason."""
    bench = Bench(RateLimit(tokens_per_minute=100))
    bench.ask(150)
    with pytest.raises(RateLimited, match=r"too large.* Limit 100, Requested 110") as refused:
        bench.ask(220)
    assert refused.value.headers == [(b"x-should-retry", b"false")]


def test_requests_at_a_time_are_limited() -> None:
    """The next one may start when one has ended, even if its usage is not known yet."""
    bench = Bench(RateLimit(concurrent_requests=1))
    hold = bench.ask()
    bench.send(hold)
    with pytest.raises(RateLimited, match="concurrent requests: Limit 1, Used 1"):
        bench.ask()
    bench.limiter.record_ended(hold)
    bench.ask()


def test_a_request_counts_against_the_limits_of_its_model_and_key_alone() -> None:
    """Limits of another model, or of another key, do not count it."""
    bench = Bench(
        RateLimit(requests_per_minute=9),
        RateLimit(model="m", requests_per_minute=3),
        RateLimit(model="other", requests_per_minute=3),
        RateLimit(key="k", requests_per_minute=3),
        RateLimit(model="m", key="other", requests_per_minute=3),
    )
    bench.ask()
    bench.ask(model="unknown", key="unknown")
    counted = {meter.scope: meter.used_requests for meter in bench.limiter.meters}
    expected = {(None, None): 2, ("m", None): 1, (None, "k"): 1}
    assert counted == {("other", None): 0, ("m", "other"): 0, **expected}


def test_requests_of_other_routers_count_once_their_engine_reports_them() -> None:
    """So does what they really took; copies and further attempts are no requests."""
    bench = Bench(RateLimit(requests_per_minute=2, tokens_per_minute=100))
    for each in (reserved(7, 50), reserved(7, 50), reserved(8, 5, is_copy=True)):
        bench.limiter.record_reserved(each)
    assert bench.used == [(1, 50, 1)]
    bench.limiter.record_settled([(reserved(7, 50), taken(7, 20))])
    bench.limiter.record_reserved(reserved(9, 30, attempt=2))
    assert bench.used == [(1, 50, 1)]
    bench.limiter.record_settled([(reserved(9, 30), None)])
    assert bench.used == [(1, 50, 0)]


def test_what_was_never_sent_does_not_count() -> None:
    """A request that was shed, or whose client left the queue, gives back all it held."""
    bench = Bench(RateLimit(requests_per_minute=1))
    for _ in range(3):
        hold = bench.ask()
        assert bench.used == [(1, 10, 1)]
        bench.limiter.record_ended(hold)
        bench.limiter.record_ended(hold)
    assert bench.used == [(0, 0, 0)]


def test_a_request_that_does_not_wait_counts_once_it_is_sent() -> None:
    """One that waits holds its place from then on; one that is turned away counts nothing."""
    bench = Bench(RateLimit(requests_per_minute=9, tokens_per_minute=100))
    sent, waiting, turned_away = (bench.admitted() for _ in range(3))
    assert bench.used == [(0, 0, 0)]
    waiting.begin()
    waiting.begin()
    bench.send(sent, 8)
    sent.begin()
    bench.limiter.record_ended(turned_away)
    assert bench.used == [(2, 18, 2)]
    bench.send(waiting, 8)
    assert bench.used == [(2, 16, 2)]
    for each in (sent, waiting):
        bench.limiter.record_ended(each)
    assert bench.used == [(2, 16, 0)]


def test_a_request_in_a_queue_holds_its_place_however_long_it_waits() -> None:
    """Its minute begins when it is sent, as at all other routers."""
    bench = Bench(RateLimit(requests_per_minute=1))
    hold = bench.ask()
    bench.clock.now_s += 100
    with pytest.raises(RateLimited):
        bench.ask()
    bench.send(hold)
    bench.clock.now_s += 59
    with pytest.raises(RateLimited):
        bench.ask()
    bench.clock.now_s += 2
    bench.ask()


def test_a_request_that_has_waited_is_checked_against_what_others_have_sent() -> None:
    """Other routers do not know of requests in this one's queue, so the last look counts."""
    bench = Bench(RateLimit(requests_per_minute=3, concurrent_requests=3))
    first, second, third = bench.ask(), bench.ask(), bench.ask()
    bench.limiter.record_reserved(reserved(50, 10))
    bench.limiter.check_again(first, "m")
    bench.send(first)
    bench.limiter.check_again(second, "m")
    bench.send(second)
    bench.limiter.check_again(second, "m")
    with pytest.raises(RateLimited, match="Limit 3, Used 4"):
        bench.limiter.check_again(third, "m")


def test_a_refused_request_costs_no_tokens() -> None:
    """It has been a request, though: clients must not try at will."""
    bench = Bench(RateLimit(tokens_per_minute=100))
    hold = bench.ask()
    bench.limiter.record_refused(bench.send(hold))
    bench.limiter.record_ended(hold)
    assert bench.used == [(1, 0, 0)]


def test_retries_count_as_one_request_and_resumed_parts_add_up() -> None:
    """A failed attempt that began anew does not add to the one that was answered."""
    bench = Bench(RateLimit(tokens_per_minute=1000))
    hold = bench.ask()
    first, second, third = bench.send(hold), bench.send(hold), bench.send(hold)
    bench.limiter.record_settled([(reserved(first, 10), taken(first, 30))])
    bench.limiter.record_ended(hold)
    rest = taken(third, 7, attempt=3, is_continuation=True)
    bench.limiter.record_settled([(reserved(third, 10), rest)])
    bench.limiter.record_settled([(reserved(second, 10), taken(second, 40, attempt=2))])
    assert bench.used == [(1, 47, 0)]


def test_what_nobody_knows_counts_as_expected() -> None:
    """The engine has died, so the tokens stay as they were reserved."""
    bench = Bench(RateLimit(tokens_per_minute=1000))
    hold = bench.ask(80)
    id_ = bench.send(hold, 80)
    bench.limiter.record_ended(hold)
    bench.limiter.record_settled([(reserved(id_, 80), None)])
    assert bench.used == [(1, 80, 0)]


def test_what_goes_beyond_a_limit_is_counted() -> None:
    """The excess is what was found at settlement, and what others admitted at the same time."""
    bench = Bench(RateLimit(requests_per_minute=1, tokens_per_minute=100))
    bench.run(90)
    bench.limiter.record_reserved(reserved(77, 40))
    (meter,) = bench.limiter.meters
    assert (meter.excess.requests, meter.excess.tokens) == (1, 30)
    bench.limiter.record_settled([(reserved(77, 40), taken(77, 55))])
    assert (meter.excess.requests, meter.excess.tokens) == (1, 45)


def test_a_change_of_limits_keeps_what_is_counted() -> None:
    """A raised limit lets more through at once; a project without limits has no meters."""
    bench = Bench(RateLimit(requests_per_minute=1))
    bench.run()
    bench.project = team(RateLimit(requests_per_minute=2), RateLimit(model="m"))
    bench.limiter.replace([bench.project])
    bench.run()
    with pytest.raises(RateLimited):
        bench.ask()
    bench.limiter.replace([Project(id="proj_a")])
    assert bench.used == []


def test_an_engines_memory_of_the_last_minute_counts_where_it_was_not_heard() -> None:
    """A router that has just started takes all of it; one that missed a second, that second."""
    bench = Bench(RateLimit(requests_per_minute=5))
    uses = [
        RecentUse(
            project=project,
            key="k",
            model="m",
            age_s=age_s,
            requests=2,
            uncached_tokens=20,
            cached_tokens=50,
        )
        for project, age_s in (("proj_a", 0.5), ("proj_a", 50.0), ("another", 0.5))
    ]
    bench.limiter.record_recent(uses, 1.0)
    assert bench.used == [(2, 20, 0)]
    bench.limiter.record_recent(uses, float("inf"))
    assert bench.used == [(6, 60, 0)]


def test_own_requests_of_a_gap_count_once() -> None:
    """The engine tells of them as of those of other routers; only the latter are news."""
    bench = Bench(RateLimit(requests_per_minute=50))
    bench.run(20)
    use = RecentUse(
        project="proj_a",
        key="k",
        model="m",
        age_s=1.0,
        requests=3,
        uncached_tokens=50,
        cached_tokens=0,
    )
    bench.limiter.record_recent([use], 2.0, [reserved(1, 20)])
    assert bench.used == [(3, 50, 0)]


def test_cached_tokens_count_where_all_tokens_do() -> None:
    """`count_tokens: all` counts what the engine found in its cache, too."""
    clock = Clock()
    limiter = RateLimiter(clock, lambda: True)
    limiter.replace([team(RateLimit(tokens_per_minute=100))])
    limiter.record_reserved(reserved(1, 5))
    limiter.record_settled([(reserved(1, 5), taken(1, 20))])
    assert [meter.used_tokens for meter in limiter.meters] == [30]


def test_the_ledger_fills_up_what_engines_that_have_died_cannot_tell() -> None:
    """A minute that is half over counts half; what engines have told counts once."""
    bench = Bench(RateLimit(requests_per_minute=50, tokens_per_minute=1000))
    use = RecentUse(
        project="proj_a",
        key="k",
        model="m",
        age_s=10.0,
        requests=4,
        uncached_tokens=300,
        cached_tokens=0,
    )
    bench.limiter.record_recent([use], float("inf"))
    minutes = [
        MinuteUsage(
            minute_s=minute_s,
            project="proj_a",
            key="k",
            model="m",
            requests=requests,
            prompt_tokens=tokens,
            cached_tokens=tokens // 2,
            completion_tokens=0,
        )
        for minute_s, requests, tokens in ((600, 100, 9000), (660, 10, 400), (720, 3, 160))
    ]
    bench.limiter.record_minutes(minutes, 750.0)
    assert bench.used == [(8, 300, 0)]
    bench.clock.now_s += 51.1
    assert bench.used == [(3, 0, 0)]


class Traffic(Bench):
    """Requests of this router and of others, which end in every way there is."""

    def __init__(self) -> None:
        self.base = RateLimit(model="m", key="k", tokens_per_minute=2000)
        super().__init__(
            RateLimit(requests_per_minute=40, tokens_per_minute=3000, concurrent_requests=20),
            self.base,
        )
        self.holds: list[Hold] = []
        self.unsettled: list[int] = []

    def admit(self, number: int) -> None:
        """A request comes."""
        with contextlib.suppress(RateLimited):
            self.holds.append(self.ask(number))

    def pass_through(self, number: int) -> None:
        """A request comes, and is sent at once."""
        with contextlib.suppress(RateLimited):
            hold = self.admitted(number)
            self.holds.append(hold)
            self.unsettled.append(self.send(hold, number))

    def turn_away(self, number: int) -> None:
        """A request comes that no replica takes."""
        with contextlib.suppress(RateLimited):
            self.limiter.record_ended(self.admitted(number))

    def dispatch(self, number: int) -> None:
        """An attempt is sent."""
        if self.holds:
            self.unsettled.append(self.send(self.holds[number % len(self.holds)], number))

    def refuse(self, number: int) -> None:
        """An engine refuses an attempt, if it is one of this router's."""
        if self.unsettled:
            id_ = self.unsettled.pop(number % len(self.unsettled))
            self.limiter.record_refused(id_)
            self.limiter.record_settled([(reserved(id_, number), None)])

    def end(self, number: int) -> None:
        """A client has its answer."""
        if self.holds:
            self.limiter.record_ended(self.holds.pop(number % len(self.holds)))

    def settle(self, number: int) -> None:
        """An engine reports what an attempt took, or dies."""
        if self.unsettled:
            id_ = self.unsettled.pop(number % len(self.unsettled))
            usage = None if number % 5 == 1 else taken(id_, number)
            self.limiter.record_settled([(reserved(id_, number), usage)])

    def receive(self, number: int) -> None:
        """An engine reports a request of another router."""
        self.last_id += 1
        self.unsettled.append(self.last_id)
        self.limiter.record_reserved(reserved(self.last_id, number, attempt=1 + number % 2))

    def wait(self, number: int) -> None:
        """Time passes."""
        self.clock.now_s += number / 50

    def change(self, number: int) -> None:
        """The project's limits change."""
        limit = RateLimit(requests_per_minute=40 + number % 2, tokens_per_minute=3000)
        self.limiter.replace([team(limit, self.base)])


ACTIONS = tuple(each for each in vars(Traffic) if not each.startswith("_"))


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1000)), max_size=80))
def test_nothing_leaks_whatever_happens(actions: list[tuple[str, int]]) -> None:
    """When all has ended, nothing is held or runs, and after a minute nothing counts."""
    traffic = Traffic()
    for action, number in actions:
        getattr(traffic, action)(number)
        for meter in traffic.limiter.meters:
            assert min(meter.window.requests, meter.window.tokens, meter.held_requests) >= 0
    while traffic.holds:
        traffic.end(0)
    while traffic.unsettled:
        traffic.settle(5)
    assert traffic.limiter.unsettled == 0
    assert all(not meter.running and not meter.held_tokens for meter in traffic.limiter.meters)
    traffic.clock.now_s += 60.2
    assert all(meter.is_idle for meter in traffic.limiter.meters)
