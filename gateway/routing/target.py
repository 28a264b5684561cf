"""Target of a request: the model or adapter that is to answer it."""

from urllib.parse import quote

import msgspec

from gateway.kvcache.prefix import NO_PROMPT, Prompt
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import PROMPT_ROUTES
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
    def renamed(self) -> str:
        """Name that answers, if the client used another one; otherwise empty."""
        return "" if self.name == self.request.head.model else self.name

    @property
    def header(self) -> bytes:
        """Name that answers, as the value of a header."""
        return self.name.encode() if self.name.isascii() else quote(self.name).encode()

    @property
    def has_prompt(self) -> bool:
        """Whether the model processes the prompt."""
        return self.request.path in PROMPT_ROUTES

    @property
    def sequences(self) -> int:
        """Sequences that an engine makes of it: its answers, for each of its prompts."""
        return self.request.head.sequences if self.has_prompt else 1

    @property
    def prompts_bytes(self) -> int:
        """Bytes of all its prompts, if they are a list; otherwise 0."""
        return self.request.head.prompts_bytes if self.has_prompt else 0
