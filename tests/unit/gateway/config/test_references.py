"""References to environment variables and files, and how they are resolved."""

import os
import tracemalloc
from pathlib import Path

import pytest

from gateway.config.loader import parse_entry, parse_gateway
from gateway.config.references import MASK, MAX_FILE_BYTES, Reference, Resolver, Unresolved
from gateway.config.resolution import resolve_entry, resolve_gateway
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

ENTRY = {"name": "m", "engine": "vllm", "source": "org/m"}
SECRET = "hf_a_secret_of_the_operator"  # noqa: S105 - it is none
ENVIRON = {"TOKEN": SECRET, "COUNT": "8"}


def resolved(roots: tuple[Path, ...] = (), **fields: object) -> VllmEntry:
    """An entry with these fields, resolved."""
    entry = resolve_entry(parse_entry({**ENTRY, **fields}), Resolver(ENVIRON, roots))
    assert isinstance(entry, VllmEntry)
    return entry


def test_references_are_resolved_in_all_text_of_an_entry(tmp_path: Path) -> None:
    """Also in nested lists and mappings of `engine_args`, in sources, and as numbers."""
    (tmp_path / "token").write_text("from a file\n\n")
    entry = resolved(
        source="env:TOKEN",
        adapters=[{"name": "a", "source": f"file:{tmp_path}/token"}],
        env={"HF_TOKEN": "env:TOKEN", "PLAIN": "as it is"},
        engine_args={
            "max_num_seqs": "env:COUNT",
            "hf_overrides": {"deep": [{"er": "env:TOKEN"}, 1, None]},
        },
    )
    assert entry.source == SECRET
    assert entry.adapters[0].source == "from a file\n"  # one newline at the end is not its content
    assert entry.env == {"HF_TOKEN": SECRET, "PLAIN": "as it is"}
    assert entry.engine_args == {
        "max_num_seqs": "8",
        "hf_overrides": {"deep": [{"er": SECRET}, 1, None]},
    }


def test_no_more_of_a_file_is_read_than_a_value_may_have(tmp_path: Path) -> None:
    """One of 600 MB takes no memory."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(600 << 20)
    reference = Reference.of(f"file:{large}")
    assert reference is not None

    tracemalloc.start()
    with pytest.raises(Unresolved, match="larger than 1 MB"):
        reference.value({})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * MAX_FILE_BYTES


def test_text_that_begins_like_a_reference_is_written_with_two_colons() -> None:
    """It is resolved once: what a reference stands for is taken as it is."""
    environ = {"A": "env:B", "B": "not this"}
    entry = parse_entry({**ENTRY, "env": {"X": "env::B", "Y": "file:::x", "Z": "env:A"}})
    assert resolve_entry(entry, Resolver(environ)).env == {
        "X": "env:B",
        "Y": "file::x",
        "Z": "env:B",
    }


def test_a_relative_file_is_found_under_the_roots(tmp_path: Path) -> None:
    """As relative sources are."""
    (tmp_path / "secret").write_text("value\r\n")
    assert resolved((tmp_path / "none", tmp_path), env={"A": "file:secret"}).env == {"A": "value"}


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("env:NOT_SET", "NOT_SET is not set"),
        ("env:EMPTY", "EMPTY is empty"),
        ("file:/no/such/file", "/no/such/file: No such file or directory"),
        ("file:/", "/ is not a file"),
        ("file:/dev/zero", "/dev/zero is not a file"),
        ("file:{folder}/pipe", "{folder}/pipe is not a file"),
        ("file:{folder}/large", "{folder}/large is larger than 1 MB"),
        ("file:{folder}/binary", "{folder}/binary is not UTF-8 text"),
        ("file:{folder}/loop", "{folder}/loop: Too many levels of symbolic links"),
    ],
)
def test_a_reference_without_a_value_says_why(tmp_path: Path, reference: str, problem: str) -> None:
    """The line names the model and the field."""
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    entry = parse_entry({**ENTRY, "env": {"A": reference.format(folder=tmp_path)}})
    with pytest.raises(ConfigError) as caught:
        resolve_entry(entry, Resolver({"EMPTY": ""}))
    assert str(caught.value) == f'model "m": env.A: {problem.format(folder=tmp_path)}'


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"env": {"A": "env:two words"}}, "env.A: `env:` must be followed by the name of a var"),
        ({"env": {"A": "a\0b"}}, "env.A: must not hold a NUL character"),
        ({"env": {"A": "env:"}}, "env.A: `env:` must be followed by the name of a variable"),
        ({"engine_args": {"tokenizer": "file:"}}, "engine_args.tokenizer: `file:` must be"),
        ({"name": "env:NAME"}, "name: cannot be a reference, because it must be known before"),
        ({"replicas": "env:COUNT"}, "replicas: cannot be a reference, because"),
        ({"max_model_len": "file:/x"}, "max_model_len: cannot be a reference, because"),
        ({"accelerator": {"type": "env:GPU"}}, "accelerator.type: cannot be a reference"),
        ({"routing": {"policy": "env:P"}}, "routing.policy: cannot be a reference"),
        ({"adapters": [{"name": "env:A", "source": "x"}]}, r"adapters\[0\].name: cannot be a ref"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(fields: dict[str, object], problem: str) -> None:
    """It is wrong in itself, or stands where a value must be known before any engine runs."""
    with pytest.raises(ConfigError, match=f": {problem}"):
        parse_entry({**ENTRY, **fields})


def test_no_message_shows_what_a_reference_stands_for() -> None:
    """A value that does not fit is masked, also where the value itself is repeated."""
    entry = parse_entry({**ENTRY, "engine_args": {"max_num_seqs": "env:TOKEN"}})
    with pytest.raises(ConfigError) as caught:
        resolve_entry(entry, Resolver(ENVIRON))
    assert SECRET not in str(caught.value)
    assert f'max_num_seqs: should be a whole number, found "{MASK}"' in str(caught.value)
    resolver = Resolver(ENVIRON)
    resolver.resolved(["env:TOKEN"])
    assert resolver.masked(f"bad {SECRET}!") == f"bad {MASK}!"


def test_the_gateway_config_is_resolved_by_the_router(tmp_path: Path) -> None:
    """A key may be in a file; the config that is kept and shown has the reference alone."""
    (tmp_path / "key").write_text("a key in a file 123\n")
    config = parse_gateway({"admin_key": f"file:{tmp_path}/key", "max_body_mb": 8})
    assert resolve_gateway(config, {}).admin_key == "a key in a file 123"
    assert config.admin_key == f"file:{tmp_path}/key"
    assert "a key" not in repr(resolve_gateway(config, {}))


def test_text_of_a_certain_form_may_be_a_reference() -> None:
    """Its form is checked where the reference is resolved."""
    media = {"media": {"domains": ["env:HOST"]}}
    entry = resolve_entry(parse_entry({**ENTRY, **media}), Resolver({"HOST": "media.example.com"}))
    assert isinstance(entry, VllmEntry)
    assert entry.media.domains == ["media.example.com"]
    with pytest.raises(ConfigError, match=r'^model "m": media.domains\[0\]: should be a host name'):
        resolve_entry(parse_entry({**ENTRY, **media}), Resolver({"HOST": "two words"}))

    config = parse_gateway({"cors": {"origins": ["env:ORIGIN"]}, "trusted_proxies": ["env:NET"]})
    environ = {"ORIGIN": "https://chat.example.com", "NET": "10.0.0.0/8"}
    resolved_config = resolve_gateway(config, environ)
    assert resolved_config.cors is not None
    assert resolved_config.cors.origins == ["https://chat.example.com"]
    assert resolved_config.trusted_proxies == ["10.0.0.0/8"]
    with pytest.raises(ConfigError, match=r"^gateway: trusted_proxies: must be addresses"):
        resolve_gateway(config, {**environ, "NET": "nowhere"})
