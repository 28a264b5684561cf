"""From a request to the replica that takes it; the same for requests that are sent and dry runs."""

from collections.abc import Callable

import msgspec

from gateway.api.routes import PROMPT_ROUTES, ROUTES
from gateway.errors import ModelUnavailable, UnsupportedRoute
from gateway.request import RequestHead
from gateway.routing.decision import Decision
from gateway.routing.dispatcher import Dispatcher
from gateway.routing.dispatchers import Dispatchers
from gateway.routing.fleet import Fleet, Model, ModelState
from gateway.routing.prefix import NO_PROMPT, Prompt, prompt_of

SESSION_LIMIT = 256
"""Bytes of an `x-session-id` that count."""


class Selection(msgspec.Struct, frozen=True):
    """Where a request goes."""

    dispatcher: Dispatcher
    prompt: Prompt
    decision: Decision


class Selector:
    """Finds a request's model and has a replica chosen.

    `wake` is called for a model that is scaled to zero when a request wants it.
    """

    def __init__(
        self, fleet: Fleet, dispatchers: Dispatchers, wake: Callable[[Model], None]
    ) -> None:
        self._fleet = fleet
        self._dispatchers = dispatchers
        self._wake = wake

    def select(
        self,
        path: str,
        head: RequestHead,
        session: bytes,
        request_id: bytes,
        *,
        is_dry_run: bool = False,
    ) -> Selection:
        """Choose a replica for a request to `path`; a dry run wakes no model.

        Raises:
            ModelNotFound: there is no such model.
            ModelUnavailable: it has no replica now.
            UnsupportedRoute: its engines do not serve `path`.
        """
        model = self._fleet.model(head.model)
        if not model.replicas:
            if model.state is ModelState.SCALED_TO_ZERO and not is_dry_run:
                self._wake(model)
            raise ModelUnavailable(
                f"The model `{model.name}` is {model.condition}: {model.reason}",
                model.retry_after_s,
            )
        dispatcher = self._dispatchers.of(model)
        prompt = prompt_of(head) if path in PROMPT_ROUTES else NO_PROMPT
        decision = dispatcher.choose(
            prompt,
            max_tokens=head.max_tokens,
            session=session[:SESSION_LIMIT],
            request_id=request_id.decode(),
        )
        _check_route(model, decision, path)
        return Selection(dispatcher, prompt, decision)


def _check_route(model: Model, decision: Decision, path: str) -> None:
    routes = decision.replica.metadata.facts.routes
    if path not in routes:
        served = ", ".join(route for route in routes if route in ROUTES)
        raise UnsupportedRoute(
            f"The model `{model.name}` does not serve {path}; it serves {served}."
        )
