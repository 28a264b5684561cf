"""Lines wait for a busy gateway, and fail for good where another try would not help."""

import pytest

from gateway.batch.line_caller import LineAnswer
from gateway.batch.retries import MAX_DELAY_S, MAX_FAULTS, retry_delay_s


def _answer(status: int, retry_after_s: float = 0.0, *, may_retry: bool = True) -> LineAnswer:
    return LineAnswer(
        status=status, body=b"", request_id="r", retry_after_s=retry_after_s, may_retry=may_retry
    )


@pytest.mark.parametrize(
    ("answer", "tries", "faults", "delay_s"),
    [
        (_answer(200), 1, 0, None),
        (_answer(400), 1, 0, None),
        (_answer(404), 1, 0, None),
        (_answer(429), 1, 0, 0.5),
        (_answer(429), 3, 0, 2.0),
        (_answer(429, 7.0), 1, 0, 7.0),
        (_answer(429, 4000.0), 1, 0, MAX_DELAY_S),  # limits may be raised
        (_answer(429), 1000, 0, MAX_DELAY_S),
        (_answer(503), 1000, 0, MAX_DELAY_S),  # an engine starts
        (_answer(429, may_retry=False), 1, 0, None),  # above its limit alone
        (_answer(500), 1, 1, 0.5),
        (_answer(504), MAX_FAULTS, MAX_FAULTS, None),
        (_answer(502, may_retry=False), 1, 1, 0.5),  # the budget of retries is empty just now
        (_answer(502, may_retry=False), MAX_FAULTS, MAX_FAULTS, None),
    ],
)
def test_when_a_line_is_tried_again(
    answer: LineAnswer, tries: int, faults: int, delay_s: float | None
) -> None:
    """By the status, what the gateway says, and how often it has failed."""
    assert retry_delay_s(answer, tries, faults) == delay_s
