"""Models that projects and keys may use."""

import pytest

from gateway.config.loader import parse_gateway
from gateway.config.model_names import ModelNames
from gateway.errors.request import ModelNotFound
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project
from gateway.serving.model_access import allowed_route, may_use

NAMES = ModelNames(
    parse_gateway(
        {
            "aliases": {"fast": "small", "best": "ab", "nick": "fast"},
            "splits": {
                "ab": {
                    "models": {"large": 1, "large-v2": 1},
                    "shadow": {"model": "x", "fraction": 1},
                }
            },
            "fallbacks": {"small": ["large", "tiny", "best"]},
        }
    )
)
EVERYTHING = ("small", "large", "large-v2", "tiny", "fast", "best", "ab", "nick")


def client(
    models: tuple[str, ...] | None, key_models: tuple[str, ...] | None = None
) -> ClientIdentity:
    """A client of a project, with a key."""
    return ClientIdentity(project=Project(id="p", models=models), models=key_models)


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        (None, set(EVERYTHING)),
        ((), set()),
        (("small",), {"small", "fast", "nick"}),
        (("fast",), {"small", "fast", "nick"}),
        (("large",), {"large"}),
        (("large", "large-v2"), {"large", "large-v2", "ab", "best"}),
        (("best",), {"large", "large-v2", "ab", "best"}),
    ],
)
def test_names_stand_for_what_they_lead_to(
    models: tuple[str, ...] | None, allowed: set[str]
) -> None:
    """Whoever may use an alias or a split may use its models, and the other way round."""
    assert {name for name in EVERYTHING if may_use(client(models), name, NAMES)} == allowed
    assert {name for name in EVERYTHING if may_use(client(None, models), name, NAMES)} == allowed


def test_a_key_may_use_less_than_its_project() -> None:
    """Never more: both must allow a model."""
    identity = client(("small", "tiny"), ("tiny", "large"))
    assert [name for name in EVERYTHING if may_use(identity, name, NAMES)] == ["tiny"]


def test_fallbacks_to_other_models_are_left_out() -> None:
    """The shadow stays: it is the operator's."""
    route = allowed_route(client(("small", "tiny")), "nick", b"", NAMES)
    assert route.models == ("small", "tiny")
    best = allowed_route(client(("best",)), "best", b"key", NAMES)
    assert (len(best.models), best.shadow) == (1, "x")
    assert allowed_route(client(None), "nick", b"", NAMES).models[:3] == ("small", "large", "tiny")


@pytest.mark.parametrize("name", ["large", "ab", "unheard-of"])
def test_another_model_looks_as_if_it_did_not_exist(name: str) -> None:
    """With the same error as a name that nobody has."""
    with pytest.raises(ModelNotFound):
        allowed_route(client(("small",)), name, b"", NAMES)
