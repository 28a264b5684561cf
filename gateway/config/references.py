"""References in the text of a config: `env:NAME` and `file:PATH` stand for what is kept elsewhere.

The config that Serve stores, logs and shows holds only the reference. The process that needs the
value resolves it: an engine's replica for a model entry, a router for the gateway config. Text that
itself begins with `env:` or `file:` is written with a second colon: `env::text` is `env:text`.
"""

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationInfo

from gateway.config.strict import ConfigPath, FieldError, field_errors

MAX_FILE_BYTES = 1 << 20
MIN_MASKED = 4
"""Characters from which a value is masked in messages: shorter ones are part of ordinary words."""
MASK = "<hidden>"

_PREFIX = re.compile(r"(env|file):(?!:)(.*)", re.DOTALL)
_ESCAPED = re.compile(r"(env|file)::(.*)", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


KNOWN_BEFORE = "cannot be a reference, because it must be known before any engine runs"
"""Reason for which some text cannot be a reference."""
RESOLVED = "resolved"
"""Context of a validation in which what looks like a reference is the text itself."""


class Unresolved(ValueError):
    """A reference has no value in this process; the message says why, and never shows a value."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to an environment variable or to a file."""

    kind: str
    """`env` or `file`."""
    target: str

    @classmethod
    def of(cls, text: object) -> "Reference | None":
        """The reference that a value is; None for any other value."""
        found = _PREFIX.fullmatch(text) if isinstance(text, str) else None
        return cls(found[1], found[2]) if found else None

    @property
    def mistake(self) -> str:
        """Mistake in the reference itself; empty if there is none."""
        what = f"write `{self.kind}::` for text that begins with `{self.kind}:`"
        if self.kind == "env" and not _VARIABLE.fullmatch(self.target):
            return f"`env:` must be followed by the name of a variable; {what}"
        if self.kind == "file" and (not self.target.strip() or "\0" in self.target):
            return f"`file:` must be followed by a path; {what}"
        return ""

    def value(self, environ: Mapping[str, str], roots: Sequence[Path] = ()) -> str:
        """What the reference stands for. `roots`: where relative paths may begin.

        Raises:
            Unresolved: the variable is not set, or the file cannot be read.
        """
        if self.mistake:
            raise Unresolved(self.mistake)
        return self._variable(environ) if self.kind == "env" else self._file(roots)

    def _variable(self, environ: Mapping[str, str]) -> str:
        if self.target not in environ:
            raise Unresolved(f"{self.target} is not set")
        if not environ[self.target]:
            raise Unresolved(f"{self.target} is empty")
        return environ[self.target]

    def _file(self, roots: Sequence[Path]) -> str:
        try:
            path = Path(self.target).expanduser()
            places = [path] if path.is_absolute() else [root / path for root in roots or [Path()]]
            path = next(filter(Path.exists, places), places[0])
            content = _beginning(path, MAX_FILE_BYTES + 1)
        except (OSError, RuntimeError) as error:  # no home directory is a RuntimeError
            raise Unresolved(f"{self.target}: {getattr(error, 'strerror', error)}") from None
        if len(content) > MAX_FILE_BYTES:
            raise Unresolved(f"{path} is larger than {MAX_FILE_BYTES >> 20} MB")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise Unresolved(f"{path} is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _beginning(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file.

    A pipe without a writer must not make the reader wait, nor a device be read for ever.

    Raises:
        OSError: it cannot be read.
        Unresolved: it is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise Unresolved(f"{path} is not a file")
    with path.open("rb") as file:
        return file.read(size)


@dataclass(slots=True)
class Resolver:
    """Resolves references in this process, and hides what they stand for in messages."""

    environ: Mapping[str, str]
    roots: Sequence[Path] = ()
    errors: list[FieldError] = field(default_factory=list)
    """References without a value here, each with its path."""
    values: set[str] = field(default_factory=set)
    """What the references stood for."""

    def resolved(self, value: object, path: ConfigPath = ()) -> object:
        """`value` with what its references stand for, also in lists and mappings."""
        return _replaced(value, path, self._text)

    def masked(self, message: str) -> str:
        """`message` without anything that a reference stood for."""
        for value in sorted(self.values, key=len, reverse=True):
            message = message.replace(value, MASK)
        return message

    def _text(self, text: str, path: ConfigPath) -> str:
        reference = Reference.of(text)
        if reference is None:
            return unescaped(text)
        try:
            value = reference.value(self.environ, self.roots)
        except Unresolved as error:
            self.errors.append(FieldError(path, str(error)))
            return text
        if len(value) >= MIN_MASKED:
            self.values.add(value)
        return value


def unescaped(text: str) -> str:
    """Text as it is meant, without the second colon that makes it no reference."""
    found = _ESCAPED.fullmatch(text)
    return f"{found[1]}:{found[2]}" if found else text


def check_references(config: object, info: ValidationInfo) -> None:
    """Raise a validation error for references that are wrong in themselves."""
    if info.context == RESOLVED:
        return
    found = references(config)
    if errors := [FieldError(path, each.mistake) for path, each in found if each.mistake]:
        raise field_errors(errors)


def has_reference(value: object) -> bool:
    """Whether a value is a reference, or holds one."""
    return any(True for _ in references(value))


def references(value: object, path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, Reference]]:
    """All references in a value, each with its path."""
    for inner, text in texts(value, path):
        if reference := Reference.of(text):
            yield inner, reference


def texts(value: object, path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, str]]:
    """All text in a value, each with its path; keys of mappings are not among them."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, inner in value.items():
                yield from texts(inner, (*path, str(key)))
        case list() | tuple():
            for i, inner in enumerate(value):
                yield from texts(inner, (*path, i))


def _replaced(value: object, path: ConfigPath, replace: Callable[[str, ConfigPath], str]) -> object:
    match value:
        case str():
            return replace(value, path)
        case dict():
            return {k: _replaced(v, (*path, str(k)), replace) for k, v in value.items()}
        case list() | tuple():
            items = (_replaced(inner, (*path, i), replace) for i, inner in enumerate(value))
            return type(value)(items)
        case _:
            return value
