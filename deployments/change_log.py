"""Log of states and troubles that are looked at again and again: only changes are written."""

import logging


class ChangeLog:
    """Writes a line about a thing only where it differs from the last one about that thing."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lines: dict[str, str] = {}

    def record(self, thing: str, line: str, level: int = logging.INFO) -> None:
        """Write `thing: line`, unless that was written last."""
        if self._lines.get(thing) != line:
            self._lines[thing] = line
            self._logger.log(level, "%s: %s", thing, line)

    def record_end(self, thing: str, line: str) -> None:
        """Write that a trouble with a thing is over, if there was any."""
        if self._lines.pop(thing, None) is not None:
            self._logger.info("%s: %s", thing, line)

    def forget(self, *things: str) -> None:
        """Forget things that are gone."""
        for thing in things:
            self._lines.pop(thing, None)
