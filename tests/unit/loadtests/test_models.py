"""Models that a load test is sent to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.locust_users.models import (
    NothingToTest,
    Server,
    models_to_test,
    replicas,
    server_root,
)
from tests.http_server import Handler, serving

CARDS = [
    {"id": "embed", "max_model_len": 512, "replicas": 1},
    {"id": "large", "max_model_len": 8192, "replicas": 4, "state": "ready"},
    {"id": "large-sql", "max_model_len": 8192, "replicas": 4, "parent": "large"},
    {"id": "assistant", "replicas": 4, "stands_for": ["large"]},
    {"id": "small", "max_model_len": 4096, "replicas": 0},
    {"id": "busy", "root": "busy", "parent": None},
]
STATUS = {"embed": 400, "busy": 429}


class Listing(Handler):
    """A server that lists models, of which some can chat."""

    def get(self) -> None:
        """List them at one path; at another there are none."""
        cards = {"/v1/models": CARDS, "/empty/v1/models": []}
        found = self.path in cards
        self._answer(200 if found else 404, {"object": "list", "data": cards.get(self.path)})

    def post(self) -> None:
        """Chat, or not."""
        body = json.loads(self.body())
        is_known = self.headers["authorization"] == "Bearer key"
        who = {} if is_known else {"error": {"message": "Who are you?"}}
        self._answer(STATUS.get(body["model"], 200) if is_known else 401, who)

    def _answer(self, status: int, document: object) -> None:
        self.answer(status, json.dumps(document).encode())


@contextmanager
def served() -> Iterator[Server]:
    """The server, running."""
    with serving(Listing) as port:
        yield Server(f"http://127.0.0.1:{port}", "key")


def test_every_model_that_can_chat_is_found() -> None:
    """Embedding models are left out, and so are aliases and adapters; a busy model can chat."""
    with served() as server:
        found = models_to_test(server, (), every=True)

    assert [(card.id, card.max_model_len) for card in found] == [
        ("large", 8192),
        ("small", 4096),
        ("busy", None),
    ]


def test_named_models_are_taken_as_they_are() -> None:
    """The server need not list them; without names, the first that can chat is taken."""
    with served() as server:
        assert [card.id for card in models_to_test(server, (), every=False)] == ["large"]
        named = models_to_test(server, ("unlisted", "large-sql"), every=False)

    assert [(card.id, card.max_model_len) for card in named] == [
        ("unlisted", None),
        ("large-sql", 8192),
    ]


def test_replicas_are_read_where_the_server_reports_them() -> None:
    """Adapters and aliases have none of their own."""
    with served() as server:
        assert replicas(server.models()) == {"embed": 1, "large": 4, "small": 0}


def test_without_models_there_is_nothing_to_test() -> None:
    """A wrong key, an empty list or no server: the reason is given."""
    with served() as server:
        unauthorized = Server(server._root)
        with pytest.raises(
            NothingToTest, match=r"none .* can chat; embed: 401 Who are you\?; large: 401"
        ):
            models_to_test(unauthorized, (), every=True)
        with pytest.raises(NothingToTest, match="/elsewhere/v1/models: 404"):
            Server(f"{server._root}/elsewhere").models()
        with pytest.raises(NothingToTest, match="there are no models"):
            models_to_test(Server(f"{server._root}/empty"), (), every=False)

    with pytest.raises(NothingToTest, match=server._root):
        server.models()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_url_may_have_the_path_of_the_api(path: str) -> None:
    """SDKs have it in their `base_url`."""
    assert server_root(f"https://example.com:8443/base{path}") == "https://example.com:8443/base"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost:8000/v1", "ftp://host", "http://"])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    """Above all one without a scheme."""
    with pytest.raises(NothingToTest, match="is no http:// or https:// URL"):
        server_root(url)
