"""Access of requests that this process makes itself, on behalf of a project."""

from gateway.asgi import Scope
from gateway.errors.access import AuthUnavailable, InvalidKey
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.serving.client_identity import IDENTITY
from gateway.serving.live_config import LiveConfig
from gateway.serving.route_access import check_route, may_use_route


class TrustedRequests:
    """Lets all requests in whose project may use their path; their scope says whose they are.

    Only for a router that no client can reach.
    """

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config

    def admit_known(self, scope: Scope) -> bool:
        """Let a request in; False if `admit` has to say why not."""
        if IDENTITY not in scope:
            return False
        return may_use_route(scope[IDENTITY], scope["path"], self._live_config.config.auth)

    async def admit(self, scope: Scope) -> None:
        """Refuse a request.

        Raises:
            InvalidKey: its scope does not say whose it is.
            RouteNotAllowed: its project may not use its path.
        """
        if IDENTITY not in scope:
            raise InvalidKey("The request does not say whose it is.")
        check_route(scope[IDENTITY], scope["path"], self._live_config.config.auth)


class ProjectIdentities:
    """Identities of projects themselves, without any key of theirs."""

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config

    def of(self, project_id: str) -> ClientIdentity:
        """Identity of a project; of the empty id, that of everybody.

        Raises:
            InvalidKey: there is no such project, or nobody is anonymous any more.
            AuthUnavailable: not all projects are known yet.
        """
        directory = self._live_config.directory
        if (project := directory.projects.get(project_id)) is not None:
            return ClientIdentity(project=project)
        if not project_id and not self._live_config.config.is_authenticated:
            return ANONYMOUS_IDENTITY
        if not directory.is_complete:
            raise AuthUnavailable("The projects of the gateway are not known yet. Try again.", 1.0)
        raise InvalidKey("The project has been archived.")
