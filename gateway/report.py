"""What a router reports of itself to whoever runs the gateway: how everything stands."""

import msgspec


class ModelReport(msgspec.Struct, frozen=True, array_like=True):
    """How a model stands, as `/v1/models` shows it."""

    state: str
    reason: str
    replicas: int

    @property
    def condition(self) -> str:
        """The state, with its reason if there is one."""
        return f"{self.state}: {self.reason}" if self.reason else self.state


class RouterReport(msgspec.Struct, frozen=True):
    """How a router, its models and its config stand."""

    models: dict[str, ModelReport]
    """By name, without adapters, aliases and splits."""
    faults: list[tuple[str, str, str, int]]
    """Model, reason, action and count of each kind of fault, as `/gateway/faults` shows them."""
    rejected: tuple[str, ...] = ()
    """Problems of the last config that was rejected, as `/gateway/config` shows them."""
    running: int = 0
    """Requests that are being answered."""
