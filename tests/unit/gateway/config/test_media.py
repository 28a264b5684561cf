"""Media of a vLLM entry: what engines fetch for clients."""

import pytest

from gateway.config.loader import parse_entry
from gateway.config.media import MediaOptions
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

VLLM = {"engine": "vllm", "name": "m", "source": "s"}


def media(**fields: object) -> MediaOptions:
    """The options of an entry with these."""
    entry = parse_entry(VLLM | {"media": fields})
    assert isinstance(entry, VllmEntry)
    return entry.media


def test_by_default_nothing_is_fetched() -> None:
    """No host is allowed, and vLLM gets no empty list, which would allow all of them."""
    assert media().domains == []
    assert media().host_names == ["none.invalid"]


def test_vllm_is_told_the_hosts() -> None:
    """Without ports, which it does not know."""
    assert media(domains=["b:9000", "a.example", "b"]).host_names == ["a.example", "b"]


@pytest.mark.parametrize("domain", ["media.example.com", "10.0.0.1", "minio:9000", "a-b.example:1"])
def test_hosts_are_names_with_or_without_a_port(domain: str) -> None:
    """A port stands for itself, none for the standard ones."""
    assert media(domains=[domain]).domains == [domain]


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "*",
        "*.example.com",
        "https://a.example",
        "a.example/",
        "A.example",
        "a.example.",
        "u@a",
        "a:0",
        "a:65536",
        "a:x",
        "a:",
        "[::1]",
        "a b",
        "-a",
    ],
)
def test_anything_else_is_refused(domain: str) -> None:
    """Patterns, schemes, paths and ports that cannot be would allow nothing, or be misread."""
    with pytest.raises(ConfigError, match=r"media\.domains"):
        media(domains=[domain])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("allowed_media_domains", "media.domains"), ("allowed_local_media_path", "read files")],
)
def test_vllm_s_own_arguments_are_refused(name: str, reason: str) -> None:
    """An empty list of vLLM's allows every host."""
    with pytest.raises(ConfigError, match=reason):
        parse_entry(VLLM | {"engine_args": {name: "x"}})
