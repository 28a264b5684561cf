"""Caches beside vLLM's own KV cache: those that keep the scopes of requests apart, and all others.

vLLM keeps requests with different salts apart in its prefix cache. What `engine_args` add to it may
not: a KV connector finds blocks by keys of its own, and suffix decoding guesses what comes next
from the answers of all requests.

Source: vLLM 0.32, `vllm/distributed/kv_transfer/kv_connector/v1`, `vllm/v1/spec_decode`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import JsonValue

from gateway.config.references import Reference
from gateway.config.strict import FieldError

CacheIsolation = Literal["required", "trusted", "none"]

BY_SALTED_HASH = frozenset(
    {"MooncakeStoreConnector", "OffloadingConnector", "SimpleCPUOffloadConnector"}
)
"""Connectors that find blocks by vLLM's own hashes, which begin with the salt."""
BY_REQUEST = frozenset(
    {"MooncakeConnector", "NixlConnector", "NixlPullConnector", "NixlPushConnector"}
)
"""Connectors that move blocks only for requests whose `kv_transfer_params` say so, which engines
refuse where a request's caches are private."""
ISOLATING_CONNECTORS = BY_SALTED_HASH | BY_REQUEST
MULTIPLE = "MultiConnector"
"""Connector that consists of others."""
_WHAT_TO_DO = (
    " `cache_isolation: none` runs the model for projects whose caches are shared by all, and"
    " `trusted` for all projects, if you know that their caches stay apart"
)


def shared_caches(engine_args: Mapping[str, JsonValue]) -> Iterator[FieldError]:
    """Arguments by which requests may share a cache whatever their scopes.

    Each path begins with an argument's name.
    """
    connector = _mapping(engine_args.get("kv_transfer_config"))
    for name in _unknown_connectors(connector):
        message = f"the connector {name} is not known to keep the caches of projects apart."
        yield FieldError(("kv_transfer_config",), message + _WHAT_TO_DO)
    if engine_args.get("kv_offloading_backend") == "lmcache":
        message = "whether it keeps the caches of projects apart is up to the LMCache server."
        yield FieldError(("kv_offloading_backend",), message + _WHAT_TO_DO)
    speculation = _mapping(engine_args.get("speculative_config"))
    remembered = speculation.get("suffix_decoding_max_cached_requests", 10_000)
    if speculation.get("method") == "suffix" and remembered != 0:
        message = (
            "suffix decoding is faster where another project has had the same answer:"
            " `suffix_decoding_max_cached_requests: 0` keeps it to each request."
        )
        yield FieldError(("speculative_config",), message + _WHAT_TO_DO)


def _unknown_connectors(config: Mapping[str, JsonValue]) -> Iterator[str]:
    """Connectors of vLLM's `KVTransferConfig` that are not known to keep caches apart."""
    name = config.get("kv_connector")
    if name is None or Reference.of(name):
        return
    if config.get("kv_connector_module_path"):
        yield f"`{name}` of another module"
    elif name == MULTIPLE:
        inner = _mapping(config.get("kv_connector_extra_config")).get("connectors")
        for each in inner if isinstance(inner, list) else ():
            yield from _unknown_connectors(_mapping(each))
    elif name not in ISOLATING_CONNECTORS:
        yield f"`{name}`"


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    """A mapping, or its JSON, as vLLM's command line takes it; empty for anything else."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}
