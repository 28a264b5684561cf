"""Secrets in plain text: which are recognized, and which messages leave them out."""

import pytest

from gateway.config.loader import parse_entry
from gateway.config.secrets import literal_secrets
from gateway.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "hf_0123456789abcdefghij"),
        ("hf_token", "anything"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("OPENAI_APIKEY", "abc"),
        ("db_password", "hunter2"),
        ("admin_key", "0123456789abcdef"),
        ("HTTPS_PROXY", "http://user:pass@proxy:8080"),
        ("ANY", "sk-0123456789abcdefghijkl"),
        ("ANY", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
    ],
)
def test_a_secret_is_recognized(name: str, value: str) -> None:
    """By the name of its field, or by its form; also deep in a value."""
    assert list(literal_secrets({"a": [{name: value}]})) == [("a", 0, name)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "env:HF_TOKEN"),
        ("HF_TOKEN", "file:/run/secrets/hf"),
        ("HF_TOKEN", ""),
        ("HF_TOKEN_PATH", "token-file"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "a lot"),
        ("tokenizer", "org/model"),
        ("KEYBOARD", "us"),
        ("monkey", "see"),
        ("SSH_KEY", "/etc/keys/ssh"),
        ("VLLM_USE_KEY", "1"),
        ("source", "https://host:8080/x"),
    ],
)
def test_what_is_no_secret_is_not_warned_of(name: str, value: str) -> None:
    """A reference, a path, a switch, or a field that only sounds like it."""
    assert not list(literal_secrets({name: value}))


def test_names_of_models_are_no_secrets() -> None:
    """An alias may be called anything."""
    assert not list(literal_secrets({"aliases": {"my-key": "gpt"}}))


def test_a_wrong_secret_is_not_repeated() -> None:
    """Serve logs the message."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({"name": "m", "engine": "sim", "env": {"HF_TOKEN": 123456}})
    assert str(caught.value).startswith('model "m": env.HF_TOKEN: should be text, found <hidden>')
    assert "123456" not in str(caught.value)
