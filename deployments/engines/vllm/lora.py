"""LoRA adapters in vLLM, and the names that its routes answer to.

Written against vLLM 0.32. Of what vLLM's engine core can do with adapters, these are the parts that
are safe: a step that has to load an adapter by itself, and cannot, ends the core.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import JsonValue
from vllm import envs
from vllm.config.lora import MaxLoRARanks
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_adapter_absolute_path
from vllm.platforms import current_platform
from vllm.transformers_utils.repo_utils import hf_api
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.engines.adapters import AdapterCache
from deployments.engines.call import current_call
from deployments.engines.vllm.version import SUPPORTED, UnsupportedVersion
from deployments.engines.weights import CONFIG, USUAL_RANK, AdapterFiles
from gateway.errors.request import AdapterBroken

logger = logging.getLogger(__name__)

EMPTY_SLOTS = 2
"""Slots on the CPU beyond the loaded adapters: one for an adapter that is being loaded, one that is
always empty. In a batch with any adapter, vLLM 0.32's CPU kernels (`torch_ops/lora_ops.py`) use
the -1 that stands for no adapter as an index, and so apply the last slot's to requests without."""

RANK_TIMEOUT_S = 20.0
"""Time that a start waits for the adapters' configurations from the model hub."""

_NOTHING: Mapping[str, JsonValue] = {}
_O = TypeVar("_O")
_WORKER_ERROR = re.compile(r"Worker failed with error '(.*)', please check .*")


async def while_adapter_loaded(
    adapters: AdapterCache, name: str, outputs: AsyncGenerator[_O, None]
) -> AsyncGenerator[_O, None]:
    """Outputs of a request for an adapter, which is kept loaded meanwhile."""
    async with aclosing(outputs):
        try:
            async with adapters.using(name):
                async for output in outputs:
                    yield output
        except AdapterBroken as error:
            raise ValueError(str(error)) from error  # vLLM's routes turn it into a 400


async def lora_arguments(
    files: Sequence[AdapterFiles], most: int, entry: Mapping[str, JsonValue] = _NOTHING
) -> dict[str, JsonValue]:
    """Arguments of vLLM for adapters of which `most` are loaded, beside those of `entry`."""
    slots = most + EMPTY_SLOTS if current_platform.is_cpu() else most
    return {
        "enable_lora": True,
        "max_loras": slots,
        # An adapter is unloaded only after another one has been loaded.
        "max_cpu_loras": max(slots, most + 1),
        "max_lora_rank": entry.get("max_lora_rank") or await _max_rank(files),
    }


async def _max_rank(files: Sequence[AdapterFiles]) -> int:
    """The smallest rank that vLLM accepts and that is enough for all adapters.

    Of an adapter on the hub only the configuration is downloaded.
    """
    ranks = get_args(MaxLoRARanks)
    found = await asyncio.gather(
        *(each.first_rank(_download_config, RANK_TIMEOUT_S) for each in files)
    )
    largest = max((rank for rank in found if rank <= max(ranks)), default=0) or USUAL_RANK
    return int(min(rank for rank in ranks if rank >= largest))


class LoraLoader:
    """Loads and unloads a replica's adapters in all of vLLM's workers."""

    def __init__(self, llm: AsyncLLM, files: Sequence[AdapterFiles], loaded: "LoadedLoras") -> None:
        self._llm = llm
        self._loaded = loaded
        self._files = {each.name: each for each in files}
        self._ids = {each.name: number for number, each in enumerate(files, 1)}
        self._folders: dict[str, Path] = {}

    async def fetch(self, name: str) -> None:
        """Download an adapter's files.

        Raises:
            AdapterBroken: they do not exist.
        """
        try:
            await asyncio.to_thread(self._folder, name)
        except AdapterBroken:
            self._loaded.remove(name)
            raise

    async def load(self, name: str) -> None:
        """Load an adapter in all workers.

        Raises:
            AdapterBroken: its files do not exist, or vLLM rejects it.
        """
        try:
            await self._load(name)
        except AdapterBroken:
            self._loaded.remove(name)
            raise

    async def unload(self, name: str) -> None:
        """Unload an adapter in all workers."""
        await self._llm.remove_lora(self._ids[name])

    async def _load(self, name: str) -> None:
        folder = await asyncio.to_thread(self._folder, name)
        request = LoRARequest(name, self._ids[name], self._path(name, folder))
        try:
            await self._llm.add_lora(request)
        except EngineDeadError:
            raise
        except Exception as error:
            logger.exception("adapter %s: vLLM rejects the files in %s", name, folder)
            await self._clear(name)
            # Clients must not see where the files are.
            reason = _reason(error).replace(str(folder), self._files[name].source)
            raise AdapterBroken(name, reason) from error
        self._loaded.add(request)

    async def _clear(self, name: str) -> None:
        """Unload an adapter that some workers may have loaded and others rejected."""
        try:
            await self.unload(name)
        except Exception:
            # The client gets the reason for the rejection; this is only in the log.
            logger.exception("adapter %s: could not be unloaded after a failed load", name)

    def _path(self, name: str, folder: Path) -> str:
        """Path or name by which the workers find an adapter that is in `folder` on this node."""
        backend = self._llm.vllm_config.parallel_config.distributed_executor_backend
        files = self._files[name]
        # Ray's workers may be on nodes that have not downloaded it: with its name, each one does.
        return files.source if backend == "ray" and files.local() is None else str(folder)

    def _folder(self, name: str) -> Path:
        folder = self._folders.get(name)
        if folder is None or not folder.is_dir():
            folder = self._folders[name] = self._files[name].folder(get_adapter_absolute_path)
        self._files[name].rank(folder)
        return folder


