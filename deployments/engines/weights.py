"""Files of models and adapters: a path on this node, or a name on a model hub."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.config.model_paths import found_path, is_path, places
from gateway.errors.request import AdapterBroken
from gateway.errors.startup import ConfigError

CONFIG = "adapter_config.json"
USUAL_RANK = 16
"""Rank assumed of adapters whose configuration cannot be read."""

logger = logging.getLogger("ray.serve")


class _LoraConfig(msgspec.Struct):
    """Fields of PEFT's configuration that an engine needs at its start."""

    r: int
    rank_pattern: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """Files of an adapter, as PEFT writes them: under one of `roots`, or on a model hub."""

    name: str
    source: str
    roots: tuple[Path, ...] = ()

    def local(self) -> Path | None:
        """Folder of the files on this node; None if they are on the hub.

        Raises:
            AdapterBroken: they do not exist.
        """
        try:
            found = Path(resolve_source(self.source, self.roots))
        except ConfigError as error:
            logger.error("adapter %s: %s", self.name, error)  # noqa: TRY400 - the message says all
            raise AdapterBroken(self.name, "its files do not exist") from error
        return found if found.is_absolute() else None

    def folder(self, download: Callable[[str], str]) -> Path:
        """Folder of the files on this node; `download` fetches them from the hub.

        Raises:
            AdapterBroken: they do not exist.
        """
        found = self.local() or self._downloaded(download)
        if not found.is_dir():
            raise AdapterBroken(self.name, "its files could not be downloaded")
        return found

    def rank(self, folder: Path) -> int:
        """Largest rank of the adapter in any layer.

        Raises:
            AdapterBroken: it is not a LoRA adapter.
        """
        try:
            config = msgspec.json.decode((folder / CONFIG).read_bytes(), type=_LoraConfig)
        except (OSError, msgspec.MsgspecError) as error:
            logger.error("adapter %s: %s: %s", self.name, folder / CONFIG, error)  # noqa: TRY400
            raise AdapterBroken(self.name, f"it has no {CONFIG} of a LoRA adapter") from error
        return max(config.r, *(config.rank_pattern or {}).values(), 0)

    async def first_rank(self, download_config: Callable[[str], str], within_s: float) -> int:
        """Rank of the adapter, read before its files are needed; 0 if they do not exist.

        `download_config`: fetches only its configuration from the hub. If that fails or takes
        longer than `within_s`, `USUAL_RANK`: the hub may answer later.
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
                "adapter %s: rank unknown (%s), assuming at most %d; set engine_args.max_lora_rank "
                "if it is higher",
                *(self.name, str(error) or "the model hub does not answer", USUAL_RANK),
            )
            return USUAL_RANK

    def _downloaded(self, download: Callable[[str], str]) -> Path:
        try:
            return Path(download(self.source))
        except Exception as error:
            # A hub's client raises whatever its network does.
            logger.exception("adapter %s: could not be downloaded from the hub", self.name)
            raise AdapterBroken(self.name, "its files could not be downloaded") from error


def resolve_source(source: str, roots: Iterable[Path]) -> str:
    """Absolute path of `source` under the first of `roots` that has it, else `source` itself.

    Raises:
        ConfigError: `source` is a path (`is_path` says which are) that does not exist.
    """
    roots = list(roots)
    if found := found_path(source, roots):
        return str(found)
    if is_path(source):
        looked = ", ".join(map(str, places(source, roots)))
        raise ConfigError(
            f"source: no model directory {source!r} on this node (looked at {looked})"
        )
    return source
