"""What `args.accounts` may say, and what is said of mistakes in it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.accounts.keeper import database_url, price_list
from gateway.config.accounts import AccountsConfig
from gateway.config.loader import parse_accounts
from gateway.errors.startup import ConfigError

FILE = "sqlite:////var/lib/gateway/accounts.db"


def test_prices_become_whole_nano_units() -> None:
    """Numbers and texts alike, without a detour over binary fractions."""
    versions = [
        {"input": 0.1, "output": "0.000000001"},
        {"from": "2026-02-01", "input": 3, "gpu_hour": 2.5},
    ]
    config = parse_accounts({"database": FILE, "prices": {"m": versions}})
    old, new = price_list(config).prices
    assert (old.input_nano, old.output_nano, old.gpu_hour_nano) == (100_000_000, 1, None)
    assert (new.input_nano, new.gpu_hour_nano, new.from_s) == (
        3_000_000_000,
        2_500_000_000,
        1_769_904_000,
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "accounts: database: is missing"),
        ({"database": FILE, "retain": 1}, "retain: unknown field"),
        ({"database": "mysql://h/d"}, "must begin with `sqlite:///` or `postgresql://`"),
        ({"database": "sqlite:///relative.db"}, "absolute path"),
        ({"database": "sqlite://"}, "must name a file"),
        ({"database": "postgresql://host"}, "must name a database"),
        ({"database": "postgresql://u:hunter22@host/d"}, "holds a password"),
        ({"database": "postgresql://u@host/d?password=hunter22"}, "holds a password"),
        ({"database": "env:not a name"}, "name of a variable"),
        ({"database": FILE, "prices": {"m": [{}]}}, "needs at least one of"),
        (
            {"database": FILE, "prices": {"m": [{"output": 1, "cached_input": 1}]}},
            "has no meaning without",
        ),
        ({"database": FILE, "prices": {"m": [{"input": -1}]}}, "must be from 0"),
        ({"database": FILE, "prices": {"m": [{"input": 1e-10}]}}, "decimal places"),
        ({"database": FILE, "prices": {"m": [{"input": 1}, {"input": 2}]}}, "same date"),
        ({"database": FILE, "prices": {"m": [{"from": "2026-13-01", "input": 1}]}}, "month"),
        ({"database": FILE, "prices": {"m": [{"from": "20270101", "input": 1}]}}, "must be a day"),
        ({"database": FILE, "prices": {"m": [{"from": "2027-W01-5", "input": 1}]}}, "be a day"),
        ({"database": FILE, "prices": {"m": [{"input": "0,10"}]}}, "must be a number"),
    ],
)
def test_a_mistake_is_named(config: dict[str, object], message: str) -> None:
    """The line names the field, and shows no password."""
    with pytest.raises(ConfigError, match=message) as raised:
        parse_accounts(config)
    assert "hunter22" not in str(raised.value)


def test_the_url_may_be_kept_elsewhere() -> None:
    """Only Accounts reads it; what it is shows nowhere."""
    config = AccountsConfig(database="env:DB")
    assert database_url(config, {"DB": "postgresql://u:hunter22@host/d"}).endswith("@host/d")
    with pytest.raises(ConfigError, match="DB is not set"):
        database_url(config, {})
    for url, message in (
        ("hunter22", "must begin with"),
        ("postgres://u:hunter22@host/d", "must begin with"),
        ("sqlite:///hunter22.db", "absolute path"),
        ("sqlite:///:memory:", "absolute path"),
        ("sqlite://", "must name a file"),
    ):
        with pytest.raises(ConfigError, match=f"accounts.database: .*{message}") as raised:
            database_url(config, {"DB": url})
        assert "hunter22" not in str(raised.value)
    assert "env:DB" not in repr(config)


def test_a_file_may_be_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs `Accounts`; the file is found there when it is opened."""
    monkeypatch.setenv("HOME", "/home/ann")
    config = parse_accounts({"database": "sqlite:///~/a.db"})
    assert database_url(config, {}) == "sqlite:////home/ann/a.db"


def test_a_file_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    """As far as this machine has something in its place."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "file").touch()

    def mistake(path: Path) -> str:
        return AccountsConfig(database=f"sqlite:///{path}").database_mistake

    assert mistake(folder) == f"{folder} is a folder: name a file in it"
    assert mistake(tmp_path / "file" / "a.db") == f"{tmp_path / 'file'} is not a folder"
    assert mistake(folder / "a.db") == mistake(tmp_path / "elsewhere" / "a.db") == ""


def test_unknown_currencies_are_not_guessed() -> None:
    """Codes of ISO 4217, in lower case."""
    with pytest.raises(ValidationError):
        AccountsConfig(database=FILE, currency="US Dollar")
