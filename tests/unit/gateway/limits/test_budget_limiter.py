"""Tests of limits of money and of batch tokens."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.limits import QuotaExceeded, RateLimited, SpendUnknown
from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.ledger.calendar import Interval
from gateway.ledger.price import Price
from gateway.ledger.view import AccountsView, BatchUsage, Spend, Watermark
from gateway.limits.budget_limiter import BudgetHold, BudgetLimiter
from gateway.limits.cost import Amounts
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import Reservation, UsageRecord

NOON_S = 1_800_014_400.0
"""Noon of 15 January 2027, UTC."""
MIDNIGHT_S = 1_799_971_200
MONTH_S = 1_798_761_600
"""The beginning of that day, and of that month."""
EPOCH = 7
UNIT = 10**9


def record(seq: int, nano: int, *, ended_s: float = NOON_S, tier: str = "default") -> UsageRecord:
    """A record that costs so much: a nano-unit for each token of the answer."""
    return UsageRecord(
        epoch=EPOCH,
        seq=seq,
        id=seq,
        origin=Origin(project="proj_a", key="k", tier=tier),
        model="m",
        arrived_s=ended_s,
        ended_s=ended_s,
        completion_tokens=nano,
    )


def reservation(id_: int, nano: int, *, is_batch: bool = False) -> Reservation:
    """A request that is expected to cost so much, as its engine reports it."""
    return Reservation(
        id=id_, project="proj_a", key="k", model="m", tokens=nano, cost_nano=nano, is_batch=is_batch
    )


def view(*spend: tuple[str, Interval, int], seq: int = 0, as_of_s: float = NOON_S) -> AccountsView:
    """The ledger's sums, by key and interval, with all records up to `seq`."""
    starts: dict[Interval, int] = {"day": MIDNIGHT_S, "month": MONTH_S}
    return AccountsView(
        version=str(seq),
        as_of_s=as_of_s,
        watermarks=(Watermark(engine="r", epoch=EPOCH, seq=seq),),
        spend=tuple(
            Spend(project="proj_a", key=key, interval=interval, from_s=starts[interval], nano=nano)
            for key, interval, nano in spend
        ),
        prices=(Price(model="m", from_s=0, output_nano=10**6),),
        batch=(
            BatchUsage(
                project="proj_a",
                key="k",
                model="m",
                prompt_tokens=30,
                cached_tokens=20,
                completion_tokens=40,
            ),
        ),
    )


class Budget:
    """A router's budgets of one project."""

    def __init__(self, *limits: SpendLimit, batch: int | None = None) -> None:
        self.now_s, self.clock_s = NOON_S, 0.0
        self.refuses_unknown = False
        self.limiter = BudgetLimiter(
            lambda: self.clock_s,
            lambda: self.now_s,
            refuses_unknown=lambda: self.refuses_unknown,
        )
        rates = () if batch is None else (RateLimit(batch_tokens_per_day=batch),)
        self.project = Project(id="proj_a", name="team-a", spend_limits=limits, rate_limits=rates)
        self.limiter.replace([self.project])

    def ask(self, nano: int, most: int = 0, *, is_batch: bool = False) -> BudgetHold:
        """Admit a request that is expected to cost so much, or raise."""
        meters = self.limiter.meters_of(self.project, "m", "k", is_batch=is_batch)
        expected, worst = Amounts(nano, nano), Amounts(max(nano, most), max(nano, most))
        return self.limiter.reserve(meters, expected, lambda: worst)

    def run(self, seq: int, nano: int, *, ended_s: float = NOON_S) -> None:
        """Have another router's request answered."""
        self.limiter.record_reserved(reservation(seq, nano))
        self.limiter.record_settled([(reservation(seq, nano), record(seq, nano, ended_s=ended_s))])

    @property
    def used(self) -> list[int]:
        """What has been used of each limit."""
        return [self.limiter.used(meter) for meter in self.limiter.meters]


