"""The key that HAProxy and routers derive from the token of their cluster."""

from pathlib import Path

from gateway.proxy_key import cluster_key, proxy_key

MODE = {"RAY_AUTH_MODE": "token"}


def test_the_key_is_derived_from_the_token_wherever_it_stands(tmp_path: Path) -> None:
    """In the environment, in a file that it names, or in Ray's own place."""
    token = "0123456789abcdef" * 4
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(token + "\n")
    (tmp_path / "elsewhere").write_text(token)

    keys = {
        proxy_key({**MODE, "RAY_AUTH_TOKEN": token}, tmp_path / "nowhere"),
        proxy_key(
            {**MODE, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "elsewhere")}, tmp_path / "nowhere"
        ),
        proxy_key(MODE, tmp_path),
    }

    assert len(keys) == 1
    assert token not in keys.pop()


def test_clusters_with_other_tokens_have_other_keys(tmp_path: Path) -> None:
    """And there is none without a token."""
    assert proxy_key({**MODE, "RAY_AUTH_TOKEN": "a"}) != proxy_key({**MODE, "RAY_AUTH_TOKEN": "b"})
    assert proxy_key(MODE, tmp_path) == ""
    assert proxy_key({**MODE, "RAY_AUTH_TOKEN_PATH": str(tmp_path)}, tmp_path) == ""


def test_a_token_that_the_cluster_does_not_use_makes_no_key() -> None:
    """It may lie on one node and not on another, which would refuse each other's requests."""
    assert proxy_key({"RAY_AUTH_TOKEN": "a"}) == ""
    assert proxy_key({"RAY_AUTH_TOKEN": "a", "RAY_AUTH_MODE": "disabled"}) == ""


def test_each_purpose_has_a_key_of_its_own() -> None:
    """Who has one of them has no other."""
    token = {**MODE, "RAY_AUTH_TOKEN": "a"}
    keys = {cluster_key(purpose, token) for purpose in (b"a", b"b")}

    assert [len(key) for key in keys] == [32, 32]
    assert proxy_key(token) not in {key.hex() for key in keys}
    assert cluster_key(b"a", {}) == b""
