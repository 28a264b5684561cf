"""What routers hold for an engine."""

import msgspec

DEMAND_PATH = "/engine/demand"
"""Route to which routers PUT the demand that they hold for an engine: a `Demand`, in JSON."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that one router holds for one engine until the engine has room."""

    router: str = ""
    """Id of the router."""
    requests: int = 0
    """Interactive sequences."""
    prefill_tokens: float = 0.0
    """Estimated uncached tokens of their prompts."""
    batch_requests: int = 0
    """Batch sequences."""
    projects: dict[str, int] = {}
    """Interactive requests by the id of their project; without those of no project."""
