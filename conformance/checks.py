"""What all suites share: a target, checks by name, and their results.

Only Python's own library is used here: this module runs in the environments of many clients.
"""

import asyncio
import inspect
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType, ModuleType
from typing import Any

CHECK_TIMEOUT_S = 60
WHY_CHARACTERS = 300
PREFIX = "check_"


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """A gateway, and the models on it that are asked."""

    url: str
    model: str = "demo"
    embedding_model: str = "demo-embed"
    spec: str | None = None
    """OpenAI's specification, a file in JSON, possibly compressed."""

    @property
    def base_url(self) -> str:
        """Where OpenAI's clients look for routes."""
        return f"{self.url}/v1"


Check = Callable[[CheckTarget], object | Coroutine[Any, Any, object]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check went; `passed` and `failed` are counts: it may stand for a file of tests."""

    name: str
    passed: int
    failed: int
    why: str = ""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "CheckResult":
        """The result that `to_json` made a dictionary of."""
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a file."""
        return asdict(self)


def module_checks(module: ModuleType) -> dict[str, Check]:
    """The checks of a module by name: its `CHECKS`, or its functions `check_...` in their order."""
    found: dict[str, Check] | None = getattr(module, "CHECKS", None)
    if found is not None:
        return found
    functions = [f for n, f in vars(module).items() if n.startswith(PREFIX) and callable(f)]
    return {_name(function): function for function in functions}


def time_limit_s(module: ModuleType) -> int:
    """How long one check of a module may take: its `CHECK_TIMEOUT_S`, or a minute."""
    limit: int = getattr(module, "CHECK_TIMEOUT_S", CHECK_TIMEOUT_S)
    return limit


def run_checks(
    checks: Iterable[tuple[str, Check]], target: CheckTarget, limit_s: int = CHECK_TIMEOUT_S
) -> Iterator[CheckResult]:
    """Run one check after the other; one that takes longer than its limit fails."""
    for name, check in checks:
        try:
            with _time_limit(limit_s):
                outcome = check(target)
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is why it fails
            yield CheckResult(name, 0, 1, _shown(error))
        else:
            yield CheckResult(name, 1, 0)


def _shown(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text[:WHY_CHARACTERS]


def _name(function: Callable[..., object]) -> str:
    return function.__name__.removeprefix(PREFIX).replace("_", " ")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def give_up(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
