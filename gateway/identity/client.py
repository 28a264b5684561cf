"""Identity of a request: the project, key and user that the gateway has verified."""

from functools import cached_property
from urllib.parse import quote

import msgspec

from gateway.identity.project import GROUP, OWN_KEY, SHARED_BY_ALL, Project, RateLimit

OPEN_PROJECT = Project(id="", cache_scope=SHARED_BY_ALL, tiers=("flex", "default", "priority"))
"""Project of all clients of a gateway without authentication."""
TOKEN_MARK = ":"  # noqa: S105 - it is no password
"""Part of the ids of the keys that tokens count as, and of no other key's."""


class ClientIdentity(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Verified identity of a client; one for each key, which all its requests share."""

    project: Project = OPEN_PROJECT
    key: str = ""
    """Id of the API key, or of the service account or issuer that a token stands for."""
    user: str = ""
    """Name of the user, if there is one: a label."""
    models: tuple[str, ...] | None = None
    """Models and adapters that the key may use, of those of the project; None: all of them."""

    @cached_property
    def is_open(self) -> bool:
        """Whether the gateway does not authenticate its clients."""
        return not self.project.id

    @cached_property
    def cache_scope(self) -> str:
        """Scope of the caches that it uses; empty: the one that is shared by all.

        Two identities have the same scope exactly when they may share cached prefixes.
        """
        project = self.project
        scope = project.cache_scope
        if self.is_open or scope == SHARED_BY_ALL:
            return ""
        if scope.startswith(GROUP):
            return scope
        if scope == OWN_KEY:
            return f"key:{quote(project.id, safe='')}/{self.key}"
        return f"project:{project.id}"

    def may_use(self, model: str) -> bool:
        """Whether the client may use a model or adapter; to others it must look as if absent."""
        project, key = self.project.models, self.models
        return (project is None or model in project) and (key is None or model in key)

    def rate_limits(self, model: str) -> list[RateLimit]:
        """Limits that a request for a model or adapter counts against."""
        return [
            limit
            for limit in self.project.rate_limits
            if limit.model in {None, model} and limit.key in {None, self.key}
        ]


ANONYMOUS_IDENTITY = ClientIdentity()
"""Identity of all clients of a gateway without authentication."""
