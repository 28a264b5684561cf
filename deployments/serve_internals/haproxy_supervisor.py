"""Parent of one HAProxy process, which starts it again at once if it is killed.

Serve (Ray 2.60) takes three health checks to notice that its HAProxy is gone (30 s by its own
settings, 3 s by ours), and refuses all connections until then and until a new one has started. It
knows HAProxy by the process it has started: that process must answer the admin socket with its own
id, end by Serve's signals, and hand its listeners over at a reload. So the supervisor

1. runs HAProxy as its child, on an admin socket of its own,
2. answers Serve's admin socket: passes each command on, and puts its own id into the answer,
3. passes on the signals by which Serve, or the next HAProxy, tells this one to stop,
4. starts HAProxy again, with the same configuration, if it ends without having been told to.

HAProxy dies with its supervisor. If Serve's process dies, HAProxy finishes its streams and ends.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from deployments.serve_internals.haproxy_terminations import TerminationLog

ADMIN_SUFFIX = ".own"
"""What HAProxy's own admin socket's path has more than Serve's; it may have 97 bytes in all."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTTOU, signal.SIGTTIN)
"""Signals for HAProxy: stop, finish and stop, release the ports, take them back."""
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals after which HAProxy is not started again."""
MAX_RESTARTS = 5
RESTART_PAUSE_S = 0.05
RESTART_WINDOW_S = 10.0
"""After `MAX_RESTARTS` within this time the supervisor ends, and Serve sees a failed HAProxy."""
START_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 4.0
"""Time for one command on the admin socket; Serve waits 5 s."""
POLL_S = 0.02
PARENT_CHECK_S = 1.0
"""Between two looks whether Serve's process still lives."""
_PID = re.compile(rb"^Pid: \d+$", re.MULTILINE)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
PROCESS_NAME = b"gw-supervisor"
"""The supervisor's name in the kernel, so that `pkill haproxy` ends HAProxy alone."""


class Supervisor:
    """Runs HAProxy with `command`; `admin` is the path of the socket that Serve asks.

    `takeover`: arguments for the first start only, by which HAProxy takes over from another one.
    """

    def __init__(
        self,
        command: Sequence[str],
        takeover: Sequence[str],
        admin: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self._command = list(command)
        self._takeover = list(takeover)
        self._admin = admin
        self._environ = dict(environ)
        self._terminations = TerminationLog.beside(admin) if admin else None
        self._has_been_up = False
        self._is_stopping = False
        self._is_orphan = False
        self._starts_s: list[float] = []
        self._parent = os.getppid()

    def run(self) -> int:
        """Run until HAProxy has ended for good; its exit code."""
        ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME)
        if self._terminations is not None:
            self._terminations.open()
        self._start(self._takeover)
        wake_up = _wake_up_by_signals(self._pass_on)
        listener = self._listener() if self._admin else None
        while True:
            code = self._child.poll()
            if code is not None:
                if self._is_stopping or not self._may_restart():
                    return code if code >= 0 else 128 - code
                # At once; but something that ends again and again gets time to pass.
                time.sleep(RESTART_PAUSE_S * self._recent_starts)
                if not self._is_stopping:
                    self._restart(code)
                continue
            self._wait(wake_up, listener)

    def _start(self, extra: Sequence[str]) -> None:
        self._starts_s.append(time.monotonic())
        parent = os.getpid()
        self._child = subprocess.Popen(
            [*self._command, *extra],
            env=self._environ,
            preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - there is one thread
        )

    def _may_restart(self) -> bool:
        """Whether HAProxy had started at all, and does not end again and again."""
        return self._has_been_up and self._recent_starts <= MAX_RESTARTS

    @property
    def _recent_starts(self) -> int:
        recent_s = time.monotonic() - RESTART_WINDOW_S
        return sum(start_s > recent_s for start_s in self._starts_s)

    def _restart(self, code: int) -> None:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        sys.stderr.write(f"gateway-haproxy: HAProxy ended by {reason}: starts again\n")
        sys.stderr.flush()
        if self._terminations is not None:
            self._terminations.count("restart")
        self._start(())

    def _wait(self, wake_up: int, listener: socket.socket | None) -> None:
        """Wait for a signal, a command, a log line or a while, and handle what has come."""
        wanted: list[int | socket.socket] = [wake_up]
        if listener is not None:
            wanted.append(listener)
        lines = self._terminations.socket if self._terminations is not None else None
        if lines is not None:
            wanted.append(lines)
        ready, _, _ = select.select(wanted, (), (), PARENT_CHECK_S)
        if wake_up in ready:
            os.read(wake_up, 512)
        if not self._is_orphan and os.getppid() != self._parent:
            self._is_orphan = True
            self._pass_on(signal.SIGUSR1)
        if listener is not None and listener in ready:
            self._answer(listener)
        if self._terminations is not None:
            self._terminations.read_and_save()

    def _pass_on(self, number: int) -> None:
        self._is_stopping = self._is_stopping or number in STOPPING
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)

    def _listener(self) -> socket.socket | None:
        """Serve's admin socket, taken over once HAProxy has started; None if HAProxy has ended."""
        if self._admin is None or not self._wait_until_up():
            return None
        self._has_been_up = True
        draft = f"{self._admin}.{os.getpid()}"
        listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
        listener.bind(draft)  # readable for its owner only: see the umask
        listener.listen()
        Path(draft).replace(self._admin)
        return listener

    def _wait_until_up(self) -> bool:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        expected = f"Pid: {self._child.pid}\n".encode()
        while time.monotonic() < deadline_s and self._child.poll() is None:
            with contextlib.suppress(OSError):
                if expected in self._ask(b"show info\n"):
                    return True
            time.sleep(POLL_S)
        return False

    def _answer(self, listener: socket.socket) -> None:
        """Pass one command on to HAProxy, and its answer back."""
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(ANSWER_TIMEOUT_S)
                answer = self._ask(_command_on(connection))
                connection.sendall(_PID.sub(b"Pid: %d" % os.getpid(), answer))

    def _ask(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as haproxy:
            haproxy.settimeout(ANSWER_TIMEOUT_S)
            haproxy.connect(f"{self._admin}{ADMIN_SUFFIX}")
            haproxy.sendall(command)
            parts = iter(lambda: haproxy.recv(65_536), b"")
            return b"".join(parts)


def _command_on(connection: socket.socket) -> bytes:
    command = b""
    while not command.endswith(b"\n"):
        part = connection.recv(4096)
        if not part:
            break
        command += part
    return command.rstrip(b"\n") + b"\n"


def _wake_up_by_signals(handle: Callable[[int], None]) -> int:
    """Call `handle` for signals to pass on; a descriptor that is readable after each signal."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)

    def on_signal(number: int, _: FrameType | None) -> None:
        handle(number)

    for number in PASSED_ON:
        signal.signal(number, on_signal)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes up
    return readable


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it has ended already


def admin_socket_in(config: Path) -> str | None:
    """Path of Serve's admin socket, from a configuration that is hardened already."""
    pattern = rf"^ *stats socket (\S+){re.escape(ADMIN_SUFFIX)} "
    found = re.search(pattern, config.read_text(), re.MULTILINE)
    return found[1] if found else None
