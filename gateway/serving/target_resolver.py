"""Resolver of the models that requests name; the same for all requests and for dry runs."""

from gateway.errors import UnsupportedRoute
from gateway.kvcache.prefix import prompt_of
from gateway.request.inference_request import InferenceRequest
from gateway.request.request_limits import check_context, check_limits
from gateway.request.routes import ROUTES
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.target import Target


class TargetResolver:
    """Finds models and adapters by name."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def knows(self, name: str) -> bool:
        """Whether there is a model or an adapter of that name."""
        return self._fleet.has(name)

    def model(self, name: str) -> ServedModel:
        """The model of that name, or whose adapter has it.

        Raises:
            ModelNotFound: there is none.
            ModelUnavailable: there is none yet, but not all models are known.
        """
        return self._fleet.model(name)

    def check_limits(self, request: InferenceRequest, model: ServedModel) -> None:
        """Check a request against the model's limits, which are known before it has an engine.

        Raises:
            LimitExceeded: it asks for more than the model's entry allows.
        """
        check_limits(request.head, model.options.limits)

    def target(self, request: InferenceRequest, name: str) -> Target:
        """The request, with the model or adapter `name` that is to answer it.

        Raises:
            ModelNotFound: there is no such model.
            ModelUnavailable: it has no replica now.
            UnsupportedRoute: its engines do not serve the request's path.
            LimitExceeded: it asks for more than the model's entry allows.
            ContextExceeded: its prompt cannot fit the model's context.
        """
        model = self._fleet.model(name)
        self.check_limits(request, model)
        model.check_available()
        _check_route(model, request.path)
        check_context(*(request.head, request.path, model.options.limits, model.max_model_len or 0))
        return Target(request, model, name, prompt_of(request.head, name))


def _check_route(model: ServedModel, path: str) -> None:
    # All replicas run the same engine.
    routes = next(iter(model.replicas.values())).metadata.facts.routes
    if path not in routes:
        served = ", ".join(route for route in routes if route in ROUTES)
        raise UnsupportedRoute(
            f"The model `{model.name}` does not serve {path}; it serves {served}."
        )
