"""Resolver of the models that requests name; the same for all requests and for dry runs."""

from gateway.config.route_paths import ROUTES
from gateway.errors.access import CacheNotPrivate
from gateway.errors.request import UnsupportedRoute
from gateway.identity.cache_scope import ScopeSeeds
from gateway.kvcache.prefix import prompt_of
from gateway.kvcache.tool_definitions import ToolTexts
from gateway.request.inference_request import InferenceRequest
from gateway.request.request_limits import check_context, check_limits, may_exceed_context
from gateway.request.tool_limits import CheckedTools
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.target import Target
from gateway.telemetry.facts import EngineFacts


class TargetResolver:
    """Finds models and adapters by name; `seeds` are those of the prefix keys."""

    def __init__(self, fleet: Fleet, seeds: ScopeSeeds | None = None) -> None:
        self._fleet = fleet
        self._seeds = seeds or ScopeSeeds()
        self._tool_texts = ToolTexts()
        self._checked_tools = CheckedTools()

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
        check_limits(request.head, model.options.limits, self._checked_tools.check)

    def target(self, request: InferenceRequest, name: str) -> Target:
        """The request, with the model or adapter `name` that is to answer it.

        Raises:
            ModelNotFound: there is no such model.
            ModelUnavailable: it has no replica now.
            UnsupportedRoute: its engines do not serve the request's path.
            CacheNotPrivate: its engines share their caches, and the request's client must not.
            LimitExceeded: it asks for more than the model's entry allows.
            ContextExceeded: its prompt cannot fit the model's context.
        """
        model = self._fleet.model(name)
        self.check_limits(request, model)
        model.check_available()
        # All replicas run the same engine.
        facts = next(iter(model.replicas.values())).metadata.facts
        _check_route(model, facts, request.path)
        if may_exceed_context(request.head):
            limits, max_tokens = model.options.limits, model.max_model_len or 0
            check_context(request.head, request.path, limits, max_tokens)
        scope = request.identity.cache_scope
        if scope and not facts.has_private_caches:
            raise CacheNotPrivate.of(name)
        read_tools, seed = self._tool_texts.read, self._seeds.seed(scope)
        prompt = prompt_of(request.head, name, facts.layout, read_tools, request.path, seed)
        return Target(request, model, name, prompt)


def _check_route(model: ServedModel, facts: EngineFacts, path: str) -> None:
    if path not in facts.routes:
        served = ", ".join(route for route in facts.routes if route in ROUTES)
        raise UnsupportedRoute(
            f"The model `{model.name}` does not serve {path}; it serves {served}."
        )
