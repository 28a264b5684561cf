"""Models whose applications could not be built: known to clients, with the reason."""

import time
from collections.abc import Mapping

from deployments.serve_internals.status import FailedBuild
from gateway.routing.fleet import Fleet, ModelState, ServedModel


class FailedBuilds:
    """Keeps the models of failed applications in a fleet, as long as their applications fail.

    A model that runs under the same name goes first: an application that was changed for the worse
    keeps the engines that it has.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._models: dict[str, ServedModel] = {}
        """Models by the names of their applications."""

    def update(self, found: Mapping[str, FailedBuild]) -> None:
        """Bring the fleet up to date with Serve's status: `found` by name of application."""
        for gone in self._models.keys() - found.keys():
            self._fleet.remove(self._models.pop(gone))
        for app, build in found.items():
            name = build.args.get("name")
            if isinstance(name, str) and name:
                self._show(app, name, build.error)

    def _show(self, app: str, name: str, error: str) -> None:
        model = self._models.get(app)
        if model is None or model.name != name:
            if model is not None:
                self._fleet.remove(self._models.pop(app))
            if self._fleet.has_model(name):
                return
            model = self._models[app] = ServedModel(name, created_s=int(time.time()))
            self._fleet.add(model)
        model.state, model.reason = ModelState.UNHEALTHY, f"its entry is wrong: {error}"
