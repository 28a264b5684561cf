"""Machines of a cluster: network namespaces of this one, with addresses and folders of their own.

They share this machine's processors and files, and nothing by which programs find each other: they
have process ids of their own, a cable can be pulled, and all that runs on one can be killed at once.
"""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from loadtests.launch import PROJECT_ROOT, Unavailable

BRIDGE = "gwdrill"
SUBNET = "10.199.0"
GATEWAY_ADDRESS = f"{SUBNET}.1"
"""This machine's own address on the network of the others."""
RESTART_S = 2.0
"""Time after which what has ended is started again, as a service of systemd would be."""
STOP_TIMEOUT_S = 30.0
MEANS = ("ip", "unshare", "mount")


def require_means() -> None:
    """Check that this user may make namespaces.

    Raises:
        Unavailable: a program or the right is missing.
    """
    if missing := [name for name in MEANS if shutil.which(name) is None]:
        raise Unavailable(f"drills need {' and '.join(missing)}")
    if os.geteuid() != 0:
        raise Unavailable("drills make network namespaces, which only root may")


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A network that machines are plugged into, with this machine at its first address."""
    require_means()
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("address", "add", f"{GATEWAY_ADDRESS}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", BRIDGE)


class Machine:
    """A machine on the network; a context manager, which kills all that runs there in the end.

    `number`: the last part of its address, from 2. `folder`: for its temporary files and its log.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.address = f"{SUBNET}.{number}"
        self._namespace = f"{BRIDGE}-{name}"
        self._cable = f"{BRIDGE}{number}"
        self._temporary = folder / name
        self._log = folder / f"{name}.log"
        self._service: subprocess.Popen[bytes] | None = None
        self._is_wanted = threading.Event()
        self._supervisor: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Make it and plug it in."""
        self._temporary.mkdir()
        _ip("netns", "add", self._namespace)
        _ip(
            "link",
            "add",
            self._cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self._namespace,
        )
        _ip("link", "set", self._cable, "master", BRIDGE)
        self.plug_in()
        inside = ("-n", self._namespace)
        _ip(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "route", "add", "default", "via", GATEWAY_ADDRESS)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what runs there, and take it away."""
        self.switch_off()
        _ip("netns", "delete", self._namespace)

    @property
    def processes(self) -> list[psutil.Process]:
        """All that runs there."""
        found = []
        for pid in _ip("netns", "pids", self._namespace).split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def titled(self, title: str) -> list[psutil.Process]:
        """Its processes with this in their command line."""
        return [process for process in self.processes if title in _command_line(process)]

    @property
    def log(self) -> str:
        """What its service has printed."""
        return self._log.read_text(errors="replace")

    def serve(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a service until the machine is switched off; it is started again whenever it ends."""

        def supervise() -> None:
            while self._is_wanted.is_set():
                self._service = self._start(command, environment)
                self._service.wait()
                self._kill_all()
                time.sleep(RESTART_S)  # noqa: TID251 - in a thread of its own

        self._is_wanted.set()
        self._supervisor = threading.Thread(target=supervise, name=self.name)
        self._supervisor.start()

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        privately = 'mount --bind "$0" /tmp && exec "$@"'
        inside = ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--pid", "--fork"]
        inside += ["--mount-proc", "--kill-child"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*inside, "sh", "-c", privately, str(self._temporary), *command],
                cwd=PROJECT_ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def restart(self) -> None:
        """End the service as its supervisor would, and let it start again."""
        if self._service:
            with contextlib.suppress(psutil.NoSuchProcess, subprocess.TimeoutExpired):
                (service,) = psutil.Process(self._service.pid).children()
                service.terminate()
                self._service.wait(STOP_TIMEOUT_S)
        self._kill_all()

    def crash(self) -> None:
        """Kill all that runs there; the service starts again."""
        self._kill_all()

    def switch_off(self) -> None:
        """End all that runs there, for good."""
        self._is_wanted.clear()
        self._kill_all()
        if self._supervisor:
            self._supervisor.join()

    def unplug(self) -> None:
        """Pull the cable: nobody hears from it, and nothing is closed."""
        _ip("link", "set", self._cable, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable, "up")

    def _kill_all(self) -> None:
        while processes := self.processes:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, 1)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _ip(*arguments: str) -> str:
    tool = shutil.which("ip") or "ip"
    result = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout
