"""Loader of images, audio and video: vLLM's own, behind the model entry's policy.

vLLM 0.32 loads media through one class, whatever route and spelling named them, and lets a server
register its own (`MEDIA_CONNECTOR_REGISTRY`). Ours makes up for the following:

- an empty `allowed_media_domains` allows every host, loopback included, also for text models, whose
  embedding routes fetch before they refuse; and an allowed host is allowed on every port;
- the loader of embedding routes has no limit on the whole fetch, only on each read, and holds the
  renderer's only thread meanwhile; every retry has four times as long;
- media that cannot be fetched or read are server errors, which routers try again elsewhere.

Not covered: what an allowed host's name resolves to. Allow only hosts that you trust.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from urllib3.util import Url, parse_url
from vllm.connections import HTTPConnection
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.multimodal.media.base import MediaIO
from vllm.renderers.chat_utils import BaseMultiModalItemTracker

from gateway.config.media import MediaOptions

logger = logging.getLogger(__name__)

CONNECTOR = "gateway"
STANDARD_PORTS = {"http": 80, "https": 443}


class MediaPolicy:
    """Decides which addresses of media may be loaded."""

    def __init__(self, options: MediaOptions, *, takes_media: bool) -> None:
        self._hosts = frozenset(options.domains)
        self._takes_media = takes_media

    def check_part(self, modality: str) -> None:
        """Raise if the model takes no part of this modality, whatever it has.

        Raises:
            VLLMValidationError: names the part.
        """
        if not self._takes_media and modality != "prompt_embeds":
            part = modality if modality.endswith("_embeds") else f"{modality}_url"
            _refuse(part, "this model takes text only")

    def check(self, address: str, part: str) -> None:
        """Raise if `address` may not be loaded; `part` names what the request calls it.

        Raises:
            VLLMValidationError: says why.
        """
        if not self._takes_media:
            _refuse(part, "this model takes text only")
        if address[:5].lower() == "data:":
            return
        try:
            url = parse_url(address)
        except ValueError:
            _refuse(part, "its URL is malformed")
        if url.scheme not in STANDARD_PORTS:
            _refuse(part, f"found a {url.scheme or 'relative'} URL; expected a `data:` URL")
        if not self._hosts:
            _refuse(part, "this model fetches nothing; send a `data:` URL")
        if not self._allows(url):
            _refuse(part, f"this model fetches nothing from {url.netloc!r}; send a `data:` URL")

    def _allows(self, url: Url) -> bool:
        is_standard = url.port in (None, STANDARD_PORTS[str(url.scheme)])
        return f"{url.host}:{url.port}" in self._hosts or (is_standard and url.host in self._hosts)


class _BoundedConnection(HTTPConnection):
    """Connection whose blocking fetch is over after `timeout`, however slowly the parts come."""

    def get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        max_bytes: int | None = None,
    ) -> bytes:
        """Fetch a file, in an event loop of its own: there, the timeout is for the whole."""
        fetch = _fetch(url, timeout=timeout, allow_redirects=allow_redirects, max_bytes=max_bytes)
        with ThreadPoolExecutor(1, "media-fetch") as thread:
            return thread.submit(asyncio.run, fetch).result()


async def _fetch(url: str, **options: Any) -> bytes:  # noqa: ANN401 - vLLM's
    connection = HTTPConnection()
    try:
        data: bytes = await connection.async_get_bytes(url, **options)
        return data
    finally:
        await (await connection.get_async_client()).close()


class PolicedConnector(MediaConnector):
    """vLLM's connector behind a `MediaPolicy`; a subclass for each engine has its `policy`."""

    policy: MediaPolicy

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as vLLM calls it
        super().__init__(*args, **{"connection": _BoundedConnection(), **options})

    def load_from_url(
        self, url: str, media_io: MediaIO[Any], *, fetch_timeout: int | None = None
    ) -> Any:  # noqa: ANN401 - what `media_io` makes of it
        """Load what a part of the request names; for the routes that load in a thread."""
        with _as_client_error(self.policy, url, media_io):
            return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    async def load_from_url_async(
        self, url: str, media_io: MediaIO[Any], *, fetch_timeout: int | None = None
    ) -> Any:  # noqa: ANN401 - what `media_io` makes of it
        """Load what a part of the request names."""
        with _as_client_error(self.policy, url, media_io):
            return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)


def set_media_limits(options: MediaOptions) -> None:
    """Set vLLM's environment for these options; before vLLM starts."""
    os.environ["VLLM_MEDIA_CONNECTOR"] = CONNECTOR
    os.environ["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0"  # they could lead to any other host
    os.environ["VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"] = str(options.max_mb)
    os.environ["VLLM_MEDIA_FETCH_MAX_RETRIES"] = "1"
    for kind in ("IMAGE", "AUDIO", "VIDEO"):
        os.environ[f"VLLM_{kind}_FETCH_TIMEOUT"] = str(options.timeout_s)


def register_media_policy(policy: MediaPolicy) -> None:
    """Have vLLM load media under `policy` from now on."""
    validate = BaseMultiModalItemTracker._validate_add  # noqa: SLF001

    def check_and_validate(tracker: BaseMultiModalItemTracker[Any], modality: str) -> object:
        policy.check_part(modality)  # vLLM's own refusal does not name the part
        return validate(tracker, modality)

    BaseMultiModalItemTracker._validate_add = check_and_validate  # noqa: SLF001
    connector = type("EngineMediaConnector", (PolicedConnector,), {"policy": policy})
    MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)(connector)


@contextlib.contextmanager
def _as_client_error(policy: MediaPolicy, url: str, media_io: MediaIO[Any]) -> Iterator[None]:
    """Check an address, and turn whatever fails with it into the client's error."""
    part = _part_of(media_io)
    policy.check(url, part)
    try:
        yield
    except (VLLMError, MemoryError):
        raise
    except Exception as error:
        logger.info("media of a request could not be loaded", exc_info=True)
        is_data = url[:5].lower() == "data:"
        action = "read" if is_data else "fetched"
        raise VLLMValidationError(
            f"the file could not be {action} ({type(error).__name__})", parameter=part
        ) from error


def _part_of(media_io: MediaIO[Any]) -> str:
    """Name of the content part that brings such a file."""
    kinds = ("image", "audio", "video")
    name = type(media_io).__name__.lower()
    return next((f"{kind}_url" for kind in kinds if name.startswith(kind)), "content")


def _refuse(part: str, reason: str) -> NoReturn:
    raise VLLMValidationError(reason, parameter=part)
