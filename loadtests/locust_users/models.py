"""Models of an OpenAI-compatible server, as `/v1/models` lists them."""

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from urllib.parse import urlsplit

import msgspec

from loadtests.loadgen.client import CHAT_PATH
from loadtests.loadgen.sse import error_reason

TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 300.0
"""The first answer of a model may have to wait for its engine to start."""
SHOWN_REFUSALS = 3


class NothingToTest(Exception):
    """No load can be sent; the message says why."""


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `/v1/models`; other servers than this gateway leave most of it out."""

    id: str
    max_model_len: int | None = None
    replicas: int | None = None
    parent: str | None = None
    """An adapter's model; some servers name the model itself instead of nothing."""
    stands_for: tuple[str, ...] = ()
    """The models behind an alias."""

    @property
    def is_base_model(self) -> bool:
        """Whether it is neither an adapter nor an alias."""
        return not self.stands_for and self.parent in {None, self.id}


class _Listing(msgspec.Struct):
    data: list[ListedModel]


def server_root(url: str) -> str:
    """A server's URL without `/v1`, which SDKs have in their base URLs.

    Raises:
        NothingToTest: it is no URL.
    """
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise NothingToTest(f"{url} is no http:// or https:// URL")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class Server:
    """An OpenAI-compatible server; `root` is its URL without `/v1`."""

    def __init__(self, root: str, api_key: str = "") -> None:
        self._root = root
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def models(self) -> list[ListedModel]:
        """All models.

        Raises:
            NothingToTest: the server does not list them.
        """
        try:
            listing = self._request("/v1/models", None, TIMEOUT_S)
            return msgspec.json.decode(listing, type=_Listing).data
        except urllib.error.HTTPError as error:
            raise NothingToTest(f"{self._root}/v1/models: {_reason(error)}") from None
        except (OSError, HTTPException, msgspec.DecodeError) as error:
            raise NothingToTest(f"{self._root}/v1/models: {error}") from None

    def refusal(self, model: str) -> str:
        """Why a model does not chat; empty if it does, or is only busy or not running."""
        messages = [{"role": "user", "content": "Hello."}]
        body = msgspec.json.encode({"model": model, "messages": messages, "max_tokens": 1})
        try:
            self._request(CHAT_PATH, body, PROBE_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            return "" if error.code == 429 or error.code >= 500 else _reason(error)
        except (OSError, HTTPException) as error:
            return str(error)
        return ""

    def _request(self, path: str, body: bytes | None, timeout_s: float) -> bytes:
        request = urllib.request.Request(self._root + path, body, self._headers)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            content: bytes = response.read()
        return content


def models_to_test(server: Server, names: Sequence[str], *, every: bool) -> list[ListedModel]:
    """The named models; without names the first that can chat, or every one.

    Raises:
        NothingToTest: there are none.
    """
    cards = {card.id: card for card in server.models()}
    if names:
        return [cards.get(name) or ListedModel(id=name) for name in names]
    found: list[ListedModel] = []
    refusals: list[str] = []
    for card in filter(lambda card: card.is_base_model, cards.values()):
        if refusal := server.refusal(card.id):
            refusals.append(f"{card.id}: {refusal}")
            continue
        found.append(card)
        if not every:
            break
    if not found:
        reason = "none of the models there can chat" if refusals else "there are no models"
        raise NothingToTest("; ".join([reason, *refusals[:SHOWN_REFUSALS]]))
    return found


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            reason = error_reason(error.read())
        except (OSError, HTTPException):
            reason = error.reason
    return f"{error.code} {reason}".strip()


def replicas(cards: Iterable[ListedModel]) -> Mapping[str, int]:
    """Replicas by model, where the server reports them."""
    return {c.id: c.replicas for c in cards if c.is_base_model and c.replicas is not None}
