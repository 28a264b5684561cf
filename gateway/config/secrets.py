"""Secrets that a config holds in plain text, recognized by the names of fields and by their form.

Serve stores its config, shows it (`serve config`) and logs the arguments of every application, so
a secret must not be in it: `gateway check` warns of each, and error messages leave them out.
"""

import re
from collections.abc import Iterator

from gateway.config.references import MASK, Reference, texts
from gateway.config.strict import ConfigPath

_SECRET_WORD = re.compile(
    r"(^|_)(token|keys?|secrets?|pwd|auth|authorization|bearer|cookies?|creds)(_|$)"
)
"""A word that makes a name, as `api_key`, the name of a secret."""
_SECRET_PART = re.compile(
    r"token(?!s|iz)|secret|passw(or)?d|passphrase|(^|_|db)pass$|credential"
    r"|(api|access|private|ssh|signing|encryption)_?keys?($|_)"
    r"|(^|_)(hf|hub|api|auth|access|refresh|bearer|user|client|admin|bot|service)_tokens$"
)
"""What does so within words, or at the end of a name. Most other `tokens` are a number of them."""
_COUNT_NAME = re.compile(r"(^|_)(max|min|num|n|total|batched|per)_")
_HARMLESS_NAME = re.compile(
    r"(prefix|size|types?|names?|len|length|limit|mode|method|scheme|ids|enabled|disabled|budget"
    r"|rate|threshold|adaptive|ttl|timeout|url|uri|host|port|endpoint"
    r"|paths?|files?|dir|directory|folder|application_credentials)$"
)
"""Ends of names whose value says something about a secret, such as where it is."""
_HARMLESS_VALUE = re.compile(r"|[01]|true|false|yes|no|on|off|none|null|auto", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_FORM = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abp]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
)
_NAMES_ONLY = frozenset({"aliases", "splits", "fallbacks", "metadata", "labels"})
"""Mappings whose keys are names that operators choose."""


def literal_secrets(value: object, path: ConfigPath = ()) -> Iterator[ConfigPath]:
    """Paths of all text in a value that is a secret and no reference to one."""
    for inner, text in texts(value, path):
        if is_secret(inner, text):
            yield inner


def is_secret(path: ConfigPath, text: object) -> bool:
    """Whether a value at a path is a secret in plain text."""
    if not isinstance(text, str) or Reference.of(text):
        return False
    if _FORM.search(text):
        return True
    return has_secret_name(path) and not _HARMLESS_VALUE.fullmatch(text)


def has_secret_name(path: ConfigPath) -> bool:
    """Whether the field at a path is one for secrets."""
    names = [step for step in path if isinstance(step, str)]
    if not names or not _NAMES_ONLY.isdisjoint(names):
        return False
    name = "_".join(_WORDS.findall(names[-1])).lower()
    if _HARMLESS_NAME.search(name) or _COUNT_NAME.search(name):
        return False
    return bool(_SECRET_WORD.search(name) or _SECRET_PART.search(name))


def shown(path: ConfigPath, value: object, text: str) -> str:
    """`text`, the printed form of a value, or a mask if the value may be a secret."""
    hides = has_secret_name(path) and value is not None and not isinstance(value, dict | list)
    return MASK if hides or is_secret(path, value) else text
