"""Secrets in plain text: which are recognized, and which messages leave them out."""

import pytest

from gateway.config.loader import parse_entry
from gateway.config.secrets import literal_secrets
from gateway.errors.startup import ConfigError


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
        ("DB_PASS", "hunter2"),
        ("DBPASS", "hunter2"),
        ("API_KEYS", "abc,def"),
        ("HF_TOKENS", "abc,def"),
        ("AUTHORIZATION", "Bearer abc"),
        ("AUTH", "user:pass"),
        ("COOKIE", "session=abc"),
        ("REGISTRY_CREDENTIAL", "abc"),
        ("apiKey", "abc"),
        ("HF_TOKEN", "/starts/like/a/path"),
        ("HF_TOKEN", "~abc"),
        ("HF_TOKEN", ".abc"),
        ("HF_TOKEN", "123456"),
        ("db_password", "1234"),
        ("SSH_KEY", "/etc/keys/ssh"),
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
        ("SSH_KEY_FILE", "/etc/keys/ssh"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/google.json"),
        ("VLLM_USE_KEY", "1"),
        ("PASSTHROUGH", "all"),
        ("PASS_THROUGH", "all"),
        ("BYPASS", "all"),
        ("AUTHOR", "Ada"),
        ("AUTH_MODE", "token"),
        ("KEYSPACE", "events"),
        ("KEYWORDS", "a b"),
        ("SPEC_TOKENS", "4"),
        ("max_num_batched_tokens", "8k"),
        ("VLLM_MAX_BAD_WORDS_TOTAL_TOKENS", "many"),
        ("TOKENS_PER_SECOND", "fast"),
        ("TOKEN_THRESHOLD", "2048"),
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
