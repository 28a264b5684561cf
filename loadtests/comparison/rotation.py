"""Who begins a round: each time another one, so that nobody always comes first or last."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rotated(items: Sequence[T], by: int) -> list[T]:
    """All items, beginning with another one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]
