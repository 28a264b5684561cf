"""Names given as an option, with commas."""

from collections.abc import Sequence

from gateway.config.config_errors import suggestion
from gateway.errors import ConfigError


def named(asked: str, known: Sequence[str], option: str) -> list[str]:
    """What was asked for, each once.

    Raises:
        ConfigError: nothing was, or something that is not known.
    """
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: unknown `{name}`{suggestion(name, known)}")
    if not names:
        raise ConfigError(f"{option}: name at least one; known: {', '.join(known)}")
    return names
