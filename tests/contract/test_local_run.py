"""Parts of the local runner that need no cluster."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deployments.local import run, temporary
from deployments.local.processes import Session
from deployments.local.session_files import clean_up, known_sessions


def test_a_broken_file_stops_neither_a_start_nor_a_stop(tmp_path: Path) -> None:
    """It is removed, with the config beside it, once its outer process has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"{pid}.json").touch()
        (tmp_path / f"{pid}.yaml").touch()
    (tmp_path / f"{ended.pid}.draft").touch()

    assert list(known_sessions(tmp_path)) == []
    clean_up(tmp_path)

    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"{os.getpid()}.json", f"{os.getpid()}.yaml"}


def test_a_config_without_a_session_is_removed(tmp_path: Path) -> None:
    """Its outer process was killed before the inner one ran."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"{ended.pid}.yaml").touch()
    (tmp_path / "logs").mkdir()

    clean_up(tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["logs"]


def test_a_start_without_free_ports_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the config nor a temporary directory; one line says why."""
    monkeypatch.setattr(run, "ROUTER_PORTS", (30_000, 30_001))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(SystemExit, match="no 50 free ports"):
        run.start_leader({}, tmp_path / "1.json")

    assert list(tmp_path.iterdir()) == []


def test_a_start_that_cannot_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of temporary files is removed, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(FileNotFoundError):
        run.start_leader({}, tmp_path / "missing" / "1.json")

    assert list(tmp_path.iterdir()) == []


def test_a_start_removes_what_killed_gateways_left(tmp_path: Path) -> None:
    """Their temporary files and their own; those of one that lives stay."""
    directories = [temporary.make_directory() for _ in range(2)]
    code = "import sys; sys.stdin.read()"
    killed, alive = (
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True
        )
        for _ in range(2)
    )
    for process, directory in zip((killed, alive), directories, strict=True):
        Session.led_by(process.pid, str(directory)).write(tmp_path / f"{process.pid}.json")
        (tmp_path / f"{process.pid}.yaml").write_text("")
    killed.kill()
    killed.communicate()
    clean_up(tmp_path)
    left = sorted(file.name for file in tmp_path.iterdir())
    alive.communicate()
    clean_up(tmp_path)

    assert left == [f"{alive.pid}.json", f"{alive.pid}.yaml"]
    assert not any(directory.exists() for directory in directories)
    assert list(tmp_path.iterdir()) == []
