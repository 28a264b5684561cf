"""What `/v1/models` says: which models there are, how long their context is, how many replicas."""

import itertools
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence

import msgspec

TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 300.0
"""The first answer of a model may have to wait for its engine to start."""


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


class Server:
    """An OpenAI-compatible server, as far as its models go."""

    def __init__(self, host: str, api_key: str = "") -> None:
        self._host = host.rstrip("/")
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
        except (OSError, msgspec.DecodeError) as error:
            raise Unusable(f"{self._host}/v1/models: {error}") from None

    def can_chat(self, model: str) -> bool:
        """Whether it answers a chat; a model that is busy or away may."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello."}],
            "max_tokens": 1,
        }
        try:
            self._answer("/v1/chat/completions", msgspec.json.encode(body), PROBE_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            return error.code == 429 or error.code >= 500
        except OSError:
            return False
        return True

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
    able = (card for card in cards.values() if card.is_model and server.can_chat(card.id))
    found = [*(able if is_mixed else itertools.islice(able, 1))]
    if not found:
        raise Unusable("none of the models there can chat")
    return found


def replicas(cards: Iterable[Card]) -> Mapping[str, int]:
    """How many each model has, where the server says so."""
    return {c.id: c.replicas for c in cards if c.is_model and c.replicas is not None}


def context_tokens(cards: Iterable[Card]) -> int | None:
    """The shortest context, where it is known."""
    return min((card.max_model_len for card in cards if card.max_model_len), default=None)
