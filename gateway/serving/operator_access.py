"""Access control of the operators' routes."""

import secrets
from collections.abc import Mapping

from gateway.errors import InvalidKey, UnknownRoute
from gateway.serving.live_config import LiveConfig


class OperatorAccess:
    """Lets operators in that send the admin key of the config in force.

    `is_local`: the gateway can be reached from this machine only; then no key is needed where the
    config has none.
    """

    def __init__(self, live_config: LiveConfig, *, is_local: bool = False) -> None:
        self._live_config = live_config
        self._is_local = is_local

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Let an operator in.

        Raises:
            InvalidKey: the key is missing or wrong.
            UnknownRoute: there are no such routes here, because no key is set.
        """
        admin_key = self._live_config.admin_key
        if admin_key is None:
            if not self._is_local:
                raise UnknownRoute.for_url(method, path)
            return
        offered = headers.get("authorization", "").encode()
        if not secrets.compare_digest(offered, b"Bearer " + admin_key.encode()):
            raise InvalidKey("The routes under /gateway need the admin key as bearer token.")
