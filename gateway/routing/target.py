"""From a request to the replicas that may take it; the same for all requests and for dry runs."""

from collections.abc import Collection
from urllib.parse import quote

import msgspec

from gateway.errors import ModelUnavailable, UnsupportedRoute
from gateway.kvcache.prefix import NO_PROMPT, Prompt, prompt_of
from gateway.request.head import RequestHead
from gateway.request.inference_request import SESSION_LIMIT, InferenceRequest
from gateway.request.routes import PROMPT_ROUTES, ROUTES
from gateway.routing.decision import Decision
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.routing.schedulers import Schedulers


class Target(msgspec.Struct, frozen=True):
    """A request's model, and what its replicas are chosen by."""

    model: ServedModel
    scheduler: Scheduler
    prompt: Prompt
    max_tokens: int | None
    session: bytes
    request_id: str
    name: str
    """What answers: the model, or one of its adapters."""
    called: str
    """What the client calls it."""
    sequences: int = 1
    """How many answers an engine is to make."""
    prompts_bytes: int = 0
    """Of all its prompts, where it has several."""

    @property
    def adapter(self) -> str:
        """The adapter that answers; empty where the model itself does."""
        return "" if self.name == self.model.name else self.name

    @property
    def renamed(self) -> str:
        """What answers, where the client calls it something else; otherwise empty."""
        return "" if self.name == self.called else self.name

    @property
    def header(self) -> bytes:
        """What answers, as the value of a header."""
        return self.name.encode() if self.name.isascii() else quote(self.name).encode()

    def choose(self, avoid: Collection[str] = ()) -> Decision:
        """The replica that takes the request, rather not one whose id is in `avoid`.

        Raises:
            ModelUnavailable: there is none now.
        """
        check_available(self.model)
        return self.scheduler.choose(
            self.prompt,
            max_tokens=self.max_tokens,
            session=self.session,
            request_id=self.request_id,
            avoid=avoid,
            adapter=self.adapter,
        )


class TargetResolver:
    """Finds a request's model."""

    def __init__(self, fleet: Fleet, schedulers: Schedulers) -> None:
        self._fleet = fleet
        self._schedulers = schedulers

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

    def select(self, request: InferenceRequest, head: RequestHead, name: str) -> Target:
        """What a replica is chosen by, where the model or adapter `name` is to answer.

        Raises:
            ModelNotFound: there is no such model.
            ModelUnavailable: it has no replica now.
            UnsupportedRoute: its engines do not serve the errand's path.
        """
        model = self._fleet.model(name)
        check_available(model)
        _check_route(model, request.path)
        has_prompt = request.path in PROMPT_ROUTES
        return Target(
            model=model,
            scheduler=self._schedulers.of(model),
            prompt=prompt_of(head, name) if has_prompt else NO_PROMPT,
            max_tokens=head.max_tokens,
            session=request.session[:SESSION_LIMIT],
            request_id=request.request_id.decode(),
            name=name,
            called=head.model,
            sequences=head.sequences if has_prompt else 1,
            prompts_bytes=head.prompts_bytes if has_prompt else 0,
        )


def check_available(model: ServedModel) -> None:
    """Make sure that a model has replicas.

    Raises:
        ModelUnavailable: it has none now.
    """
    if not model.replicas:
        raise ModelUnavailable(
            f"The model `{model.name}` is {model.condition}: {model.reason}", model.start_s
        )


def _check_route(model: ServedModel, path: str) -> None:
    # All replicas run the same engine.
    routes = next(iter(model.replicas.values())).metadata.facts.routes
    if path not in routes:
        served = ", ".join(route for route in routes if route in ROUTES)
        raise UnsupportedRoute(
            f"The model `{model.name}` does not serve {path}; it serves {served}."
        )
