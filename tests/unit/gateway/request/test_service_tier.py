"""Tiers that requests ask for and get."""

import msgspec
import pytest

from gateway.errors.request import InvalidRequest
from gateway.identity.client import ClientIdentity
from gateway.identity.project import Project, Tier
from gateway.request.inference_request import InferenceRequest, parse_request
from gateway.request.service_tier import asked_tier, served_tier


def parsed(
    body: dict[str, object], *tiers: Tier, is_batch: bool = False, path: str = "/v1/completions"
) -> InferenceRequest:
    """A request of a project that may use these tiers."""
    identity = ClientIdentity(project=Project(id="p", tiers=tiers))
    content = msgspec.json.encode({"model": "m", **body})
    return parse_request(
        *(path, content, {}), headers=[], request_id=b"", identity=identity, is_batch=is_batch
    )


@pytest.mark.parametrize(
    ("asked", "allowed", "served"),
    [
        (None, ("flex", "default"), "default"),
        ("default", ("flex", "default"), "default"),
        ("flex", ("flex", "default"), "flex"),
        ("flex", ("default",), "default"),
        ("priority", ("flex", "default"), "default"),
        ("priority", ("default", "priority"), "priority"),
        ("priority", ("flex",), "flex"),
        (None, ("flex",), "flex"),
        (None, ("priority",), "priority"),
        (None, (), "default"),
    ],
)
def test_a_request_gets_the_tier_that_its_project_may_have(
    asked: Tier | None, allowed: tuple[Tier, ...], served: Tier
) -> None:
    """Otherwise the default one, or the project's first."""
    assert served_tier(asked, allowed) == served


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        *((b'"auto"', None), (b"null", None), (b'"scale"', None), (b'"standard_only"', "default")),
        *((b'"default"', "default"), (b' "flex" ', "flex"), (b'"priority"', "priority")),
    ],
)
def test_all_words_of_openai_and_anthropic_are_known(written: bytes, asked: Tier | None) -> None:
    """What they mean here."""
    assert asked_tier(msgspec.Raw(written)) == asked


@pytest.mark.parametrize("written", [b'"bogus"', b"1", b"[]", b'"FLEX"', b'"\xff"', b'""'])
def test_other_words_are_refused(written: bytes) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        asked_tier(msgspec.Raw(written))
    assert caught.value.param == "service_tier"


def test_the_body_or_a_header_makes_a_batch_request() -> None:
    """`flex` and batch priority are the same; a request that asks for neither is interactive."""
    assert parsed({"service_tier": "flex"}, "flex", "default").is_batch
    assert parsed({}, "flex", "default", is_batch=True).tier == "flex"
    assert parsed({"service_tier": "priority"}, "flex", "priority", is_batch=True).is_batch
    assert not parsed({}, "flex", "default").is_batch
    assert not parsed({"service_tier": "flex"}, "default").is_batch
    assert not parsed({}, "default", is_batch=True).is_batch


def test_without_authentication_all_tiers_are_there() -> None:
    """Nobody has said who may have which."""
    body = b'{"model":"m","service_tier":"priority"}'
    request = parse_request("/v1/responses", body, {}, headers=[], request_id=b"")
    assert (request.tier, request.asks_for_tier) == ("priority", True)
