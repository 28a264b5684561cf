"""What may be changed while the gateway runs."""

from dataclasses import dataclass, field

from gateway.api.body import Limits
from gateway.api.operators import Access


@dataclass(frozen=True, slots=True)
class Controls:
    """Each part is changed in place; requests under way keep what they have read of it."""

    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
