"""The directory of a cluster's temporary files."""

from pathlib import Path

from deployments.local import temporary
from gateway.local_files import TEMPORARY_PREFIX


def test_all_temporary_files_are_in_a_directory_of_their_own() -> None:
    """Nobody else can read it, and sockets in it have room for their names."""
    directory = temporary.make_directory()
    values = temporary.variables(directory)
    temporary.remove(directory, directory.parent)

    assert all(Path(value).is_relative_to(directory) for value in values.values())
    assert len(str(directory)) < 40
    assert not directory.exists()


def test_the_last_logs_are_kept(tmp_path: Path) -> None:
    """Those of the run before are not."""
    for text in ("first", "second"):
        directory = temporary.make_directory()
        logs = directory / "ray" / "session_1" / "logs"
        logs.mkdir(parents=True)
        (logs / text).write_text(text)
        (directory / "ray" / "session_latest").symlink_to(directory / "ray" / "session_1")
        temporary.remove(directory, tmp_path)

    assert [file.name for file in (tmp_path / "logs").iterdir()] == ["second"]


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    """Neither a directory of another name, nor what a link of that name leads to."""
    other = tmp_path / "precious"
    other.mkdir()
    link = tmp_path / f"{TEMPORARY_PREFIX}link"
    link.symlink_to(other)
    for directory in (other, link, tmp_path / "missing"):
        temporary.remove(directory, tmp_path)

    assert other.is_dir()
    assert link.is_symlink()