def test_money_beyond_the_limit_is_refused_until_the_period_ends() -> None:
    """The ledger's sum, what came since, what runs, and what is asked for must fit the limit."""
    budget = Budget(SpendLimit(amount_nano=100 * UNIT, interval="day"))
    budget.limiter.record_view(view(("", "day", 60 * UNIT)))
    budget.run(1, 10 * UNIT)
    budget.limiter.record_reserved(reservation(2, 5 * UNIT))
    budget.ask(20 * UNIT)
    with pytest.raises(QuotaExceeded) as refused:
        budget.ask(10 * UNIT)
    assert str(refused.value) == (
        "Project team-a has reached its limit of 100.00 for this day: spent 95.00, and the request"
        " may cost 10.000000. The day ends in 12h0m0s."
    )
    assert refused.value.code == refused.value.type == "insufficient_quota"
    assert refused.value.headers[0] == (b"retry-after", b"43200")
    assert refused.value.headers[-1] == (b"x-should-retry", b"false")
    budget.now_s += 12 * 3600
    budget.ask(10 * UNIT)


def test_the_ledger_counts_nothing_twice_and_loses_nothing() -> None:
    """Records up to its watermark are in its sum; those after it are added."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    budget.limiter.record_view(view())
    for seq in (1, 2, 3):
        budget.run(seq, 10**seq)
    assert budget.used == [1110]
    budget.limiter.record_view(view(("", "month", 110), seq=2))
    assert budget.used == [1110]
    budget.limiter.record_view(view(("", "month", 1110), seq=3))
    assert budget.used == [1110]


def test_a_new_day_begins_even_if_the_ledger_is_silent() -> None:
    """The sum of yesterday does not count today, and what came after midnight does."""
    budget = Budget(
        SpendLimit(amount_nano=UNIT, interval="day"), SpendLimit(amount_nano=UNIT, interval="month")
    )
    budget.limiter.record_view(view(("", "day", 100), ("", "month", 900)))
    budget.run(1, 10)
    budget.run(2, 1, ended_s=MIDNIGHT_S + 86_400)
    budget.now_s = MIDNIGHT_S + 86_500
    assert sorted(budget.used) == [1, 911]


def test_near_a_limit_the_most_that_a_request_may_cost_counts() -> None:
    """Near: less than 1 % of the limit is left, or less than the last minute has cost."""
    budget = Budget(SpendLimit(amount_nano=1000))
    budget.limiter.record_view(view(("", "month", 800)))
    budget.ask(5, most=500)
    budget.limiter.record_view(view(("", "month", 990)))
    with pytest.raises(QuotaExceeded):
        budget.ask(5, most=500)
    budget.limiter.record_view(view(("", "month", 700)))
    budget.run(1, 150)
    with pytest.raises(QuotaExceeded):
        budget.ask(5, most=500)
    budget.clock_s += 61
    budget.ask(5, most=500)


def test_the_limit_of_a_key_is_for_that_key_only() -> None:
    """Requests of other keys neither count nor are refused."""
    budget = Budget(SpendLimit(amount_nano=10, key="k"), SpendLimit(amount_nano=10, key="other"))
    budget.limiter.record_view(view(("k", "month", 8), ("other", "month", 10)))
    budget.ask(2)
    with pytest.raises(QuotaExceeded, match="with key k"):
        budget.ask(1)


def test_what_nobody_knows_counts_as_expected_for_a_minute() -> None:
    """By then the ledger has an estimate of a request whose engine has died."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    budget.limiter.record_reserved(reservation(1, 50))
    budget.limiter.record_settled([(reservation(1, 50), None)])
    assert budget.used == [50]
    budget.clock_s += 61
    assert budget.used == [0]


def test_an_attempt_that_did_nothing_gives_all_back() -> None:
    """So does a request that was never sent; a second attempt holds what the first one did."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    unsent, sent = budget.ask(3), budget.ask(5)
    budget.limiter.record_ended(unsent)
    for id_ in (1, 2):
        budget.limiter.record_sending(id_, sent)
        budget.limiter.record_reserved(reservation(id_, 5))
    budget.limiter.record_ended(sent)
    assert budget.used == [10]
    budget.limiter.record_refused(1)
    assert budget.used == [5]
    budget.limiter.record_settled([(reservation(2, 5), record(2, 7))])
    budget.limiter.record_view(view())
    assert (budget.used, budget.limiter.unsettled) == ([0], 0)


def test_a_request_that_has_waited_is_checked_against_what_others_have_spent() -> None:
    """Other routers do not know of requests in this one's queue, so the last look counts."""
    budget = Budget(SpendLimit(amount_nano=100))
    budget.limiter.record_view(view())
    hold = budget.ask(30)
    budget.run(1, 60)
    budget.limiter.check_again(hold)
    budget.run(2, 20)
    with pytest.raises(QuotaExceeded):
        budget.limiter.check_again(hold)


