"""Where Serve's request routers meet the router whose process they run in.

Serve makes request routers itself and offers no way to hand them an object, and it pickles their
module by value: only the state of a third module, this one, is the same for both.
"""

import threading
from collections.abc import Callable, Sequence

from ray.serve.request_router import RunningReplica

Listener = Callable[[Sequence[RunningReplica]], None]


class ReplicaBroadcasts:
    """Where Serve's request routers leave what they hear, and the process's router picks it up.

    Serve may run its request routers on a thread of their own, and make them before anyone listens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, list[RunningReplica]] = {}
        self._listeners: dict[str, Listener] = {}

    def publish(self, app: str, replicas: list[RunningReplica]) -> None:
        """All running replicas of an application's engine."""
        with self._lock:
            self._latest[app] = replicas
            if listener := self._listeners.get(app):
                listener(replicas)

    def subscribe(self, app: str, listener: Listener) -> None:
        """Have `listener` called with what is known now, if anything, and with every change."""
        with self._lock:
            self._listeners[app] = listener
            if app in self._latest:
                listener(self._latest[app])

    def unsubscribe(self, app: str) -> None:
        """Forget an application that is gone."""
        with self._lock:
            self._listeners.pop(app, None)
            self._latest.pop(app, None)


replicas = ReplicaBroadcasts()
