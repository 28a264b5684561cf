"""Caches beside vLLM's own: refused where they are not known to keep projects apart."""

import json

import pytest

from gateway.config.loader import parse_entry
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

ENTRY = {"name": "m", "engine": "vllm", "source": "org/m"}
EXAMPLE = {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}
NATIVE = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
NIXL = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


def several(*connectors: object) -> dict[str, object]:
    """A connector that consists of others."""
    extra = {"connectors": list(connectors)}
    return {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": extra,
    }


UNSAFE = [
    ({"kv_transfer_config": EXAMPLE}, "the connector `ExampleConnector`"),
    ({"kv_transfer_config": json.dumps(EXAMPLE)}, "the connector `ExampleConnector`"),
    ({"kv_transfer_config": several(NATIVE, EXAMPLE)}, "the connector `ExampleConnector`"),
    ({"kv_transfer_config": several(several(EXAMPLE))}, "the connector `ExampleConnector`"),
    (
        {"kv_transfer_config": {**NATIVE, "kv_connector_module_path": "mine"}},
        "the connector `OffloadingConnector` of another module",
    ),
    ({"kv_transfer_config": {**NATIVE, "kv_connector": "LMCacheConnectorV1"}}, "the connector"),
    ({"kv_transfer_config": {**NATIVE, "kv_connector": "HF3FSKVConnector"}}, "the connector"),
    ({"kv_offloading_size": 4, "kv_offloading_backend": "lmcache"}, "LMCache"),
    ({"speculative_config": {"method": "suffix"}}, "suffix_decoding_max_cached_requests: 0"),
    (
        {"speculative_config": {"method": "suffix", "suffix_decoding_max_cached_requests": 9}},
        "suffix decoding",
    ),
]
SAFE: list[dict[str, object]] = [
    {"kv_offloading_size": 4},
    {"kv_offloading_size": 4, "kv_offloading_backend": "native"},
    {"kv_transfer_config": NATIVE},
    {"kv_transfer_config": json.dumps(NATIVE)},
    {"kv_transfer_config": NIXL},
    {"kv_transfer_config": several(NATIVE, NIXL)},
    {"kv_transfer_config": None},
    {"kv_transfer_config": "env:TRANSFER"},
    {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
    {"speculative_config": {"method": "suffix", "suffix_decoding_max_cached_requests": 0}},
]


@pytest.mark.parametrize(("args", "part"), UNSAFE)
def test_what_may_share_caches_is_refused(args: dict[str, object], part: str) -> None:
    """The error names the argument, the cache, and the field that allows it."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({**ENTRY, "engine_args": args})
    said = str(caught.value)
    assert part in said
    assert any(f"engine_args.{name}: " in said for name in args)
    assert "`cache_isolation: none`" in said


@pytest.mark.parametrize("isolation", ["trusted", "none"])
def test_the_operator_may_allow_it(isolation: str) -> None:
    """For projects that share their caches, or on the operator's own word."""
    for args, _ in UNSAFE:
        entry = parse_entry({**ENTRY, "cache_isolation": isolation, "engine_args": args})
        assert isinstance(entry, VllmEntry)


@pytest.mark.parametrize("args", SAFE)
def test_what_keeps_caches_apart_passes(args: dict[str, object]) -> None:
    """References are checked where the engine starts."""
    parse_entry({**ENTRY, "engine_args": args})
