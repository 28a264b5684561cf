"""Shares the time of devices that were held and not used out to projects.

Method: for each hour and model, what its replicas held is their presence in that hour times their
devices. What requests used of it is taken off, and the rest is shared by weights: those of the
config, or else what each project used of the model in that hour. If nobody used it and no weights
are given, the time belongs to the operator (an empty project). All in whole microseconds; the
shares add up exactly, because the largest remainders are rounded up.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.ledger.price import HOUR_US, MILLION

OPERATOR = ""
"""Project of time that is shared out to nobody."""


class Presence(msgspec.Struct, frozen=True):
    """From when to when a replica held its devices, in microseconds of Unix time."""

    model: str
    devices: int
    first_us: int
    last_us: int


def held_us(presences: Iterable[Presence], hour_s: int) -> dict[str, int]:
    """Device time that each model's replicas held in an hour."""
    held: dict[str, int] = {}
    begin_us = hour_s * MILLION
    for each in presences:
        first, last = max(each.first_us, begin_us), min(each.last_us, begin_us + HOUR_US)
        if last > first:
            held[each.model] = held.get(each.model, 0) + (last - first) * each.devices
    return held


def idle_shares(held: int, used: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Share out what was held of a model and not `used` by projects, by weights if there are any.

    Weights of projects count whether or not they used the model.
    """
    idle = max(0, held - sum(used.values()))
    given = {project: weight for project, weight in weights.items() if weight > 0}
    by_use = {project: float(time) for project, time in used.items() if time > 0 and project}
    return split(idle, given or by_use) if idle else {}


def split(amount: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Split a whole amount by weights: the parts add up to it exactly."""
    total = sum(weights.values())
    if not total:
        return {OPERATOR: amount}
    exact = {name: amount * weight / total for name, weight in weights.items()}
    parts = {name: int(value) for name, value in exact.items()}
    left = amount - sum(parts.values())
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    # Floating point may be off by more than one for very large amounts.
    each, rest = divmod(left, len(parts))
    for i, name in enumerate(by_remainder):
        parts[name] += each + (i < rest)
    return {name: part for name, part in parts.items() if part}
