"""Which lines of a batch are tried again, and when."""

from gateway.batch.line_caller import LineAnswer

BUSY = frozenset({429, 503})
"""Statuses of a gateway that has no room, or no engine yet: such lines wait, as long as there is
time."""
MAX_FAULTS = 3
"""Tries of a line that fails otherwise by the fault of the gateway or an engine."""
MIN_DELAY_S = 0.5
MAX_DELAY_S = 30.0


def retry_delay_s(answer: LineAnswer, tries: int, faults: int) -> float | None:
    """Seconds until a line is tried again; None if its answer is final.

    `tries`: how often it has been tried, `faults`: how often that failed by the gateway's fault,
    both with this time.
    """
    if not _is_retried(answer, faults):
        return None
    delay_s: float = min(MAX_DELAY_S, MIN_DELAY_S * 2.0 ** min(tries - 1, 10))
    return max(delay_s, min(MAX_DELAY_S, answer.retry_after_s))


def is_fault(answer: LineAnswer) -> bool:
    """Whether a line failed by the fault of the gateway or an engine."""
    return answer.status >= 500 and answer.status not in BUSY


def _is_retried(answer: LineAnswer, faults: int) -> bool:
    """Whether a line is tried again.

    What the gateway says of a fault is for clients that wait: its own budget of retries may be
    empty just now. A request that engines fail of is kept from them by the quarantine.
    """
    if answer.status in BUSY:
        return answer.may_retry
    return is_fault(answer) and faults < MAX_FAULTS
