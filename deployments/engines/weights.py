"""An adapter's files, as PEFT writes them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.errors import AdapterBroken, ConfigError

CONFIG = "adapter_config.json"
USUAL_RANK = 16
"""What adapters are thought to have of which nothing can be read."""

logger = logging.getLogger("ray.serve")


class _LoraConfig(msgspec.Struct):
    """What of PEFT's configuration an engine is set up by."""

    r: int
    rank_pattern: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """Where an adapter's files are: a path under one of `roots`, or a name on a model hub."""

    name: str
    source: str
    roots: tuple[Path, ...] = ()

    def local(self) -> Path | None:
        """The folder they are in on this node; None if they are on the hub.

        Raises:
            AdapterBroken: there are none.
        """
        try:
            found = Path(resolve_source(self.source, self.roots))
        except ConfigError as error:
            logger.error("adapter %s: %s", self.name, error)  # noqa: TRY400 - the message says all
            raise AdapterBroken(self.name, "its files are not there") from error
        return found if found.is_absolute() else None

    def folder(self, download: Callable[[str], str]) -> Path:
        """The folder they are in on this node; `download` fetches them from the hub.

        Raises:
            AdapterBroken: there are none.
        """
        found = self.local() or self._downloaded(download)
        if not found.is_dir():
            raise AdapterBroken(self.name, "its files could not be downloaded")
        return found

    def rank(self, folder: Path) -> int:
        """The largest rank it has in any layer.

        Raises:
            AdapterBroken: it is no LoRA adapter.
        """
        try:
            config = msgspec.json.decode((folder / CONFIG).read_bytes(), type=_LoraConfig)
        except (OSError, msgspec.MsgspecError) as error:
            logger.error("adapter %s: %s: %s", self.name, folder / CONFIG, error)  # noqa: TRY400
            raise AdapterBroken(self.name, f"it has no {CONFIG} of a LoRA adapter") from error
        return max(config.r, *(config.rank_pattern or {}).values(), 0)

    async def first_rank(self, download_config: Callable[[str], str], within_s: float) -> int:
        """Its rank, before there is a need for its files; 0 if they are not there.

        `download_config`: fetches its configuration, and no more, from the hub. If that fails or
        is not there in time, `USUAL_RANK`: the hub may answer later.
        """
        try:
            if folder := self.local():
                return self.rank(folder)
        except AdapterBroken:
            return 0
        try:
            async with asyncio.timeout(within_s):
                found = await asyncio.to_thread(self._downloaded, download_config)
                return self.rank(found.parent)
        except (AdapterBroken, TimeoutError) as error:
            logger.warning(
                "adapter %s: its rank is unknown (%s), and taken to be at most %d; "
                "engine_args.max_lora_rank sets another one",
                *(self.name, str(error) or "the model hub does not answer", USUAL_RANK),
            )
            return USUAL_RANK

    def _downloaded(self, download: Callable[[str], str]) -> Path:
        try:
            return Path(download(self.source))
        except Exception as error:
            # A hub's client raises whatever its network does.
            logger.exception("adapter %s could not be downloaded", self.name)
            raise AdapterBroken(self.name, "its files could not be downloaded") from error


def resolve_source(source: str, roots: Iterable[Path]) -> str:
    """The absolute path of `source` under the first of `roots` that has it, else `source` itself.

    Raises:
        ConfigError: `source` can only be a path (it starts with `.`, `/` or `~`), and is not there.
    """
    path = Path(source).expanduser()
    searched = [Path()] if path.is_absolute() else list(roots)
    for root in searched:
        if (found := root / path).is_dir():
            return str(found.resolve())
    if path.is_absolute() or source.startswith("."):
        places = ", ".join(str((root / path).absolute()) for root in searched)
        raise ConfigError(
            f"source: no model directory {source!r} on this node (looked at {places})"
        )
    return source
