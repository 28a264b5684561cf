"""Tests of how the meters of a request are looked up."""

from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.limits.budget_limiter import BudgetLimiter
from gateway.limits.rate_limiter import RateLimiter
from gateway.limits.request_meters import KnownMeters
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import CHAT, parse_head
from tests.unit.conftest import Clock

LIMITS = (
    RateLimit(requests_per_minute=10),
    RateLimit(model="large", requests_per_minute=1),
    RateLimit(batch_tokens_per_day=100),
)


def request_of(project: Project, key: str = "key_1", *, is_batch: bool = False) -> InferenceRequest:
    """A request of a project."""
    body = b'{"model": "small", "messages": []}'
    return InferenceRequest(
        head=parse_head(CHAT, body, b""),
        path=CHAT,
        headers=[],
        body=body,
        request_id=b"id",
        identity=ClientIdentity(project=project, key=key),
        tier="flex" if is_batch else "default",
        arrived_s=0.0,
    )


def known_meters() -> KnownMeters:
    """Meters of no project yet."""
    clock = Clock()
    return KnownMeters(RateLimiter(clock), BudgetLimiter(clock, clock))


def test_a_request_has_the_meters_of_its_project_model_and_urgency() -> None:
    """Meters of other models do not count, nor those of batch tokens for interactive requests."""
    known, project = known_meters(), Project(id="proj_a", rate_limits=LIMITS)
    small = known.of(request_of(project), "small")
    large = known.of(request_of(project), "large")
    batch = known.of(request_of(project, is_batch=True), "small")
    assert {meter.scope for meter in small.rates} == {(None, None)}
    assert {meter.scope for meter in large.rates} == {(None, None), ("large", None)}
    assert [len(each.budgets) for each in (small, large, batch)] == [0, 0, 1]
    assert known.of(request_of(project), "small") is small


def test_an_earlier_project_leaves_no_meters_behind() -> None:
    """A request that came before limits were set does not spare later ones from them."""
    clock, earlier = Clock(), Project(id="proj_a")
    rates, budgets = RateLimiter(clock), BudgetLimiter(clock, clock)
    known = KnownMeters(rates, budgets)
    spend = (SpendLimit(amount_nano=1, interval="day"),)
    changed = Project(id="proj_a", rate_limits=LIMITS[:1], spend_limits=spend)
    rates.replace([changed])
    budgets.replace([changed])
    known.clear()
    assert not known.of(request_of(earlier), "small").rates
    meters = known.of(request_of(changed), "small")
    assert (len(meters.rates), len(meters.budgets)) == (1, 1)
