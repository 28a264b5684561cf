"""Reasons why an engine does not start, on one line."""

import os
import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.engine_failure import (
    REASON_LENGTH,
    EngineStartFailed,
    ProcessOutput,
    explain_start_failure,
)
from gateway.errors.startup import ConfigError

POINTER = RuntimeError("Engine core initialization failed. See root cause above. Failed: {}")
LOG = """\
(EngineCore pid=9) INFO 11-29 22:00:00 [core.py:1] loading
(EngineCore pid=9) ERROR 11-29 22:00:01 [core.py:2] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-29 22:00:01 [core.py:2]   File "x.py", line 1, in y
(EngineCore pid=9) ERROR 11-29 22:00:01 [core.py:2] ValueError: the model's max seq len (8192)
ERROR 11-29 22:00:02 [client.py:3] RuntimeError: See stack trace for root cause.
"""


class Typed(BaseModel):
    """A model with one field."""

    model_config = ConfigDict(extra="forbid")

    count: int


def invalid(**fields: object) -> ValidationError:
    """The error of pydantic for these fields."""
    with pytest.raises(ValidationError) as caught:
        Typed.model_validate(fields)
    return caught.value


@pytest.mark.parametrize(
    ("error", "reason", "is_final"),
    [
        (ConfigError("the first\nthe second"), "the first the second", True),
        (ValueError("no such kernel"), "no such kernel", True),
        (KeyError("x"), "KeyError: 'x'", False),
        (OSError("the hub does not answer"), "the hub does not answer", False),
        (ValueError("Free memory on device cuda:0 is less"), "Free memory on dev", False),
        (ValueError("its max seq len is larger than available memory"), "its max", True),
        (invalid(count="a secret"), "count: Input should be a valid integer", True),
        (RuntimeError("x " * 1000), "x x x", False),
    ],
)
def test_a_failure_has_one_line_and_says_whether_it_lasts(
    error: Exception, reason: str, is_final: bool
) -> None:
    """What lies in the entry lasts; the hub may answer, and memory may become free."""
    found, lasts = explain_start_failure(error, None)
    assert found.startswith(reason)
    assert lasts is is_final
    assert "secret" not in found
    assert "\n" not in found
    assert len(found) <= REASON_LENGTH + 3


def test_the_cause_is_found_in_the_output_of_the_engine_s_processes(tmp_path: Path) -> None:
    """Only what was written since the start counts, and no line that points elsewhere."""
    file = tmp_path / "worker.out"
    file.write_text("ERROR 11-29 21:00:00 [x.py:1] ValueError: an earlier one\n")
    kept = os.dup(1)
    with file.open("a") as output:
        os.dup2(output.fileno(), 1)
        try:
            found = ProcessOutput()
            before = found.cause()
            os.write(1, LOG.encode())
            cause = found.cause()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert before is None
    assert cause == ("ValueError", "the model's max seq len (8192)")
    reason = "the model's max seq len (8192)"
    assert explain_start_failure(POINTER, cause) == (reason, True)
    assert explain_start_failure(ValueError("its own"), cause) == ("its own", True)


def test_a_failed_start_survives_pickling() -> None:
    """Ray carries it to another process."""
    error = pickle.loads(pickle.dumps(EngineStartFailed("no", is_final=True)))  # noqa: S301
    assert (str(error), error.is_final) == ("no", True)
