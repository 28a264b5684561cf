"""Who may use the operators' routes."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import InvalidKey, UnknownRoute
from gateway.header_names import AUTHORIZATION


@dataclass(slots=True)
class OperatorAccess:
    """Who may use the operators' routes; may be changed while the gateway runs."""

    admin_key: str | None = None
    """The bearer token that opens them."""
    is_local: bool = False
    """Whether the gateway can be reached from this machine only: then no key is needed."""

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Let an operator in.

        Raises:
            InvalidKey: the key is missing or wrong.
            UnknownRoute: there are no such routes here, because no key is set.
        """
        if self.admin_key is None:
            if not self.is_local:
                raise UnknownRoute.for_url(method, path)
            return
        offered = headers.get(AUTHORIZATION.decode(), "").encode()
        if not secrets.compare_digest(offered, b"Bearer " + self.admin_key.encode()):
            raise InvalidKey("The routes under /gateway need the admin key as bearer token.")
