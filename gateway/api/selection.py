"""From a request to the replicas that may take it; the same for all requests and for dry runs."""

import asyncio
from collections.abc import Callable, Collection

import msgspec

from gateway.api.errand import SESSION_LIMIT
from gateway.api.routes import PROMPT_ROUTES, ROUTES
from gateway.errors import ModelUnavailable, UnsupportedRoute
from gateway.request import RequestHead
from gateway.routing.decision import Decision
from gateway.routing.dispatcher import Dispatcher
from gateway.routing.dispatchers import Dispatchers
from gateway.routing.fleet import Fleet, Model, ModelState
from gateway.routing.prefix import NO_PROMPT, Prompt, prompt_of

LOOK_S = 0.05
"""How often the fleet is looked at for a replica that is yet to come."""


class Selection(msgspec.Struct, frozen=True):
    """A request's model, and what its replicas are chosen by."""

    model: Model
    dispatcher: Dispatcher
    prompt: Prompt
    max_tokens: int | None
    session: bytes
    request_id: str
    sequences: int = 1
    """How many answers an engine is to make."""
    prompts_bytes: int = 0
    """Of all its prompts, where it has several."""

    def choose(self, avoid: Collection[str] = ()) -> Decision:
        """The replica that takes the request, rather not one whose id is in `avoid`.

        Raises:
            ModelUnavailable: there is none now.
        """
        check_available(self.model)
        return self.dispatcher.choose(
            self.prompt,
            max_tokens=self.max_tokens,
            session=self.session,
            request_id=self.request_id,
            avoid=avoid,
        )

    async def successor(self, tried: Collection[str]) -> None:
        """Wait for a replica that is not in `tried`, as long as a request may wait.

        Raises:
            ModelUnavailable: none has come.
        """
        model = self.model
        loop = asyncio.get_running_loop()
        end_s = loop.time() + model.terms.queue.max_wait_s
        while all(replica in tried for replica in model.replicas):
            if loop.time() >= end_s:
                message = f"The model `{model.name}` has lost its engine; another one has to start."
                raise ModelUnavailable(message, model.retry_after_s)
            await asyncio.sleep(LOOK_S)


class Selector:
    """Finds a request's model.

    `wake` is called for a model that is scaled to zero when a request wants it.
    """

    def __init__(
        self, fleet: Fleet, dispatchers: Dispatchers, wake: Callable[[Model], None]
    ) -> None:
        self._fleet = fleet
        self._dispatchers = dispatchers
        self._wake = wake

    def knows(self, name: str) -> bool:
        """Whether there is a model of that name."""
        return self._fleet.has(name)

    def select(
        self,
        path: str,
        head: RequestHead,
        session: bytes,
        request_id: bytes,
        *,
        is_dry_run: bool = False,
    ) -> Selection:
        """What a request to `path` is chosen a replica by; a dry run wakes no model.

        Raises:
            ModelNotFound: there is no such model.
            ModelUnavailable: it has no replica now.
            UnsupportedRoute: its engines do not serve `path`.
        """
        model = self._fleet.model(head.model)
        is_asleep = not model.replicas and model.state is ModelState.SCALED_TO_ZERO
        if is_asleep and not is_dry_run:
            self._wake(model)
        check_available(model)
        _check_route(model, path)
        has_prompt = path in PROMPT_ROUTES
        return Selection(
            model=model,
            dispatcher=self._dispatchers.of(model),
            prompt=prompt_of(head) if has_prompt else NO_PROMPT,
            max_tokens=head.max_tokens,
            session=session[:SESSION_LIMIT],
            request_id=request_id.decode(),
            sequences=head.sequences if has_prompt else 1,
            prompts_bytes=head.prompts_bytes if has_prompt else 0,
        )


def check_available(model: Model) -> None:
    """Make sure that a model has replicas.

    Raises:
        ModelUnavailable: it has none now.
    """
    if not model.replicas:
        raise ModelUnavailable(
            f"The model `{model.name}` is {model.condition}: {model.reason}", model.retry_after_s
        )


def _check_route(model: Model, path: str) -> None:
    # All replicas run the same engine.
    routes = next(iter(model.replicas.values())).metadata.facts.routes
    if path not in routes:
        served = ", ".join(route for route in routes if route in ROUTES)
        raise UnsupportedRoute(
            f"The model `{model.name}` does not serve {path}; it serves {served}."
        )
