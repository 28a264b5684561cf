"""PostgreSQL server for tests, in a folder of its own; tests skip where it is not installed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_TIMEOUT_S = 60
USER = "accounts"
UNPRIVILEGED = 65534
"""User and group `nobody`: PostgreSQL refuses to run as root."""


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    tools = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    return f"not installed: {', '.join(tools)}" if tools else ""


class PostgresServer:
    """A server on loopback, on a port of its own; it keeps its data over `stop` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self._user: int | None = None
        self._groups: list[int] | None = None
        if os.geteuid() == 0:
            os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
            self._user, self._groups = UNPRIVILEGED, []
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "-N")

    @property
    def url(self) -> str:
        """URL of its database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """URL of one of its databases."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(shutil.which("postgres")), "-D", str(self._data), *given],
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                extra_groups=self._groups,
            )
        until_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > until_s or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)  # noqa: TID251 - a test's own thread

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: all connections are cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT_S)

    def _answers(self) -> bool:
        import psycopg  # noqa: PLC0415 - an extra

        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, tool: str, *arguments: str) -> None:
        subprocess.run(
            [str(shutil.which(tool)), *arguments],
            check=True,
            capture_output=True,
            user=self._user,
            group=self._user,
            extra_groups=self._groups,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ephemeral: int = listener.getsockname()[1]
    for port in range(20_000 + ephemeral % 9_000, 30_000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError("no free port")
