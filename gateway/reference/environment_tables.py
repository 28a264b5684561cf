"""Tables of all environment variables, generated from the catalogue that names them."""

from collections.abc import Iterable

from gateway.config.entry import RESERVED_ENV
from gateway.environment import (
    COMMANDS,
    HAPROXY_BINARY,
    HAPROXY_SCRIPT,
    LOCAL,
    OPTIONAL,
    RECOMMENDED,
    TRACING,
    Variable,
)
from gateway.reference.markdown import code, table


def environment_tables() -> dict[str, str]:
    """What to set where Ray starts, what may be set, and what an engine's `env` must not hold."""
    recommended = [(code(each.name), code(_value(each)), each.meaning) for each in RECOMMENDED]
    reserved = [(code(name), f"It {why}.") for name, why in RESERVED_ENV.items()]
    return {
        "recommended": table(("variable", "value", "what it does"), recommended),
        "optional": _unset(OPTIONAL),
        "tracing": _unset(TRACING),
        "commands": _unset(COMMANDS),
        "local": _unset(LOCAL),
        "reserved": table(("variable", "why"), reserved),
    }


def _value(variable: Variable) -> str:
    return f".../{HAPROXY_SCRIPT}" if variable.name == HAPROXY_BINARY else variable.value or ""


def _unset(variables: Iterable[Variable]) -> str:
    return table(
        ("variable", "what it does"), [(code(each.name), each.meaning) for each in variables]
    )
