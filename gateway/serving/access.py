"""Access control of all routes: who may enter, decided before anything of a body is read.

A route is closed unless it is listed here: a new one needs a key without anybody having to think of
it. Without authentication, only the routes for operators are closed.
"""

import time
from collections.abc import Callable

from gateway.asgi import Scope, fields_of
from gateway.authentication.authenticator import Authenticator
from gateway.authentication.credentials import USUAL, offered_key
from gateway.authentication.failure_throttle import FailureThrottle
from gateway.config.auth import Auth
from gateway.config.route_paths import ROUTES
from gateway.errors.access import InvalidKey, TooManyFailures
from gateway.header_names import ADMIN_KEY, API_KEY, AUTHORIZATION
from gateway.identity.api_key import key_hash
from gateway.metrics import AUTH_FAILURES, NullRecorder, Recorder
from gateway.serving.client_identity import IDENTITY, address_of
from gateway.serving.live_config import LiveConfig
from gateway.serving.operator_access import OperatorAccess, check_operator
from gateway.serving.route_access import check_route, may_use_route

OPEN_PATHS = frozenset({"/health", "/healthz", "/readyz", "/ping", "/version"})
"""Routes for probes, which need no key."""
ADMIN_PREFIXES = ("/gateway", "/v1/organization", "/v1/projects")
"""Beginnings of the routes that need an admin key."""
DEFAULT_FAILURES = Auth().max_failures_per_minute
REFUSED = "refused"
THROTTLED = "throttled"
OPERATOR = "gateway.operator"
"""Entry of the scope of an inference request that has an admin key beside its client's key."""
ADMIN = "gateway.admin"
"""Entry of a request's ASGI scope: the id of the admin key that it came with."""


class AccessControl:
    """Lets requests in, or raises the error for their clients.

    `is_forwarded`: a proxy of the gateway's own names the client in `x-forwarded-for`.
    """

    def __init__(
        self,
        live_config: LiveConfig,
        authenticator: Authenticator,
        operators: OperatorAccess,
        recorder: Recorder | None = None,
        *,
        is_forwarded: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live_config = live_config
        self._authenticator = authenticator
        self._operators = operators
        self._recorder = recorder or NullRecorder()
        self._is_forwarded = is_forwarded
        self._failures = FailureThrottle(clock)

    def admit_known(self, scope: Scope) -> bool:
        """Let an inference request in as `admit` would, if nothing has to be awaited for it; O(1).

        Only where its key is a current one of the directory, written as usual. Whatever else there
        is to say of a request, `admit` says it.
        """
        path, fields = scope["path"], fields_of(scope)
        if path not in ROUTES or ADMIN_KEY in fields:
            return False
        auth = self._live_config.config.auth
        if auth is None or not auth.is_required:
            return True
        offered = fields.get(AUTHORIZATION, b"")
        is_usual = offered.startswith(USUAL) and API_KEY not in fields
        if not is_usual or len(fields) != len(scope["headers"]):  # there may be several keys
            return False
        identity = self._authenticator.known(key_hash(offered[len(USUAL) :]))
        if identity is None:
            return False
        if not may_use_route(identity, path, auth):
            return False
        scope[IDENTITY] = identity
        return True

    async def admit(self, scope: Scope) -> None:
        """Let a request in, and note in its scope who has sent it.

        Raises:
            InvalidKey: its key is missing or wrong, or has a wrong admin key beside it.
            TooManyFailures: so is it, as with many others from its address.
            RouteNotAllowed: its project may not use its path.
            UnknownRoute: there are no routes for operators.
        """
        path = scope["path"]
        if path.startswith(ADMIN_PREFIXES) and _is_below(path, ADMIN_PREFIXES):
            await self._admit_operator(scope)
            return
        if self._live_config.config.is_authenticated:
            await self._admit_client(scope, path)
        if path in ROUTES and (offered := _admin_key(scope)) is not None:
            try:
                check_operator(offered, self._live_config)
            except InvalidKey as error:
                raise self._failure(scope, error) from None
            scope[OPERATOR] = True

    async def _admit_client(self, scope: Scope, path: str) -> None:
        if path in OPEN_PATHS:
            return
        try:
            identity = await self._authenticator.identify(offered_key(scope["headers"]))
        except InvalidKey as error:
            raise self._failure(scope, error) from None
        if path in ROUTES:
            check_route(identity, path, self._live_config.config.auth)
        scope[IDENTITY] = identity

    async def _admit_operator(self, scope: Scope) -> None:
        try:
            scope[ADMIN] = await self._operator(scope)
        except InvalidKey as error:
            raise self._failure(scope, error) from None

    async def _operator(self, scope: Scope) -> str:
        """Who has sent a request for operators."""
        auth = self._live_config.config.auth
        if auth is not None and auth.has_admins and (key := offered_key(scope["headers"])):
            self._operators.check_path(scope)
            if (admin := await self._authenticator.admin(key)) is not None:
                return admin
        return self._operators.check(scope)

    def _failure(self, scope: Scope, error: InvalidKey) -> InvalidKey | TooManyFailures:
        """The error for a client that has not proved who it is."""
        config = self._live_config
        address = address_of(
            fields_of(scope),
            scope,
            is_forwarded=self._is_forwarded,
            proxies=config.trusted_proxies,
        )
        auth = config.config.auth
        limit = DEFAULT_FAILURES if auth is None else auth.max_failures_per_minute
        wait_s = self._failures.record_failure(address, limit)
        self._recorder.count(AUTH_FAILURES, (THROTTLED if wait_s else REFUSED,))
        if not wait_s:
            return error
        return TooManyFailures(
            "Too many requests with a missing or wrong API key have come from your address.", wait_s
        )


def _admin_key(scope: Scope) -> bytes | None:
    """The admin key beside a client's own key, where there is one."""
    return next((value for name, value in scope["headers"] if name == ADMIN_KEY), None)


def _is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)
