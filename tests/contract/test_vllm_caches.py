"""The installed vLLM, without an engine: what keeps the caches of projects apart."""

import importlib.util
import json
from typing import Any

import pytest

from tests.contract.with_vllm import run_script

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")

SCRIPT = r"""
import asyncio, json, types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.parse import AudioProcessorItems, MultiModalDataItems
from vllm.multimodal.processing.inputs import ProcessorInputs

from deployments.engines import call as calls
from deployments.engines.call import CallContext
from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from deployments.engines.vllm.cache_guard import CacheGuard, check_isolation
from gateway.config.cache_isolation import ISOLATING_CONNECTORS, MULTIPLE
from gateway.errors.startup import ConfigError
from gateway.identity.cache_scope import CacheSalts
from gateway.telemetry.dispatch import Dispatch, Origin

said = {}
SCOPES = {"none": None, "all": "", "a": "project:a", "b": "project:b"}

def enter(scope):
    name = SCOPES[scope]
    origin = None if name is None else Origin(cache_scope=name)
    calls._context.set(CallContext(Dispatch(id=1, origin=origin)))

# Connectors.
registered = KVConnectorFactory._registry
said["unregistered"] = sorted({*ISOLATING_CONNECTORS, MULTIPLE} - set(registered))

def verdict(**arguments):
    args = parse_arguments({**DEFAULTS, "model": "models/demo", **arguments})
    try:
        check_isolation(AsyncEngineArgs.from_cli_args(args).create_engine_config())
    except ConfigError as error:
        return str(error)
    return "fine"

role = {"kv_role": "kv_both"}
said["verdicts"] = {
    "none": verdict(),
    "example": verdict(kv_transfer_config={"kv_connector": "ExampleConnector", **role}),
    "native": verdict(kv_offloading_size=1),
    "ngram": verdict(speculative_config={"method": "ngram", "num_speculative_tokens": 2}),
}

# Media, by their content and by the client's own name of them.
class Renderer:
    def _process_multimodal(self, prompt, data, uuids, options, media_io_kwargs=None):
        items = MultiModalDataItems({"audio": AudioProcessorItems(data)})
        inputs = ProcessorInputs(prompt, items, {"audio": uuids}, hf_processor_mm_kwargs=options,
                                 media_io_kwargs=media_io_kwargs or {})
        return inputs.get_mm_hashes("m", "blake3")["audio"]
    async def _process_multimodal_async(self, *args, **options):
        return self._process_multimodal(*args, **options)

class Processor:
    def process_inputs(self, own): return types.SimpleNamespace(cache_salt=own)
    async def process_inputs_async(self, own): return self.__class__.process_inputs(self, own)

renderer, processor = Renderer(), Processor()
renderer._executor = ThreadPoolExecutor(1)
model = types.SimpleNamespace(is_multimodal_model=True)
llm = types.SimpleNamespace(input_processor=processor, renderer=renderer, model_config=model)
plain = renderer._process_multimodal
guard = CacheGuard(CacheSalts(b"key"))
guard.attach(llm)
SOUNDS = [np.zeros(8), np.zeros(8)]

async def media(scope):
    enter(scope)
    return await renderer._process_multimodal_async(
        [1], SOUNDS, [None, "logo"], {}, media_io_kwargs={"audio": {}})

async def media_of_a_pooling_route(scope):
    enter(scope)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(renderer._executor, lambda: renderer._process_multimodal(
        [1], SOUNDS, [None, "logo"], {}, media_io_kwargs=None))

async def salt(scope, own):
    enter(scope)
    salts = {processor.process_inputs(own).cache_salt,
             (await processor.process_inputs_async(own)).cache_salt}
    return " or ".join(map(str, salts)) if salts != {None} else None

said["media"] = {scope: asyncio.run(media(scope)) for scope in SCOPES}
said["again"] = asyncio.run(media("a"))
said["pooling"] = {scope: asyncio.run(media_of_a_pooling_route(scope)) for scope in SCOPES}
said["vLLM's"] = plain([1], SOUNDS, [None, "logo"], {}, media_io_kwargs={})

# Salts.
said["salts"] = {f"{scope} {own}": asyncio.run(salt(scope, own))
                 for scope in SCOPES for own in (None, "mine")}

# Refusals.
def refusal(scope, guard=guard, **extra):
    enter(scope)
    try:
        guard.check(extra or None)
    except VLLMValidationError as error:
        return str(error)
    return "fine"
said["transfers"] = {scope: refusal(scope, kv_transfer_params={"do_remote_prefill": True})
                     for scope in SCOPES}
said["encoded"] = refusal("a", ec_transfer_params={"x": 1})
said["others"] = refusal("a", kv_transfer_params=None, temperature=1)
shared = CacheGuard(CacheSalts(b"key"), has_private_caches=False)
said["shared"] = {scope: refusal(scope, shared) for scope in SCOPES}
print("SAID" + json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """Output of the script, run in a process of its own: importing vLLM changes much."""
    ended = run_script(SCRIPT)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("SAID")]
    assert lines, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("SAID"))
    return found


def test_all_connectors_that_are_allowed_exist(said: dict[str, Any]) -> None:
    """Under a name that vLLM gives to another one, they would not be those that were read."""
    assert said["unregistered"] == []


def test_caches_that_ignore_salts_are_refused(said: dict[str, Any]) -> None:
    """However vLLM was told to use them; its own offloading keeps scopes apart."""
    verdicts = said["verdicts"]
    assert verdicts["none"] == verdicts["native"] == verdicts["ngram"] == "fine"
    assert "kv_transfer_config: the connector `ExampleConnector`" in str(verdicts["example"])


def test_every_request_has_the_salt_of_its_scope(said: dict[str, Any]) -> None:
    """And the client's own in it; without authentication, the client's is left as it is."""
    salts = said["salts"]
    assert (salts["none None"], salts["none mine"], salts["all None"]) == (None, "mine", None)
    derived = [salts[name] for name in ("all mine", "a None", "a mine", "b None", "b mine")]
    assert len({*derived, "mine", None}) == 7
    assert not any(" or " in str(salt) for salt in derived)


@pytest.mark.parametrize("route", ["media", "pooling"])
def test_media_are_cached_by_scope(said: dict[str, Any], route: str) -> None:
    """By their content, and by the name that a client gives them, which others may give, too."""
    names = said[route]
    assert names["none"] == names["all"] == said["vLLM's"]
    assert names["a"] == said["again"]
    contents, given = zip(names["none"], names["a"], names["b"], strict=True)
    assert len(set(contents)) == len(set(given)) == 3
    assert given[0] == "logo"


def test_blocks_of_other_engines_are_for_nobody_with_private_caches(
    said: dict[str, Any],
) -> None:
    """They could be anybody's."""
    transfers = said["transfers"]
    assert transfers["none"] == transfers["all"] == said["others"] == "fine"
    assert "parameter=kv_transfer_params" in str(transfers["a"])
    assert "parameter=ec_transfer_params" in str(said["encoded"])


def test_an_engine_with_shared_caches_refuses_private_scopes(
    said: dict[str, Any],
) -> None:
    """While its entry changes, a router may take it for one that keeps them apart."""
    shared = said["shared"]
    assert shared["none"] == shared["all"] == "fine"
    assert "share their caches" in str(shared["a"])
