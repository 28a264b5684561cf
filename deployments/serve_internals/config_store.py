"""Last valid gateway config, kept where it outlives every router."""

import asyncio
import logging

from ray import serve
from ray.exceptions import RayError

from deployments.serve_internals.fallback import GONE, warn_once

NAMESPACE = b"ray-llm-gateway"

logger = logging.getLogger(__name__)


class ClusterConfigStore:
    """Keeps the config of this process's application in the key-value store of Ray's head node.

    The store lives as long as the cluster. Serve itself keeps only the config that it was given
    last, valid or not. The store has no public interface in Ray 2.60; Serve's own state is in it
    too. Without it, a router that starts with an invalid config has none to fall back to.
    """

    def __init__(self) -> None:
        self._key = f"{serve.get_replica_context().app_name}/user_config".encode()

    async def keep(self, config: bytes) -> None:
        """Replace the kept config."""
        await asyncio.to_thread(self._put, config)

    async def recall(self) -> bytes | None:
        """The config that was kept last, if any."""
        return await asyncio.to_thread(self._get)

    def _put(self, config: bytes) -> None:
        try:
            from ray.experimental import internal_kv

            internal_kv._internal_kv_put(self._key, config, namespace=NAMESPACE)
        except RayError as error:
            logger.warning(
                "gateway config not stored: a router that starts with an invalid config could not"
                " fall back to this one (%s)",
                error,
            )
        except GONE as error:
            _warn(error)

    def _get(self) -> bytes | None:
        try:
            from ray.experimental import internal_kv

            found: bytes | None = internal_kv._internal_kv_get(self._key, namespace=NAMESPACE)
        except RayError as error:
            logger.warning("previous gateway config could not be read: %s", error)
            return None
        except GONE as error:
            _warn(error)
            return None
        return found


def _warn(error: Exception) -> None:
    consequence = "a router that starts with an invalid config has none to fall back to"
    warn_once("Ray's key-value store", consequence, repr(error))
