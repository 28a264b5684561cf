"""Files that only their owner may read."""

import stat
from pathlib import Path

from deployments.local.private_files import ensure_token, write_private
from gateway.proxy_key import proxy_key


def mode_of(file: Path) -> int:
    """Permissions of a file."""
    return stat.S_IMODE(file.stat().st_mode)


def test_a_private_file_is_closed_to_others(tmp_path: Path) -> None:
    """Also if it was open before."""
    file = tmp_path / "config.yaml"
    file.write_text("old, and longer")
    file.chmod(0o644)

    write_private(file, "new")

    assert (file.read_text(), mode_of(file)) == ("new", 0o600)


def test_a_token_is_made_once(tmp_path: Path) -> None:
    """The first cluster of a user makes it, and later ones have the same."""
    ensure_token({}, tmp_path)
    first = proxy_key({"RAY_AUTH_MODE": "token"}, tmp_path)
    ensure_token({}, tmp_path)

    assert first
    assert proxy_key({"RAY_AUTH_MODE": "token"}, tmp_path) == first
    assert mode_of(tmp_path / ".ray" / "auth_token") == 0o600


def test_a_token_that_ray_has_made_is_closed_to_others(tmp_path: Path) -> None:
    """Ray writes it with the usual permissions."""
    (tmp_path / ".ray").mkdir()
    file = tmp_path / ".ray" / "auth_token"
    file.write_text("token")
    file.chmod(0o644)

    ensure_token({}, tmp_path)

    assert (file.read_text(), mode_of(file)) == ("token", 0o600)


def test_a_token_of_the_environment_is_not_replaced(tmp_path: Path) -> None:
    """No other one is made beside it."""
    ensure_token({"RAY_AUTH_TOKEN": "token"}, tmp_path)
    ensure_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "elsewhere")}, tmp_path)

    assert list(tmp_path.iterdir()) == []