class LoadedLoras(Mapping[str, LoRARequest]):
    """Adapters that vLLM has loaded, by any name under which a client may ask for them.

    As vLLM's `lora_requests` it has entries, and claims none when they are listed: vLLM would look
    among them for one named as a kind of content (`image`), and apply it unasked.
    """

    def __init__(self) -> None:
        self._requests: dict[str, LoRARequest] = {}

    def __getitem__(self, name: str) -> LoRARequest:
        return self._requests[_resolved(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def add(self, request: LoRARequest) -> None:
        """Add an adapter that vLLM has loaded."""
        self._requests[request.lora_name] = request

    def remove(self, name: str) -> None:
        """Remove an adapter that vLLM does not load any longer."""
        self._requests.pop(name, None)


class AliasedModels(OpenAIServingModels):
    """vLLM's list of models and adapters, which resolves the gateway's names for them."""

    adapters: AdapterCache

    @classmethod
    def adopt(
        cls, models: OpenAIServingModels, loaded: LoadedLoras, adapters: AdapterCache
    ) -> None:
        """Take the place of the object that `init_app_state` has made and given to all routes.

        Raises:
            UnsupportedVersion: the object cannot be replaced in this version of vLLM.
        """
        for name in ("lora_requests", "is_base_model", "model_name", "resolve_lora"):
            if not hasattr(models, name):
                raise UnsupportedVersion(
                    f"vLLM's {type(models).__name__} has no `{name}`: this gateway supports vLLM"
                    f" {SUPPORTED}"
                )
        try:
            models.__class__ = cls
        except TypeError as error:
            raise UnsupportedVersion(
                f"vLLM's `openai_serving_models` is a {type(models).__name__}, which cannot be"
                f" extended: this gateway supports vLLM {SUPPORTED}"
            ) from error
        models.lora_requests = loaded
        models.adapters = adapters
        if adapters.names:
            # Without it, vLLM's routes do not call `resolve_lora` for names that they do not know.
            # It is set after the application is made, which would add routes that load any path.
            os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"

    def is_base_model(self, model_name: str) -> bool:
        """Whether the model itself answers."""
        return bool(super().is_base_model(_resolved(model_name)))

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """The name that responses show: the one that the client asked for."""
        resolved = str(super().model_name(lora_request))
        call = current_call()
        return call.client_name(resolved) if call else resolved

    async def resolve_lora(self, lora_name: str) -> LoRARequest | ErrorResponse:
        """Load an adapter that vLLM has not loaded yet, or answer why it cannot be."""
        name = _resolved(lora_name)
        if name not in self.adapters.names:
            return create_error_response(
                f"The model `{lora_name}` does not exist.", "NotFoundError", HTTPStatus.NOT_FOUND
            )
        try:
            await self.adapters.prepare(name)
        except AdapterBroken as error:
            return create_error_response(error.message, param="model")
        return self.lora_requests[name]


def _reason(error: Exception) -> str:
    """A worker's error message, without what other processes have added."""
    message = str(error).partition("\n")[0].removeprefix("Call to add_lora method failed: ")
    worker = _WORKER_ERROR.fullmatch(message)
    return worker[1] if worker else message


def _download_config(source: str) -> str:
    """Download an adapter's configuration from the hub; its path."""
    if envs.VLLM_USE_MODELSCOPE:
        return str(Path(get_adapter_absolute_path(source)) / CONFIG)
    return str(hf_api().hf_hub_download(source, CONFIG))


def _resolved(name: str) -> str:
    """The model or adapter that answers a client's request for `name`."""
    call = current_call()
    return call.resolve(name) if call else name
