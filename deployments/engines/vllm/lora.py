"""What vLLM does with adapters, and the names it answers to.

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

from deployments.engines.adapters import Adapters
from deployments.engines.call import current_call
from deployments.engines.weights import CONFIG, USUAL_RANK, AdapterFiles
from gateway.errors import AdapterBroken

logger = logging.getLogger(__name__)

EMPTY_SLOTS = 2
"""Slots on the CPU beyond the adapters that are loaded: for one that is coming, and one that is
always empty. In a batch with any adapter, vLLM 0.32's CPU kernels (`torch_ops/lora_ops.py`) take
the -1 that stands for none as an index, and so give the last slot's to requests for the model."""

CONFIG_S = 20.0
"""How long a start waits for the model hub to tell the adapters' ranks."""

_NOTHING: Mapping[str, JsonValue] = {}
_O = TypeVar("_O")
_WORKER_SAID = re.compile(r"Worker failed with error '(.*)', please check .*")


async def kept(
    adapters: Adapters, name: str, outputs: AsyncGenerator[_O, None]
) -> AsyncGenerator[_O, None]:
    """The outputs of a request for an adapter, which is kept loaded meanwhile."""
    async with aclosing(outputs):
        try:
            async with adapters.using(name):
                async for output in outputs:
                    yield output
        except AdapterBroken as error:
            raise ValueError(str(error)) from error  # which vLLM's routes answer with a 400


class Loras:
    """vLLM's side of a replica's adapters."""

    def __init__(self, files: Sequence[AdapterFiles]) -> None:
        self.llm: AsyncLLM | None = None
        self.requests = Requests()
        self._files = {each.name: each for each in files}
        self._ids = {each.name: number for number, each in enumerate(files, 1)}
        self._folders: dict[str, Path] = {}

    async def arguments(
        self, most: int, entry: Mapping[str, JsonValue] = _NOTHING
    ) -> dict[str, JsonValue]:
        """What vLLM has to know of them at its start, beside the arguments of `entry`."""
        slots = most + EMPTY_SLOTS if current_platform.is_cpu() else most
        return {
            "enable_lora": True,
            "max_loras": slots,
            # The one that has to go leaves after the one that comes.
            "max_cpu_loras": max(slots, most + 1),
            "max_lora_rank": entry.get("max_lora_rank") or await self._max_rank(),
        }

    async def fetch(self, name: str) -> None:
        """Download an adapter's files.

        Raises:
            AdapterBroken: they are not there.
        """
        try:
            await asyncio.to_thread(self._folder, name)
        except AdapterBroken:
            self.requests.forget(name)
            raise

    async def load(self, name: str) -> None:
        """Have all workers load an adapter.

        Raises:
            AdapterBroken: it is not there, or vLLM does not take it.
        """
        try:
            await self._load(name)
        except AdapterBroken:
            self.requests.forget(name)
            raise

    async def unload(self, name: str) -> None:
        """Have all workers forget an adapter."""
        await self._engine.remove_lora(self._ids[name])

    async def _load(self, name: str) -> None:
        folder = await asyncio.to_thread(self._folder, name)
        request = LoRARequest(name, self._ids[name], self._path(name, folder))
        try:
            await self._engine.add_lora(request)
        except EngineDeadError:
            raise
        except Exception as error:
            logger.exception("vLLM does not take the adapter %s in %s", name, folder)
            await self._clear(name)
            # Where the files are is nobody's business.
            reason = _reason(error).replace(str(folder), self._files[name].source)
            raise AdapterBroken(name, reason) from error
        self.requests.note(request)

    async def _clear(self, name: str) -> None:
        """Have the workers forget what some of them may have of an adapter that others refuse."""
        try:
            await self.unload(name)
        except Exception:
            # Why it was refused is the answer; this is only in the log.
            logger.exception("the adapter %s could not be cleared away", name)

    async def _max_rank(self) -> int:
        """The rank that vLLM has to make room for: of those it can have, the least that is enough.

        Of an adapter on the hub only the configuration is looked for.
        """
        ranks = get_args(MaxLoRARanks)
        found = await asyncio.gather(
            *(each.first_rank(_download_config, CONFIG_S) for each in self._files.values())
        )
        largest = max((rank for rank in found if rank <= max(ranks)), default=0) or USUAL_RANK
        return int(min(rank for rank in ranks if rank >= largest))

    def _path(self, name: str, folder: Path) -> str:
        """Where the workers find an adapter; `folder`: where it is on this node."""
        backend = self._engine.vllm_config.parallel_config.distributed_executor_backend
        files = self._files[name]
        # Ray's workers may be on nodes that have not downloaded it: vLLM has each of them do so.
        return files.source if backend == "ray" and files.local() is None else str(folder)

    @property
    def _engine(self) -> AsyncLLM:
        if self.llm is None:
            raise RuntimeError("vLLM has not started")
        return self.llm

    def _folder(self, name: str) -> Path:
        folder = self._folders.get(name)
        if folder is None or not folder.is_dir():
            folder = self._folders[name] = self._files[name].folder(get_adapter_absolute_path)
        self._files[name].rank(folder)
        return folder


class Requests(Mapping[str, LoRARequest]):
    """The adapters that vLLM has taken, by any name under which a client may ask for them.

    There are none to go through: vLLM would look for one named as a kind of content (`image`).
    """

    def __init__(self) -> None:
        self._requests: dict[str, LoRARequest] = {}

    def __getitem__(self, name: str) -> LoRARequest:
        return self._requests[_target(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def note(self, request: LoRARequest) -> None:
        """VLLM has taken an adapter."""
        self._requests[request.lora_name] = request

    def forget(self, name: str) -> None:
        """It does not take it any more."""
        self._requests.pop(name, None)


class Names(OpenAIServingModels):
    """Which model or adapter answers as which name, for all of vLLM's routes."""

    adapters: Adapters

    @classmethod
    def adopt(cls, models: OpenAIServingModels, requests: Requests, adapters: Adapters) -> None:
        """Take over from the object that `init_app_state` has made and given to all routes."""
        models.__class__ = cls
        models.lora_requests = requests
        models.adapters = adapters
        if adapters.names:
            # Unset, vLLM's routes do not call `resolve_lora` for a name that they do not know. It
            # is set once the application is made, which would have routes that load any path.
            os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"

    def is_base_model(self, model_name: str) -> bool:
        """Whether the model itself answers."""
        return bool(super().is_base_model(_target(model_name)))

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """What replies call it: as the client does."""
        target = str(super().model_name(lora_request))
        call = current_call()
        return call.shown(target) if call else target

    async def resolve_lora(self, lora_name: str) -> LoRARequest | ErrorResponse:
        """Have an adapter loaded that vLLM has not seen yet, or say why it cannot be."""
        name = _target(lora_name)
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
    """What went wrong in a worker, without what its way here has added."""
    said = str(error).partition("\n")[0].removeprefix("Call to add_lora method failed: ")
    worker = _WORKER_SAID.fullmatch(said)
    return worker[1] if worker else said


def _download_config(source: str) -> str:
    """An adapter's configuration from the hub."""
    if envs.VLLM_USE_MODELSCOPE:
        return str(Path(get_adapter_absolute_path(source)) / CONFIG)
    return str(hf_api().hf_hub_download(source, CONFIG))


def _target(name: str) -> str:
    """The model or adapter that answers where a client asks for `name`."""
    call = current_call()
    return call.target(name) if call else name
