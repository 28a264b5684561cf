"""Findings of checks: what is well, what may fail, what will, and what to do about it."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(msgspec.Struct, frozen=True):
    """What one check has found."""

    level: Level
    check: str
    """What was looked at."""
    message: str
    remedy: str = ""
    """What to do; empty if all is well."""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Something may fail, or is worse than it could be."""
    return Finding(Level.WARNING, check, message, remedy)


def failure(check: str, message: str, remedy: str) -> Finding:
    """Something does not work, or will not."""
    return Finding(Level.FAILURE, check, message, remedy)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a sentence; of many, the first ones and how many more."""
    found = list(dict.fromkeys(names))
    shown = ", ".join(found[:most])
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"
