"""Memory of starts that failed for good, so that Serve's next tries fail at once.

Serve (Ray 2.60) tries a constructor again however it failed: three times for a new deployment, and
for ever, without a pause, once one replica has run. For an entry that is wrong each try would load
vLLM anew. So a replica that fails for a reason that lies in the entry or in its node keeps the
reason in Ray's key-value store. The next ones on that node raise it again, after a growing pause,
until the application is deployed again or some minutes have passed. The store has no public
interface; without it every try is a real one.
"""

import asyncio
import logging
import time

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError

from deployments.serve_internals.config_store import NAMESPACE
from deployments.serve_internals.fallback import GONE, warn_once
from deployments.serve_internals.status import serve_status

RETRY_AFTER_S = 300.0
"""Time after which a start is tried for real again: what was wrong may have been mended."""
MAX_PAUSE_S = 60.0

logger = logging.getLogger(__name__)


class StartFailure(msgspec.Struct, frozen=True):
    """A start that failed, and how often it has been reported."""

    reason: str
    failed_s: float
    """When it was tried for real, in Unix time."""
    count: int = 1

    def pause_s(self, now_s: float) -> float | None:
        """Seconds to wait before the failure is repeated; None if the start is to be tried."""
        if now_s - self.failed_s > RETRY_AFTER_S:
            return None
        return float(min(2**self.count, MAX_PAUSE_S))


class StartFailures:
    """Failed starts of this replica's deployment on this node, since it was deployed last."""

    def __init__(self) -> None:
        context = serve.get_replica_context()
        self._app = context.app_name
        self._version = f"{context.deployment}/{context.code_version}"
        self._node = ray.get_runtime_context().get_node_id()
        self._key = b""

    async def repeated(self) -> str | None:
        """The reason of an earlier failure that would be the same now, after a pause."""
        found = await asyncio.to_thread(self._recall)
        pause_s = found.pause_s(time.time()) if found else None
        if found is None or pause_s is None:
            return None
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(self._put, msgspec.structs.replace(found, count=found.count + 1))
        return found.reason

    async def keep(self, reason: str) -> None:
        """Keep the reason of a failure for the next replicas."""
        await asyncio.to_thread(self._put, StartFailure(reason, time.time()))

    def _recall(self) -> StartFailure | None:
        try:
            from ray.experimental import internal_kv

            content = internal_kv._internal_kv_get(self._find_key(), namespace=NAMESPACE)
            return msgspec.json.decode(content, type=StartFailure) if content else None
        except (RayError, msgspec.MsgspecError) as error:
            logger.warning("earlier failures of this engine's start are unknown: %s", error)
        except GONE as error:
            _warn(error)
        return None

    def _put(self, failure: StartFailure) -> None:
        try:
            from ray.experimental import internal_kv

            content = msgspec.json.encode(failure)
            internal_kv._internal_kv_put(self._find_key(), content, namespace=NAMESPACE)
        except RayError as error:
            logger.warning("the failed start is not kept, and will be repeated: %s", error)
        except GONE as error:
            _warn(error)

    def _find_key(self) -> bytes:
        """Key of this deployment: another one once the application has been deployed again."""
        if not self._key:
            overview = serve_status().applications.get(self._app)
            deployed_s = overview.last_deployed_time_s if overview else 0
            parts = ("start", self._app, self._version, self._node, f"{deployed_s:.3f}")
            self._key = "/".join(map(str, parts)).encode()
        return self._key


def _warn(error: Exception) -> None:
    warn_once("Ray's key-value store", "each failed start is repeated in full", repr(error))
