"""Work that a function does, measured without a clock: calls of functions, and memory."""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType


def repeated(element: bytes, size: int) -> bytes:
    """A JSON list of about `size` bytes that consists of one element."""
    return b"[" + b",".join([element] * (size // (len(element) + 1))) + b"]"


def work_of(function: Callable[[], object]) -> tuple[int, int]:
    """Calls of functions that a function makes, and bytes of memory at its peak."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return calls, peak
