"""The load test of fairness: running routers and simulated engines, for a few seconds."""

from loadtests.fairness import INGRESSES, flood


async def test_projects_share_by_weight_on_running_routers() -> None:
    """Also where each comes to a router of its own; roughly, in so short a time."""
    skewed = next(each for each in INGRESSES if each.name == "two, skewed")
    served = await flood(skewed, 12.0, is_fair=True)
    assert served.ratio > 2.5
    assert served.tokens_per_s > 0
    assert 0 < served.hit_rate < 1
