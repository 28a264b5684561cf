"""Rules for values in Serve's config: each says what is wrong with a value, if anything is."""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from gateway.config.strict import ConfigPath, format_value, suggestion


class Wrong(NamedTuple):
    """A wrong value, where it is in the value that was checked, and what is wrong with it."""

    path: ConfigPath
    value: object
    message: str


class Rule(Protocol):
    """What a value has to be."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""


class OrNull(msgspec.Struct, frozen=True):
    """A value, or null, which is Serve's default."""

    rule: Rule

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        return iter(()) if value is None else self.rule.mistakes(value)


class Number(msgspec.Struct, frozen=True):
    """Range of a number."""

    minimum: float = -sys.float_info.max
    maximum: float = sys.float_info.max
    above: float = -sys.float_info.max
    is_whole: bool = False
    finest: float = 0
    """The least that is not zero."""
    words: tuple[str, ...] = ()
    """Words that may stand in its place."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if value in self.words:
            return
        if not self._is_number(value):
            noun = "a whole number" if self.is_whole else "a number"
            choice = "".join(f" or `{word}`" for word in self.words)
            yield Wrong((), value, f"should be {noun}{choice}, found {format_value(value)}")
        elif not self.minimum <= value <= self.maximum:  # type: ignore[operator]
            yield Wrong((), value, f"should be {self._range}, found {format_value(value)}")
        elif not value > self.above:  # type: ignore[operator]
            found = format_value(value)
            yield Wrong((), value, f"should be greater than {self.above:g}, found {found}")
        elif 0 < value < self.finest:  # type: ignore[operator]
            found = format_value(value)
            yield Wrong((), value, f"should be 0 or at least {self.finest:g}, found {found}")

    def _is_number(self, value: object) -> bool:
        """Whether it is a number, and no infinity."""
        kind = int if self.is_whole else int | float
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and (not isinstance(value, float) or abs(value) <= sys.float_info.max)

    @property
    def _range(self) -> str:
        if self.maximum == sys.float_info.max:
            return f"greater than or equal to {self.minimum:g}"
        if self.minimum == -sys.float_info.max:
            return f"less than or equal to {self.maximum:g}"
        return f"between {self.minimum:g} and {self.maximum:g}"


class Text(msgspec.Struct, frozen=True):
    """Text that is not empty, one of some words, or of a certain form."""

    choices: tuple[str, ...] = ()
    form: str = ""
    """Regular expression for the whole text."""
    noun: str = ""
    """What text of that form is."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if not isinstance(value, str):
            yield Wrong((), value, f"should be text, found {format_value(value)}")
        elif self.choices and value not in self.choices:
            message = f"found {format_value(value)}{suggestion(value, self.choices)}"
            yield Wrong((), value, message)
        elif not value.strip():
            yield Wrong((), value, "must not be empty")
        elif self.form and not re.fullmatch(self.form, value):
            yield Wrong((), value, f"should be {self.noun}, found {format_value(value)}")


class AnyText(msgspec.Struct, frozen=True):
    """Text, which may be empty."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if not isinstance(value, str):
            hint = "" if isinstance(value, dict | list) or value is None else " (put it in quotes)"
            yield Wrong((), value, f"should be text, found {format_value(value)}{hint}")


class Switch(msgspec.Struct, frozen=True):
    """True or false."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if not isinstance(value, bool):
            yield Wrong((), value, f"should be true or false, found {format_value(value)}")


class OneOf(msgspec.Struct, frozen=True):
    """One of some numbers."""

    choices: tuple[int, ...]

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if isinstance(value, bool) or value not in self.choices:
            known = ", ".join(map(str, self.choices))
            yield Wrong((), value, f"found {format_value(value)}; known: {known}")


class Either(msgspec.Struct, frozen=True):
    """What one of two rules allows: the first for text, the second for anything else."""

    text: Rule
    other: Rule

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        return (self.text if isinstance(value, str) else self.other).mistakes(value)


class ListOf(msgspec.Struct, frozen=True):
    """A list of such values."""

    item: Rule

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if not isinstance(value, list):
            yield Wrong((), value, f"should be a list, found {format_value(value)}")
            return
        for i, item in enumerate(value):
            yield from _inside(i, self.item.mistakes(item))


class MappingOf(msgspec.Struct, frozen=True):
    """A mapping: from keys to such values, with rules for some keys, or with those alone."""

    key: Rule | None = None
    item: Rule | None = None
    fields: Mapping[str, Rule] = {}
    is_closed: bool = False
    """Whether all other keys are mistakes."""
    needed: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}
    """Keys that it must not have, with the reasons."""

    def mistakes(self, value: object) -> Iterator[Wrong]:
        """All that is wrong with a value."""
        if not isinstance(value, dict):
            yield Wrong((), value, f"should be a mapping, found {format_value(value)}")
            return
        for name in self.needed:
            if name not in value:
                yield Wrong((name,), None, "is missing")
        for key, item in value.items():
            name = key if isinstance(key, str) else format_value(key)
            yield from self._wrong_key(key, name)
            rule = self.fields.get(name, self.item)
            if rule is not None:
                yield from _inside(name, rule.mistakes(item))
            elif self.is_closed:
                yield Wrong((name,), None, f"unknown field{suggestion(name, tuple(self.fields))}")

    def _wrong_key(self, key: object, name: str) -> Iterator[Wrong]:
        if self.key is not None:
            for wrong in self.key.mistakes(key):
                yield Wrong((name,), key, f"its name {wrong.message}")
        if name in self.refused:
            yield Wrong((name,), None, self.refused[name])


def _inside(step: str | int, wrongs: Iterator[Wrong]) -> Iterator[Wrong]:
    return (Wrong((step, *wrong.path), wrong.value, wrong.message) for wrong in wrongs)
