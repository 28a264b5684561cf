"""A key that may do less than its project cannot have its project's own requests made."""

import pytest

from gateway.errors.access import RouteNotAllowed
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, RateLimit, SpendLimit
from gateway.serving.route_access import check_batch_creation

LIMITED = Project(
    id="p",
    models=("m",),
    rate_limits=(RateLimit(requests_per_minute=1), RateLimit(key="slow", requests_per_minute=1)),
    spend_limits=(SpendLimit(amount_nano=1), SpendLimit(key="poor", amount_nano=1)),
)


@pytest.mark.parametrize(
    "identity",
    [
        ClientIdentity(project=LIMITED, key="k", models=("m",)),
        ClientIdentity(project=LIMITED, key="k", models=()),
        ClientIdentity(project=LIMITED, key="slow"),
        ClientIdentity(project=LIMITED, key="poor"),
    ],
)
def test_keys_with_models_or_limits_of_their_own_create_no_batches(
    identity: ClientIdentity,
) -> None:
    """A batch would pass by what holds for the key."""
    with pytest.raises(RouteNotAllowed):
        check_batch_creation(identity)


@pytest.mark.parametrize(
    "identity", [ClientIdentity(), ClientIdentity(project=LIMITED, key="k")], ids=["open", "key"]
)
def test_other_keys_may(identity: ClientIdentity) -> None:
    """Models and limits of their project hold for its batches, too."""
    check_batch_creation(identity)
