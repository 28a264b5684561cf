"""Meters of one project: one for each scope that its limits name."""

from collections.abc import Sequence

from gateway.identity.project import Project
from gateway.limits.meter import Meter, Scope


class ProjectMeters:
    """Meters of one project; those whose scope stays keep their counts when limits change."""

    def __init__(self, project: Project) -> None:
        self._meters: dict[Scope, Meter] = {}
        self._found: dict[Scope, Sequence[Meter]] = {}
        """Meters that a request for a model with a key counts against; other models and keys than
        those that limits name are all one."""
        self._models: set[str | None] = set()
        self._keys: set[str | None] = set()
        self.replace(project)

    def replace(self, project: Project) -> None:
        """Follow a change of the project's limits."""
        scopes = {(limit.model, limit.key) for limit in project.rate_limits}
        known = self._meters
        self._meters = {
            scope: known.get(scope) or Meter(project.name or project.id, scope) for scope in scopes
        }
        for scope, meter in self._meters.items():
            meter.set_limits(
                limit for limit in project.rate_limits if (limit.model, limit.key) == scope
            )
        self._models = {model for model, _ in scopes}
        self._keys = {key for _, key in scopes}
        self._found.clear()

    def all(self) -> Sequence[Meter]:
        """All meters."""
        return list(self._meters.values())

    def of(self, model: str, key: str) -> Sequence[Meter]:
        """Meters that a request counts against; O(1)."""
        scope = (
            model if model in self._models else None,
            key if key in self._keys else None,
        )
        found = self._found.get(scope)
        if found is None:
            found = self._found[scope] = [
                meter
                for (for_model, for_key), meter in self._meters.items()
                if for_model in {None, scope[0]} and for_key in {None, scope[1]}
            ]
        return found