def test_spend_that_is_not_known_is_allowed_unless_the_config_refuses_it() -> None:
    """A router that has just started, and cannot reach the ledger, goes by its config."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    budget.ask(1)
    budget.refuses_unknown = True
    with pytest.raises(
        SpendUnknown, match="team-a has used this month is not known yet"
    ) as refused:
        budget.ask(1)
    assert (b"retry-after", b"5") in refused.value.headers
    budget.limiter.record_view(view())
    budget.ask(1)


def test_an_alert_is_logged_once_in_a_period(caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on; the next period has its own."""
    budget = Budget(SpendLimit(amount_nano=3 * UNIT, interval="day", is_hard=False))
    budget.limiter.record_view(view(("", "day", UNIT)))
    with caplog.at_level(logging.WARNING):
        for seq in (1, 2, 3):
            budget.run(seq, UNIT)
        budget.ask(50 * UNIT)
        budget.now_s += 86_400
        for seq in (4, 5, 6):
            budget.run(seq, UNIT, ended_s=budget.now_s)
    message = "project team-a has spent 3.00 this day: it has reached the alert of 3.00"
    assert [each.getMessage() for each in caplog.records] == [message] * 2


def test_a_router_that_starts_logs_no_alert_again(caplog: pytest.LogCaptureFixture) -> None:
    """What the ledger says at first was reached before; what comes then is news."""
    alerts = [
        SpendLimit(amount_nano=amount * UNIT, interval="day", is_hard=False) for amount in (3, 5)
    ]
    budget = Budget(*alerts)
    budget.limiter.record_view(view(("", "day", 4 * UNIT)))
    with caplog.at_level(logging.WARNING):
        budget.run(1, UNIT // 2)
        assert caplog.records == []
        budget.run(2, UNIT)
    assert [each.getMessage()[-4:] for each in caplog.records] == ["5.00"]


def test_batch_tokens_of_a_day_count_batch_requests_alone() -> None:
    """The ledger's sum is of uncached prompts and of answers, like what is added to it."""
    budget = Budget(batch=100)
    budget.limiter.record_view(view())
    assert budget.used == [50]
    budget.ask(1000)
    budget.limiter.record_reserved(reservation(1, 30, is_batch=True))
    budget.limiter.record_settled([(reservation(1, 30, is_batch=True), record(1, 25, tier="flex"))])
    budget.ask(20, is_batch=True)
    with pytest.raises(RateLimited, match="batch tokens per day: Limit 100, Used 95, Requested 6"):
        budget.ask(6, is_batch=True)


def test_changed_limits_keep_what_is_counted_and_new_ones_ask_the_ledger() -> None:
    """A limit that is new begins with what the ledger has said last."""
    budget = Budget(SpendLimit(amount_nano=10))
    budget.limiter.record_view(view(("", "month", 4), ("", "day", 3)))
    budget.run(1, 2)
    limits = (SpendLimit(amount_nano=20), SpendLimit(amount_nano=9, interval="day"))
    budget.limiter.replace([Project(id="proj_a", spend_limits=limits)])
    assert sorted((meter.interval, meter.hard) for meter in budget.limiter.meters) == [
        ("day", 9),
        ("month", 20),
    ]
    assert sorted(budget.used) == [3, 6]


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "lose", "view"]), st.integers(0, 99)),
        max_size=60,
    )
)
def test_the_sum_is_that_of_all_records_whatever_the_ledger_has(
    steps: list[tuple[str, int]],
) -> None:
    """However far the ledger is behind, each record counts once, and all that ends is released."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    running: dict[int, int] = {}
    budget.limiter.record_view(view())
    costs: list[int] = []
    seq = 0
    for number, (step, amount) in enumerate(steps):
        if step == "reserve":
            running[1000 + number] = amount
            budget.limiter.record_reserved(reservation(1000 + number, amount))
        elif step == "view":
            seq = max(seq, amount % (len(costs) + 1))
            budget.limiter.record_view(view(("", "month", sum(costs[:seq])), seq=seq))
        elif running:
            id_, held = running.popitem()
            usage = None
            if step == "settle":
                costs.append(amount)
                usage = record(len(costs), amount)
            budget.limiter.record_settled([(reservation(id_, held), usage)])
    for id_, held in running.items():
        budget.limiter.record_settled([(reservation(id_, held), None)])
    budget.clock_s += 61
    assert budget.limiter.unsettled == 0
    assert budget.used == [sum(costs)]


def test_an_engine_whose_clock_is_ahead_does_not_end_the_period() -> None:
    """Its record counts now, and the limit still refuses, before and after the ledger has it."""
    budget = Budget(SpendLimit(amount_nano=100, interval="month"))
    budget.limiter.record_view(view(("", "month", 99)))
    budget.run(1, 1, ended_s=NOON_S + 40 * 86_400)
    assert budget.used == [100]
    budget.limiter.record_view(view(("", "month", 100), seq=1))
    assert budget.used == [100]
    with pytest.raises(QuotaExceeded):
        budget.ask(1)


def test_the_clock_of_the_ledger_begins_a_period() -> None:
    """A router whose own clock is a month ahead goes on with what the ledger says."""
    budget = Budget(SpendLimit(amount_nano=100, interval="month"))
    budget.now_s += 31 * 86_400
    budget.limiter.record_view(view(("", "month", 100)))
    assert budget.used == [100]
    with pytest.raises(QuotaExceeded, match="The month ends in 396h"):
        budget.ask(1)


def test_limits_that_are_given_or_taken_hold_for_clients_that_were_seen_before() -> None:
    """What a client's requests count against is remembered no longer than the project is."""
    budget = Budget()
    budget.ask(5 * UNIT)
    limit = SpendLimit(amount_nano=UNIT, interval="day")
    limited = Project(id="proj_a", name="team-a", spend_limits=(limit,))
    free, budget.project = budget.project, limited
    budget.limiter.replace([limited])
    with pytest.raises(QuotaExceeded):
        budget.ask(5 * UNIT)
    budget.limiter.replace([free])
    budget.project = free
    budget.ask(5 * UNIT)


