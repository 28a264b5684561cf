"""What `args.state` may say, and where things are kept if it does not."""

from pathlib import Path

import pytest
import yaml

from gateway.config.loader import load_config, parse_accounts, parse_state
from gateway.errors.startup import ConfigError
from gateway.store.opening import usable_state

HOME = {"XDG_DATA_HOME": "/data"}


@pytest.mark.parametrize(
    ("config", "accounts", "database", "files"),
    [
        (
            {},
            None,
            "sqlite:////data/ray-llm-gateway/state.db",
            "/data/ray-llm-gateway/files",
        ),
        ({}, "sqlite:////db/accounts.db", "sqlite:////db/accounts.db", "/db/files"),
        ({}, "postgresql://h/d", "postgresql://h/d", "/data/ray-llm-gateway/files"),
        ({}, "env:DB", "postgresql://u:hunter22@h/d", "/data/ray-llm-gateway/files"),
        (
            {"database": "sqlite:////db/s.db", "files": "s3://b/f"},
            "postgresql://h/d",
            "sqlite:////db/s.db",
            "s3://b/f",
        ),
        ({"files": "env:FILES"}, None, "sqlite:////data/ray-llm-gateway/state.db", "s3://k:s@b/f"),
    ],
)
def test_what_is_left_open_has_a_place(
    config: dict[str, object], accounts: str | None, database: str, files: str
) -> None:
    """Beside the accounts if there are any, or else in the user's data folder."""
    environ = {**HOME, "DB": "postgresql://u:hunter22@h/d", "FILES": "s3://k:s@b/f"}
    known = None if accounts is None else parse_accounts({"database": accounts})
    placed = usable_state(parse_state(config), known, environ)
    assert (placed.database, placed.files) == (database, files)
    assert "hunter22" not in repr(placed)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"database": "mysql://h/d"}, "must begin with `sqlite:///` or `postgresql://`"),
        ({"database": "postgresql://u:hunter22@h/d"}, "holds a password"),
        ({"files": "relative/folder"}, "must be an absolute path"),
        ({"files": "s3://key:hunter22@bucket"}, "holds a password"),
        ({"max_file_mb": 0}, "max_file_mb"),
        ({"folder": "/x"}, "unknown field"),
    ],
)
def test_a_mistake_is_named(config: dict[str, object], message: str) -> None:
    """The line names the field, and shows no password."""
    with pytest.raises(ConfigError, match=message) as raised:
        parse_state(config)
    assert "hunter22" not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "state.files: FILES is not set"),
        ({"FILES": "relative"}, "state.files: must be an absolute path"),
    ],
)
def test_what_a_reference_stands_for_is_checked(environ: dict[str, str], message: str) -> None:
    """When State starts."""
    with pytest.raises(ConfigError, match=message):
        usable_state(parse_state({"files": "env:FILES"}), None, environ)


def _mistakes(tmp_path: Path, gateway: dict[str, object]) -> str:
    path = tmp_path / "config.yaml"
    model = {"name": "m", "engine": "sim"}
    applications = [
        {"name": "gateway", "import_path": "deployments.app:gateway", **gateway},
        {
            "name": "m",
            "import_path": "deployments.app:model",
            "route_prefix": None,
            "args": model,
        },
    ]
    document = {"http_options": {"host": "127.0.0.1"}, "applications": applications}
    path.write_text(yaml.safe_dump(document))
    try:
        load_config(path)
    except ConfigError as error:
        return str(error)
    return ""


def test_a_deployment_file_is_checked(tmp_path: Path) -> None:
    """The argument, the folder of files on this machine, and what is set of the deployment."""
    (tmp_path / "file").touch()
    state = {"name": "State", "ray_actor_options": {"resources": {"disk": 1}}}
    assert _mistakes(tmp_path, {"args": {"state": {}}, "deployments": [state]}) == ""
    wrong = {"state": {"files": str(tmp_path / "file")}}
    assert "args.state.files: " in _mistakes(tmp_path, {"args": wrong})
    assert "needs `state`" in _mistakes(tmp_path, {"deployments": [state]})
    many = {"name": "State", "num_replicas": 2}
    assert "num_replicas: cannot be set for State" in _mistakes(
        tmp_path, {"args": {"state": {}}, "deployments": [many]}
    )
    assert "only `accounts` and `state` are set here" in _mistakes(
        tmp_path, {"args": {"files": "/x"}}
    )
