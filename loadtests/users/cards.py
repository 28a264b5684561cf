"""What `/v1/models` says: which models there are, how long their context is, how many replicas."""

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from urllib.parse import urlsplit

import msgspec

from loadtests.users.answer import reason_of

TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 300.0
"""The first answer of a model may have to wait for its engine to start."""
TOLD_REFUSALS = 3


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A model; servers other than this gateway say less of it."""

    id: str
    max_model_len: int | None = None
    replicas: int | None = None
    parent: str | None = None
    """Of an adapter: its model, unless it is the server's way to say that it has none."""
    stands_for: tuple[str, ...] = ()
    """Of an alias: the models that answer."""

    @property
    def is_model(self) -> bool:
        """Whether it is a model of its own."""
        return not self.stands_for and self.parent in {None, self.id}


class _Cards(msgspec.Struct):
    data: list[Card]


class Unusable(Exception):
    """There is nothing to send load to; the message says why."""


def root(url: str) -> str:
    """What a server's `/v1` is below; others name that path with the server.

    Raises:
        Unusable: it is no URL.
    """
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise Unusable(f"{url} is no http:// or https:// URL")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class Server:
    """An OpenAI-compatible server, as far as its models go; `host` is its `root`."""

    def __init__(self, host: str, api_key: str = "") -> None:
        self._host = host
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def cards(self) -> list[Card]:
        """All models.

        Raises:
            Unusable: the server does not answer, or with something else.
        """
        try:
            return msgspec.json.decode(
                self._answer("/v1/models", None, TIMEOUT_S), type=_Cards
            ).data
        except urllib.error.HTTPError as error:
            raise Unusable(f"{self._host}/v1/models: {_told(error)}") from None
        except (OSError, HTTPException, msgspec.DecodeError) as error:
            raise Unusable(f"{self._host}/v1/models: {error}") from None

    def refusal(self, model: str) -> str:
        """Why it does not chat; empty if it does, or may, being busy or away."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello."}],
            "max_tokens": 1,
        }
        try:
            self._answer("/v1/chat/completions", msgspec.json.encode(body), PROBE_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            return "" if error.code == 429 or error.code >= 500 else _told(error)
        except (OSError, HTTPException) as error:
            return str(error)
        return ""

    def _answer(self, path: str, body: bytes | None, timeout_s: float) -> bytes:
        request = urllib.request.Request(self._host + path, body, self._headers)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            answer: bytes = response.read()
        return answer


def chosen(server: Server, wanted: Sequence[str], is_mixed: bool) -> list[Card]:
    """The models to talk with: those wanted; else, of all that can chat, each or the first.

    Raises:
        Unusable: there are none.
    """
    cards = {card.id: card for card in server.cards()}
    if wanted:
        return [cards.get(name) or Card(id=name) for name in wanted]
    found: list[Card] = []
    refusals: list[str] = []
    for card in filter(lambda card: card.is_model, cards.values()):
        if refusal := server.refusal(card.id):
            refusals.append(f"{card.id}: {refusal}")
            continue
        found.append(card)
        if not is_mixed:
            break
    if not found:
        said = "none of the models there can chat" if refusals else "there are no models"
        raise Unusable("; ".join([said, *refusals[:TOLD_REFUSALS]]))
    return found


def _told(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            said = reason_of(error.read())
        except (OSError, HTTPException):
            said = error.reason
    return f"{error.code} {said}".strip()


def replicas(cards: Iterable[Card]) -> Mapping[str, int]:
    """How many each model has, where the server says so."""
    return {c.id: c.replicas for c in cards if c.is_model and c.replicas is not None}


def context_tokens(cards: Iterable[Card]) -> int | None:
    """The shortest context, where it is known."""
    return min((card.max_model_len for card in cards if card.max_model_len), default=None)