def test_a_request_that_is_expected_to_cost_nothing_is_looked_at_too() -> None:
    """Such as of a model without a price: where nothing is known, and where too much is spent."""
    budget = Budget(SpendLimit(amount_nano=UNIT))
    budget.refuses_unknown = True
    with pytest.raises(SpendUnknown):
        budget.ask(0)
    budget.limiter.record_view(view(("", "month", 2 * UNIT)))
    with pytest.raises(QuotaExceeded):
        budget.ask(0)


steps = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "settle", "lose", "view", "wait"]), st.integers(0, 60)
)


@given(st.lists(steps, max_size=60))
def test_what_is_spare_admits_nothing_that_a_closer_look_refuses(
    history: list[tuple[str, int]],
) -> None:
    """Whatever was held, used, lost and told by the ledger since it was found out."""
    limit = SpendLimit(amount_nano=1000)
    quick, close = Budget(limit), Budget(limit)
    for budget in (quick, close):
        budget.limiter.record_view(view())
    running: list[tuple[int, int]] = []
    costs: list[int] = []
    for number, (step, amount) in enumerate(history):
        held = []
        for budget in (quick, close):
            if budget is close:
                for meter in budget.limiter.meters:
                    meter.spare = -1
            found = _take(budget, step, amount, number, running[-1:], costs)
            held.append(None if found is None else found.amounts)
        assert held[0] == held[1]
        if held[0] is not None:
            running.append((number, amount))
        elif step in {"settle", "lose"} and running:
            running.pop()
            costs += [amount] * (step == "settle")
        assert quick.used == close.used


def _take(
    budget: Budget,
    step: str,
    amount: int,
    number: int,
    last: list[tuple[int, int]],
    costs: list[int],
) -> BudgetHold | None:
    """Take one step; returns the hold of a request that is admitted."""
    match step:
        case "ask":
            try:
                hold = budget.ask(amount, 5 * amount)
            except QuotaExceeded:
                return None
            budget.limiter.record_sending(number, hold)
            return hold
        case "settle" | "lose":
            for id_, held in last:
                usage = record(len(costs) + 1, amount) if step == "settle" else None
                budget.limiter.record_settled([(reservation(id_, held), usage)])
        case "view":
            seq = amount % (len(costs) + 1)
            budget.limiter.record_view(view(("", "month", sum(costs[:seq])), seq=seq))
        case _:
            budget.clock_s += amount
    return None
