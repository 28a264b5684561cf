"""Which models a load test is sent to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.users.cards import Server, Unusable, chosen, context_tokens, replicas, root
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
    """A server that lists the models, of which some can chat."""

    def get(self) -> None:
        """List them, at one path; at another there are none."""
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


def test_mixed_load_goes_to_all_that_can_chat() -> None:
    """Not to embedding models, nor twice to one that has other names; one that is busy can."""
    with served() as server:
        found = chosen(server, (), is_mixed=True)

    assert [card.id for card in found] == ["large", "small", "busy"]
    assert context_tokens(found) == 4096


def test_other_load_goes_to_the_first_that_can_chat() -> None:
    """Unless models are named, which the server need not list."""
    with served() as server:
        assert [card.id for card in chosen(server, (), is_mixed=False)] == ["large"]
        named = chosen(server, ("unlisted", "large-sql"), is_mixed=False)

    assert [(card.id, card.max_model_len) for card in named] == [
        ("unlisted", None),
        ("large-sql", 8192),
    ]
    assert context_tokens(named) == 8192
    assert context_tokens(named[:1]) is None


def test_replicas_are_read_where_the_server_tells() -> None:
    """Of models; adapters and aliases have none of their own."""
    with served() as server:
        assert replicas(server.cards()) == {"embed": 1, "large": 4, "small": 0}


def test_without_models_there_is_no_load() -> None:
    """A wrong key, nothing served, or nobody there: the reason is told."""
    with served() as server:
        stranger = Server(server._host)
        with pytest.raises(
            Unusable, match=r"none .* can chat; embed: 401 Who are you\?; large: 401"
        ):
            chosen(stranger, (), is_mixed=True)
        with pytest.raises(Unusable, match="/elsewhere/v1/models: 404"):
            Server(f"{server._host}/elsewhere").cards()
        with pytest.raises(Unusable, match="there are no models"):
            chosen(Server(f"{server._host}/empty"), (), is_mixed=False)
        host = server._host

    with pytest.raises(Unusable, match=host):
        Server(host).cards()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_server_is_named_with_or_without_its_path(path: str) -> None:
    """SDKs have the path in their `base_url`."""
    assert root(f"https://example.com:8443/base{path}") == "https://example.com:8443/base"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "localhost:8000/v1", "ftp://host", "http://", ""]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """Above all an address without its scheme."""
    with pytest.raises(Unusable, match="is no http:// or https:// URL"):
        root(url)
