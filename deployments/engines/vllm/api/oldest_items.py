"""Conversations without their beginning."""

from collections.abc import Sequence
from typing import Any


def without_oldest(items: Sequence[Any], count: int) -> list[Any]:
    """The items but the first `count` that are no instructions, nor results of calls among them."""
    kept, calls = [], set()
    for place, item in enumerate(items):
        is_last = place == len(items) - 1
        if count and not is_last and _field(item, "role") not in ("system", "developer"):
            count -= 1
            continue
        kind, call = str(_field(item, "type")), _field(item, "call_id")
        if kind.endswith("_call_output") and call not in calls:
            continue
        if kind.endswith("_call"):
            calls.add(call)
        kept.append(item)
    return kept


def _field(item: Any, name: str) -> Any:  # noqa: ANN401 - a dict, or a model of the SDK's
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
