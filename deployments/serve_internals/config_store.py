"""The last sound gateway config, kept where no router's end takes it away."""

import asyncio
import logging

from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv

NAMESPACE = b"ray-llm-gateway"

logger = logging.getLogger(__name__)


class LastConfig:
    """That of this process's application.

    It is kept in the key-value store of Ray's head node, which lives as long as the cluster. Serve
    itself keeps only the config it was given last, right or wrong. The store has no public
    interface in Ray 2.60; Serve's own state is in it too.
    """

    def __init__(self) -> None:
        self._key = f"{serve.get_replica_context().app_name}/user_config".encode()

    async def keep(self, config: bytes) -> None:
        """Remember this one instead of any earlier one."""
        await asyncio.to_thread(self._put, config)

    async def recall(self) -> bytes | None:
        """The one that was kept last, if any."""
        return await asyncio.to_thread(self._get)

    def _put(self, config: bytes) -> None:
        try:
            internal_kv._internal_kv_put(self._key, config, namespace=NAMESPACE)  # noqa: SLF001 - see above
        except RayError as error:
            logger.warning("a router that starts now could not recall this config: %s", error)

    def _get(self) -> bytes | None:
        try:
            found: bytes | None = internal_kv._internal_kv_get(  # noqa: SLF001 - see above
                self._key, namespace=NAMESPACE
            )
        except RayError as error:
            logger.warning("the config before cannot be recalled: %s", error)
            return None
        return found
