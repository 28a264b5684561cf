"""Projects files of one router: read at the start, and again whenever one has changed."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.config.projects_file import projects_path, read_projects
from gateway.errors.startup import ConfigError
from gateway.identity.live_directory import FILES, LiveDirectory
from gateway.identity.project import Directory
from gateway.identity.project_file import directory_of

Stamp = tuple[int, int, int] | None
"""Identifies a version of a file; None: it cannot be found."""

NO_PROJECTS = Directory()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """Projects files as they were at some time."""

    paths: tuple[str, ...] = ()
    stamps: tuple[Stamp, ...] = ()
    directory: Directory = NO_PROJECTS

    @classmethod
    def read(cls, paths: Iterable[str]) -> "ReadFiles":
        """Read files.

        Raises:
            ConfigError: a file cannot be read, or has mistakes: one line for each.
        """
        names = tuple(paths)
        found = [projects_path(name) for name in names]
        stamps = tuple(map(_stamp, found))
        return cls(names, stamps, directory_of(read_projects(found)))


class ProjectFiles:
    """Puts the projects of files into the live directory; keeps the last good ones."""

    def __init__(self, directory: LiveDirectory) -> None:
        self._directory = directory
        self._read = ReadFiles()
        self._seen: tuple[Stamp, ...] = ()
        self.problems: tuple[str, ...] = ()
        """Mistakes in the files as they are now, one line each."""

    def install(self, read: ReadFiles) -> None:
        """Go by these files from now on."""
        self._read, self._seen, self.problems = read, read.stamps, ()
        self._directory.replace(FILES, read.directory)

    async def refresh(self) -> None:
        """Read the files again if one has changed; where one is wrong, the last good ones stay."""
        base = self._read
        if not base.paths:
            return
        stamps = await asyncio.to_thread(_stamps, base.paths)
        if stamps == self._seen:
            return
        try:
            read = await asyncio.to_thread(ReadFiles.read, base.paths)
        except ConfigError as error:
            if self._read is base:
                self._seen = stamps
                self.problems = tuple(error.message.splitlines())
                logger.error("projects rejected; keeping the previous ones:\n%s", error)  # noqa: TRY400 - the message names the place
            return
        if self._read is base:
            self.install(read)
            logger.info("projects read again from %s", ", ".join(base.paths))


def _stamps(paths: Iterable[str]) -> tuple[Stamp, ...]:
    return tuple(_stamp(projects_path(path)) for path in paths)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
