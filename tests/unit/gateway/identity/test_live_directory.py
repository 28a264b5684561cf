"""Directory of projects and keys from several sources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.api_key import key_hash, key_hint, new_key, parse_hash
from gateway.identity.live_directory import LiveDirectory
from gateway.identity.project import AdminKey, ApiKey, Directory, Project

NOW_S = 1000.0


def directory(*keys: str, project: str = "p", expires_s: float | None = None) -> Directory:
    """A directory with a project and its keys."""
    return Directory(
        projects=(Project(id=project, name=f"{project} name"),),
        keys=tuple(
            ApiKey(
                id=f"id {key}", project=project, hash=key_hash(key.encode()), expires_s=expires_s
            )
            for key in keys
        ),
        admin_keys=(AdminKey(id="root", hash=key_hash(b"root"), expires_s=expires_s),),
    )


@given(keys=st.sets(st.text(min_size=1), max_size=20), others=st.sets(st.text(), max_size=20))
def test_exactly_the_keys_in_it_are_found(keys: set[str], others: set[str]) -> None:
    """Each by its own hash, and no other."""
    live = LiveDirectory()
    live.replace("files", directory(*(key for key in keys if key.isprintable())))
    for key in keys | others:
        if not key.isprintable():
            continue
        found = live.key(key_hash(key.encode()), NOW_S)
        assert (found is not None) == (key in keys)
        assert found is None or found.identity.key == f"id {key}"


def test_a_source_replaces_only_its_own() -> None:
    """Projects files and the database live side by side."""
    live = LiveDirectory()
    live.replace("accounts", directory("a", project="one"))
    live.replace("files", directory("f", project="two"))
    live.replace("files", directory("g", project="two"))
    hashes = {name: key_hash(name.encode()) for name in "afg"}
    assert [name for name, each in hashes.items() if live.key(each, NOW_S)] == ["a", "g"]
    assert set(live.projects) == {"one", "two"}


def test_files_count_before_the_database(caplog: pytest.LogCaptureFixture) -> None:
    """Where both have a key or a project; the log says that one is ignored."""
    live = LiveDirectory()
    live.replace("accounts", directory("a", "b", project="p"))
    weighty = Project(id="p", weight=9)
    live.replace("files", Directory(projects=(weighty,)))
    found = live.key(key_hash(b"a"), NOW_S)
    assert found is not None
    assert found.identity.project is weighty
    assert "project p of source 'accounts' is ignored" in caplog.text


def test_the_same_directory_again_changes_nothing() -> None:
    """So what is derived from it need not be made again."""
    live = LiveDirectory()
    live.replace("files", directory("a"))
    version = live.version
    live.replace("files", directory("a"))
    assert live.version == version
    live.replace("files", directory("a", "b"))
    assert live.version > version


def test_keys_expire() -> None:
    """API keys and admin keys, at the second that they say."""
    live = LiveDirectory()
    live.replace("files", directory("a", expires_s=NOW_S))
    assert live.key(key_hash(b"a"), NOW_S - 0.1)
    assert live.admin_key(key_hash(b"root"), NOW_S - 0.1)
    assert live.key(key_hash(b"a"), NOW_S) is None
    assert live.admin_key(key_hash(b"root"), NOW_S) is None
    assert live.has_expired(key_hash(b"a"), NOW_S)
    assert not live.has_expired(key_hash(b"b"), NOW_S)


def test_a_key_without_its_project_opens_nothing() -> None:
    """Nor does a project without an id, which would be one that is open to all."""
    live = LiveDirectory()
    live.replace("files", Directory(keys=directory("a").keys))
    assert live.key(key_hash(b"a"), NOW_S) is None
    live.replace("files", directory("a", project=""))
    assert live.key(key_hash(b"a"), NOW_S) is None
    assert live.project("") is None


def test_projects_are_found_by_id_and_by_name() -> None:
    """The id counts first."""
    live = LiveDirectory()
    one, two = Project(id="one", name="two"), Project(id="two", name="three")
    live.replace("files", Directory(projects=(one, two)))
    assert [live.project(name) for name in ("one", "two", "three", "four")] == [one, two, two, None]


def test_a_new_key_is_random_and_found_by_its_hash() -> None:
    """As a projects file has it, and as a request is looked up; it is shown by its secret only."""
    key, other = new_key(), new_key()
    assert key.secret != other.secret
    assert len(key.secret) >= 43 + len("sk-")
    assert parse_hash(key.hash) == key_hash(key.secret.encode())
    assert key.secret not in repr(key)


@pytest.mark.parametrize(
    ("key", "hint"),
    [(b"sk-0123456789abcdefWXYZ", "...WXYZ"), (b"short-key", ""), (b"k" * 20 + b"\xff\xff", "")],
)
def test_a_hint_is_the_end_of_a_long_key(key: bytes, hint: str) -> None:
    """Never more than a fraction of it."""
    assert key_hint(key) == hint
