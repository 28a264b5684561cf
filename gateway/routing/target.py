"""Target of a request: the model or adapter that is to answer it."""

from urllib.parse import quote

import msgspec

from gateway.config.route_paths import FORM_ROUTES
from gateway.kvcache.prefix import NO_PROMPT, Prompt
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.client_votes import ADAPTERS
from gateway.routing.fleet import ServedModel


class Target(msgspec.Struct, frozen=True):
    """A request with the model or adapter that is to answer it, and the prompt for that one."""

    request: InferenceRequest
    model: ServedModel
    name: str
    """Name of the model, or of the adapter that answers."""
    prompt: Prompt = NO_PROMPT

    @property
    def adapter(self) -> str:
        """Adapter that answers; empty if the model itself does."""
        return "" if self.name == self.model.name else self.name

    @property
    def voter(self) -> Tenant:
        """Client whose result this is: all requests to one adapter have one voice in its favour."""
        return Tenant(ADAPTERS, self.adapter.encode()) if self.adapter else self.request.tenant

    @property
    def renamed(self) -> str:
        """Name that answers, if the client used another one; otherwise empty.

        A form may have several fields `model`, of which the engine would take another one than the
        gateway: there, it is always named.
        """
        request = self.request
        is_same = self.name == request.head.model and request.path not in FORM_ROUTES
        return "" if is_same else self.name

    @property
    def header(self) -> bytes:
        """Name that answers, as the value of a header."""
        return self.name.encode() if self.name.isascii() else quote(self.name).encode()
