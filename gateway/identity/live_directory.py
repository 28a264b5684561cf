"""Projects and keys in force, looked up by the hash of a key.

Several sources may each have a directory: projects files, and the database of accounts. Where two
have the same hash or id, that of the files counts.
"""

import logging
from collections.abc import Callable, Mapping

import msgspec

from gateway.identity.client import ClientIdentity
from gateway.identity.project import AdminKey, ApiKey, Directory, Project

FILES = "files"
"""Source of the projects in files."""
ACCOUNTS = "accounts"
"""Source of the projects in the database."""

logger = logging.getLogger(__name__)


class KnownKey(msgspec.Struct, frozen=True):
    """An API key in force, with what it stands for."""

    identity: ClientIdentity
    expires_s: float | None = None
    """When it expires, in Unix time."""


class LiveDirectory:
    """Directories of all sources, as one."""

    def __init__(self) -> None:
        self._sources: dict[str, Directory] = {}
        self._expected: set[str] = set()
        self._keys: dict[bytes, KnownKey] = {}
        self._admin_keys: dict[bytes, AdminKey] = {}
        self._projects: dict[str, Project] = {}
        self._names: dict[str, Project] = {}
        self._listeners: list[Callable[[], None]] = []
        self.version = 0
        """Number that changes whenever the directory does."""

    @property
    def projects(self) -> Mapping[str, Project]:
        """All projects by id."""
        return self._projects

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the directory changes."""
        self._listeners.append(listener)

    def expect(self, source: str) -> None:
        """Know that a source has a directory, which may come late."""
        self._expected.add(source)

    @property
    def is_complete(self) -> bool:
        """Whether all sources have given their directories: only then is an unknown key wrong."""
        return self._expected <= self._sources.keys()

    def replace(self, source: str, directory: Directory) -> None:
        """Go by this directory of a source from now on, instead of its earlier one."""
        if self._sources.get(source) == directory:
            return
        self._sources[source] = directory
        self._rebuild()

    def key(self, hash_: bytes, now_s: float) -> KnownKey | None:
        """The API key with a hash, unless it has expired."""
        found = self._keys.get(hash_)
        if found is None or (found.expires_s is not None and found.expires_s <= now_s):
            return None
        return found

    def has_expired(self, hash_: bytes, now_s: float) -> bool:
        """Whether a hash is that of a key that has expired."""
        found = self._keys.get(hash_)
        return found is not None and _has_expired(found, now_s)

    def admin_key(self, hash_: bytes, now_s: float) -> AdminKey | None:
        """The admin key with a hash, unless it has expired."""
        found = self._admin_keys.get(hash_)
        return None if found is None or _has_expired(found, now_s) else found

    @property
    def has_admin_keys(self) -> bool:
        """Whether there is any admin key."""
        return bool(self._admin_keys)

    def project(self, name: str) -> Project | None:
        """The project with this id, or else with this name."""
        return self._projects.get(name) or self._names.get(name)

    def _rebuild(self) -> None:
        self._keys, self._admin_keys, self._projects, self._names = {}, {}, {}, {}
        for source in sorted(self._sources, key=lambda name: (name != FILES, name)):
            self._add(source, self._sources[source])
        self.version += 1
        for listener in self._listeners:
            listener()

    def _add(self, source: str, directory: Directory) -> None:
        projects = [project for project in directory.projects if project.id]
        own = {project.id for project in projects}
        for project in projects:
            if self._projects.setdefault(project.id, project) is not project:
                logger.warning(
                    "project %s of source %r is ignored: another source has it, too",
                    project.id,
                    source,
                )
            if project.name:
                self._names.setdefault(project.name, project)
        for key in directory.keys:
            if key.project in own:
                self._keys.setdefault(key.hash, _known_key(key, self._projects[key.project]))
        for admin_key in directory.admin_keys:
            self._admin_keys.setdefault(admin_key.hash, admin_key)


def _known_key(key: ApiKey, project: Project) -> KnownKey:
    identity = ClientIdentity(project=project, key=key.id, user=key.owner, models=key.models)
    return KnownKey(identity, key.expires_s)


def _has_expired(key: KnownKey | AdminKey, now_s: float) -> bool:
    return key.expires_s is not None and key.expires_s <= now_s
