"""Feed of running replicas from Serve's request routers to the router of the same process.

Serve makes request routers itself and offers no way to hand them an object, and it pickles their
module by value: only the state of a third module, this one, is shared by both.
"""

import threading
from collections.abc import Callable, Sequence

from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import RunningReplica

Listener = Callable[[Sequence[RunningReplica]], None]


class ReplicaFeed:
    """Latest running replicas of each application's engine, and their listeners.

    Serve may run its request routers on a thread of their own, and make them before anyone listens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, list[RunningReplica]] = {}
        self._listeners: dict[str, Listener] = {}

    def publish(self, app: str, replicas: list[RunningReplica]) -> None:
        """Pass on all running replicas of an application's engine."""
        with self._lock:
            self._latest[app] = replicas
            if listener := self._listeners.get(app):
                listener(replicas)

    def subscribe(self, app: str, listener: Listener) -> None:
        """Call `listener` with the latest replicas, if any are known, and with every change."""
        with self._lock:
            self._listeners[app] = listener
            if app in self._latest:
                listener(self._latest[app])

    def unsubscribe(self, app: str) -> None:
        """Forget an application that is gone."""
        with self._lock:
            self._listeners.pop(app, None)
            self._latest.pop(app, None)


feed = ReplicaFeed()
"""The feed of this process."""


def start_request_router(engine: DeploymentHandle) -> None:
    """Have Serve make the request router that publishes a deployment's replicas.

    Serve makes it with the first use of a handle, of which `options` is one that calls nothing.
    """
    engine.options(method_name="ping")
