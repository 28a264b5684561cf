"""State, as routers find it: through a handle of Serve's."""

import asyncio

import msgspec
from ray.serve.handle import DeploymentHandle

from gateway.serving.state_client import StateUnavailable
from gateway.serving.state_location import StateLocation


class StateHandle:
    """`StateLocator` over a handle of the deployment `State`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._locations = msgspec.msgpack.Decoder(StateLocation)

    async def locate(self) -> StateLocation:
        """Where State's server is now.

        Raises:
            StateUnavailable: it does not run.
        """
        response = self._handle.locate.remote()
        try:
            return self._locations.decode(await response)
        except asyncio.CancelledError:
            response.cancel()  # or it would go on waiting in Serve
            raise
        except Exception as error:  # noqa: BLE001 - whatever Ray and the other process raise
            lines = str(error).strip().splitlines()
            raise StateUnavailable(lines[-1] if lines else type(error).__name__) from None
