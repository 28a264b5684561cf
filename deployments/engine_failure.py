"""Reason why an engine does not start: one line, and whether another try could end otherwise."""

import os
import re
import stat
from pathlib import Path

from pydantic import ValidationError

from deployments.engines.vllm.version import UnsupportedVersion
from gateway.errors.startup import ConfigError

REASON_LENGTH = 600
OUTPUT_BYTES = 1 << 20
"""End of the engine's output that is searched for the cause."""

_FINAL = (ConfigError, UnsupportedVersion, ValueError, TypeError, NotImplementedError, ImportError)
_FINAL_NAMES = {"ValueError", "TypeError", "NotImplementedError", "ValidationError", "ImportError"}
_MEMORY = re.compile(r"free memory|out of memory|available memory|no available", re.IGNORECASE)
"""What may change without the entry: other processes use the same GPU."""
_POINTER = re.compile(r"see (root cause|stack trace|the (root|stack))|root cause", re.IGNORECASE)
"""Error of vLLM's that only says that another process has the cause."""
_LOGGED = re.compile(r"(?:\([^)]*\) )?ERROR [\d-]+ [\d:.]+ \[[^\]]*\] (.*)")
_RAISED = re.compile(r"(?:\w+\.)*([A-Z]\w*(?:Error|Exception|Failed|Exit)): (.+)")


class EngineStartFailed(Exception):
    """An engine does not start; the message is the reason, on one line."""

    def __init__(self, reason: str, is_final: bool) -> None:
        super().__init__(reason, is_final)
        self.reason = reason
        self.is_final = is_final
        """Whether the same entry would fail in the same way again."""

    def __str__(self) -> str:
        return self.reason


class ProcessOutput:
    """What this process and its children write from here on, where that goes to files.

    vLLM loads a model in processes of its own, and raises here only that one of them failed: the
    cause is in their output, which Ray sends to files.
    """

    def __init__(self) -> None:
        self._files = dict(filter(None, map(_open_file, (1, 2))))

    def cause(self) -> tuple[str, str] | None:
        """Class and message of the last error that a vLLM process has logged as its own."""
        found = [each for path, start in self._files.items() for each in _errors(path, start)]
        return found[-1] if found else None


def explain_start_failure(error: Exception, logged: tuple[str, str] | None) -> tuple[str, bool]:
    """The reason for an error, on one line, and whether it is final.

    `logged`: class and message of the error that another process of the engine has logged.
    """
    if logged and _POINTER.search(str(error)):
        name, message = logged
        return _one_line(message), name in _FINAL_NAMES and _lasts(message)
    reason = _one_line(_message(error))
    return reason, isinstance(error, _FINAL) and _lasts(reason)


def _lasts(reason: str) -> bool:
    """Whether a reason lies in the entry, and not in what other processes leave of the memory."""
    return "max seq len" in reason or not _MEMORY.search(reason)


def _message(error: Exception) -> str:
    if isinstance(error, ValidationError):  # its own text shows the input, secrets included
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(_detail(each["loc"], each["msg"]) for each in details)
    text = str(error)
    return text if " " in text.strip() else f"{type(error).__name__}: {text}"


def _detail(location: tuple[int | str, ...], message: str) -> str:
    path = ".".join(map(str, location))
    message = message.removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]}..."


def _open_file(descriptor: int) -> tuple[Path, int] | None:
    """Path and present length of the file behind a descriptor; None if it is no file."""
    try:
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return None
    return (path, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _errors(path: Path, start: int) -> list[tuple[str, str]]:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - OUTPUT_BYTES))
            text = file.read(OUTPUT_BYTES).decode(errors="replace")
    except OSError:
        return []
    logged = filter(None, map(_LOGGED.match, text.splitlines()))
    raised = filter(None, (_RAISED.fullmatch(match[1].rstrip()) for match in logged))
    return [(match[1], match[2]) for match in raised if not _POINTER.search(match[2])]
