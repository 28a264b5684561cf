"""Identity of a request: the project, key and user that the gateway has verified."""

import msgspec

from gateway.identity.project import SHARED_BY_ALL, Project, RateLimit

OPEN_PROJECT = Project(id="", cache_scope=SHARED_BY_ALL, tiers=("flex", "default", "priority"))
"""Project of all clients of a gateway without authentication."""
TOKEN_MARK = ":"  # noqa: S105 - it is no password
"""Part of the ids of the keys that tokens count as, and of no other key's."""


class ClientIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Verified identity of a client."""

    project: Project = OPEN_PROJECT
    key: str = ""
    """Id of the API key, or of the service account or issuer that a token stands for."""
    user: str = ""
    """Name of the user, if there is one: a label."""
    models: tuple[str, ...] | None = None
    """Models and adapters that the key may use, of those of the project; None: all of them."""

    @property
    def is_open(self) -> bool:
        """Whether the gateway does not authenticate its clients."""
        return not self.project.id

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
