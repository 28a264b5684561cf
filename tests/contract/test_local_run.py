"""Parts of the local runner that need no cluster."""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deployments.local import run, temporary
from deployments.local.processes import Session
from deployments.local.session_files import clean_up, known_sessions, port_of
from gateway.local_files import run_directory


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


def test_files_of_an_installed_gateway_are_not_beside_its_code() -> None:
    """They are where a user's state of this machine belongs; in the repository, in `.run`."""
    root = Path("/r")

    in_repository = run_directory({}, root=root, is_source_tree=True)
    installed = run_directory({"XDG_STATE_HOME": "/state"}, root=root, is_source_tree=False)
    by_default = run_directory({}, root=root, is_source_tree=False)

    assert in_repository == Path("/r/.run")
    assert installed == Path("/state/ray-llm-gateway") / platform.node()
    assert by_default == Path.home() / ".local/state/ray-llm-gateway" / platform.node()


def test_one_of_several_gateways_is_stopped_by_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one runs on."""
    monkeypatch.setattr(run, "RUN_DIRECTORY", tmp_path)
    code = "import sys; sys.stdin.read()"
    leaders = {
        port: subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True
        )
        for port in (8001, 8002)
    }
    for port, leader in leaders.items():
        Session.led_by(leader.pid).write(tmp_path / f"{port}.json")
        (tmp_path / f"{port}.yaml").write_text(f"http_options: {{port: {port}}}")

    run.stop(8002)

    assert leaders[8002].wait(5) is not None
    assert leaders[8001].poll() is None
    run.stop()
    assert leaders[8001].wait(5) is not None
    for leader in leaders.values():
        leader.communicate()


def test_a_port_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """The config beside a session may be gone or broken."""
    (tmp_path / "1.yaml").write_text("[")

    assert [port_of(tmp_path / name) for name in ("1.json", "2.json")] == [None, None]


def test_a_cluster_that_is_not_there_is_not_waited_for() -> None:
    """One line names its address; Ray would try for minutes."""
    with pytest.raises(SystemExit, match=r"no Ray cluster can be joined at 127\.0\.0\.1:9"):
        run.serve(Path("sim"), port=0, address="127.0.0.1:9")


@pytest.mark.parametrize("address", ["local", "ray://head:10001", "head"])
def test_an_address_must_be_that_of_a_cluster(address: str) -> None:
    """Ray would start one without our variables, or make this process a client of another kind."""
    with pytest.raises(SystemExit, match=f"{address} is no address of a Ray cluster"):
        run.serve(Path("sim"), port=0, address=address)
