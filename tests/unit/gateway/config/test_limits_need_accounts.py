"""Limits of a day or month need a database, which remembers what was used before a restart."""

from pathlib import Path

import pytest

from gateway.config.loader import load_config
from gateway.errors.startup import ConfigError

PROJECTS = """
projects:
  - name: team-a
    keys: [{hash: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]
    rate_limits:
      - {requests_per_minute: 10}
      - {batch_tokens_per_day: 1000}
    spend_limits: [{amount: 5}]
"""
DEPLOYMENT = """
http_options: {host: 127.0.0.1}
applications:
  - name: gateway
    import_path: deployments.app:gateway
    %s
    deployments:
      - name: Router
        user_config: {auth: {projects: ["%s"]}}
  - name: m
    route_prefix: null
    import_path: deployments.app:model
    args: {name: m, engine: sim}
"""


def written(folder: Path, accounts: str) -> Path:
    """A deployment file whose projects have limits of all kinds."""
    projects = folder / "projects.yaml"
    projects.write_text(PROJECTS)
    file = folder / "gateway.yaml"
    file.write_text(DEPLOYMENT % (accounts, projects))
    return file


def test_without_a_database_they_are_refused(tmp_path: Path) -> None:
    """With file and line; limits of a minute need none."""
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, ""))
    lines = str(error.value).splitlines()
    assert [line.partition("projects[0].")[2].partition(":")[0] for line in lines] == [
        "spend_limits",
        "rate_limits[1].batch_tokens_per_day",
    ]
    assert all(line.startswith(f"{tmp_path}/projects.yaml:") for line in lines)
    assert all("set `accounts` in the `args`" in line for line in lines)


def test_a_limit_of_an_alias_gets_a_warning(tmp_path: Path) -> None:
    """Requests count for the models that answer, so nothing would count against it."""
    file = written(tmp_path, "")
    projects = tmp_path / "projects.yaml"
    projects.write_text(
        "projects: [{name: a, rate_limits: [{model: nick, tokens_per_minute: 1}, {model: m}]}]"
    )
    file.write_text(
        file.read_text().replace("user_config: {", "user_config: {aliases: {nick: m}, ")
    )
    (warning,) = load_config(file).warnings
    assert "rate_limits[0].model: is an alias or a split" in warning


def test_with_a_database_they_are_accepted(tmp_path: Path) -> None:
    """Which then tells routers what was used."""
    accounts = f"args: {{accounts: {{database: 'sqlite:///{tmp_path}/accounts.db'}}}}"
    assert load_config(written(tmp_path, accounts)).accounts is not None
