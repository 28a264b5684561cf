"""What a client has asked `/v1/responses` for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.engines.vllm.api.responses_fields import ENCRYPTED_REASONING


@dataclass(frozen=True, slots=True)
class AskedResponse:
    """What a client asked for, as far as its answer repeats it or depends on it."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """The request's fields that are not null."""
    tools: Sequence[Mapping[str, Any]] = ()
    """Tools that the model may call, as the client defined them."""
    left_out: Sequence[str] = ()
    """Types of the hosted tools that it may not."""

    @property
    def includes_tokens(self) -> bool:
        """Whether reasoning comes with a token that stands for it."""
        return ENCRYPTED_REASONING in self.fields.get("include", ())

    @property
    def is_padded(self) -> bool:
        """Whether the events of a stream are to hide the lengths of its deltas."""
        return bool(self.fields.get("stream_options", {}).get("include_obfuscation"))
