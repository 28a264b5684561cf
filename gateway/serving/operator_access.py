"""Access control of the routes for operators and administrators."""

import ipaddress
import logging
import secrets
import time
from collections.abc import Callable

from gateway.asgi import Headers, Scope, fields_of
from gateway.authentication.authenticator import check_complete
from gateway.authentication.credentials import offered_key
from gateway.errors.access import InvalidKey
from gateway.errors.request import UnknownRoute
from gateway.header_names import ADMIN_KEY, FORWARDED_FOR, FORWARDED_PREFIX, FORWARDING
from gateway.identity.api_key import key_hash
from gateway.rare_warning import RareWarning
from gateway.serving.live_config import LiveConfig

NAMING_PREFIXES = ("/v1/organization/", "/v1/projects/", "/gateway/requests/")
"""Beginnings of paths that go on with names and ids: those have any character."""
CONFIG = "config"
"""Stands for the key in the gateway config."""
LOCAL = "local"
"""Stands for whoever is on the same machine."""

logger = logging.getLogger(__name__)


class OperatorAccess:
    """Lets operators in that send the admin key of the config in force, or one of the directory's.

    Without any such key the routes exist only if the config opens them on loopback, and then only
    for requests that certainly come from this machine. `is_local`: the gateway can be reached from
    this machine only. `is_forwarded`: the gateway's own HAProxy adds a line of `x-forwarded-for`.
    """

    def __init__(
        self,
        live_config: LiveConfig,
        *,
        is_local: bool = False,
        is_forwarded: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live_config = live_config
        self._is_local = is_local
        self._is_forwarded = is_forwarded
        self._wrong_keys = RareWarning(logger, clock)

    def check(self, scope: Scope) -> str:
        """Let an operator in; returns the id of the key, or `LOCAL` or `CONFIG` where it has none.

        Raises:
            InvalidKey: the key is missing or wrong.
            AuthUnavailable: the keys of the database have not come yet.
            UnknownRoute: there are no such routes for this client, or its path is written so that a
                proxy's rules may have taken it for another one.
        """
        self.check_path(scope)
        if self.has_keys:
            return self._actor(scope)
        check_complete(self._live_config.directory)
        if not self._is_open_to(scope["headers"]):
            raise UnknownRoute.for_url(scope["method"], scope["path"])
        return LOCAL

    def check_path(self, scope: Scope) -> None:
        """Check that a path is written plainly.

        Raises:
            UnknownRoute: a proxy's rules may have taken it for another one.
        """
        if not _is_plain(scope.get("raw_path"), scope["path"]):
            raise UnknownRoute.for_url(scope["method"], scope["path"])

    @property
    def has_keys(self) -> bool:
        """Whether there is any key that opens the routes."""
        return self._live_config.admin_key is not None or self._live_config.directory.has_admin_keys

    def _is_open_to(self, headers: Headers) -> bool:
        if not (self._is_local and self._live_config.config.open_on_loopback):
            return False
        hosts = [value for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        return (
            len(hosts) == 1
            and _is_loopback(hosts[0])
            and all(_is_loopback(origin.partition(b"://")[2]) for origin in origins)
            and not self._came_through_a_proxy(headers)
        )

    def _came_through_a_proxy(self, headers: Headers) -> bool:
        """Whether another proxy than the gateway's own has passed the request on."""
        found = [
            (name, value)
            for name, value in headers
            if name in FORWARDING or name.startswith(FORWARDED_PREFIX)
        ]
        if not self._is_forwarded:
            return bool(found)
        return [name for name, _ in found] != [FORWARDED_FOR] or not _is_loopback(found[0][1])

    def _actor(self, scope: Scope) -> str:
        """Whose admin key a request has."""
        offered = offered_key(scope["headers"])
        if actor := _actor_with(offered, self._live_config):
            return actor
        if offered:
            check_complete(self._live_config.directory)
            self._log_wrong_key(scope)
        raise InvalidKey(f"The routes under {_first_part(scope['path'])} need an admin key.")

    def _log_wrong_key(self, scope: Scope) -> None:
        address = fields_of(scope).get(FORWARDED_FOR) if self._is_forwarded else None
        shown = address.decode("latin-1") if address else (scope.get("client") or ("?",))[0]
        # Of paths with names, only the beginning is known to be plain.
        path = ascii(scope["path"][:100])[1:-1]
        self._wrong_keys.log("wrong admin key for %s from %s", path, shown)


def check_operator(offered: bytes, live_config: LiveConfig) -> None:
    """Check the admin key that an inference request offers.

    Raises:
        InvalidKey: it is the wrong one.
        AuthUnavailable: the keys of the database have not come yet.
    """
    if not _actor_with(offered, live_config):
        check_complete(live_config.directory)
        raise InvalidKey(f"The header `{ADMIN_KEY.decode()}` has no admin key of this gateway.")


def _is_plain(raw: bytes | None, path: str) -> bool:
    """Whether a path is written so that all proxies have taken it for what it is.

    Where names or ids follow, that holds if its beginning is.
    """
    if raw is None:
        return True
    if path.startswith(NAMING_PREFIXES):
        return raw.startswith(tuple(prefix.encode() for prefix in NAMING_PREFIXES))
    return raw.partition(b"?")[0] == path.encode()


def _actor_with(offered: bytes, live_config: LiveConfig) -> str:
    """Whose admin key this is; empty if it is nobody's."""
    admin_key = live_config.admin_key
    if admin_key is not None and secrets.compare_digest(offered, admin_key.encode()):
        return CONFIG
    found = live_config.directory.admin_key(key_hash(offered), time.time())
    return found.id if found else ""


def _first_part(path: str) -> str:
    return "/" + path.split("/", 2)[1]


def _is_loopback(host: bytes) -> bool:
    """Whether `host`, with or without a port, names this machine's loopback for certain."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        name = text[1:].partition("]")[0]
    else:
        name = text if text.count(":") > 1 else text.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
