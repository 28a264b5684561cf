"""Parts of the local runner that need no cluster."""

import subprocess
import sys
from pathlib import Path

from deployments.local import temporary
from deployments.local.processes import Session
from deployments.local.run import clean_up


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
