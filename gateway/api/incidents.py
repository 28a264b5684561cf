"""What a request's failures mean for its replicas, and what is noted of them."""

import time

from gateway.api.selection import Selection
from gateway.errors import GatewayError, Overloaded, UpstreamFailed
from gateway.faults import Action, Fault, Faults
from gateway.routing.fleet import Replica

SHUN_S = 5.0
"""How long others are preferred to a replica that could not be reached, or broke off."""
ANSWERED_5XX = "answered_5xx"
"""The reason where a replica answered, with an error of its own."""
INNOCENT = frozenset({"draining", "closing"})
"""Reasons that say nothing against the replica."""


class Incidents:
    """Those of one request."""

    def __init__(self, selection: Selection, faults: Faults) -> None:
        self._selection = selection
        self._faults = faults

    def blame(self, replica: Replica, error: UpstreamFailed) -> None:
        """A replica has failed the request: others are preferred to it, for a while."""
        if error.reason in INNOCENT:
            return
        if error.reason != ANSWERED_5XX:
            replica.shunned_until_s = time.time() + SHUN_S
        selection = self._selection
        if selection.dispatcher.outliers.fail(replica.id, len(selection.model.replicas)):
            self._note(error.reason, Action.EJECTED, replica, "it failed again and again")

    def mended(self, replica: Replica, error: UpstreamFailed, action: Action) -> None:
        """The client notices nothing of it."""
        self._note(error.reason, action, replica, str(error))

    def told(self, replica: Replica | None, error: GatewayError, *, is_cut: bool) -> None:
        """The client is told, in the middle of its stream if that `is_cut`."""
        if isinstance(error, Overloaded):
            self._note(error.code, Action.SHED, None, str(error))
        elif error.status >= 500:
            reason = error.reason if isinstance(error, UpstreamFailed) else error.code
            self._note(reason, Action.CUT if is_cut else Action.FAILED, replica, str(error))

    def _note(self, reason: str, action: Action, replica: Replica | None, why: str) -> None:
        self._faults.note(
            Fault(self._selection.model.name, reason, action),
            request_id=self._selection.request_id,
            replica=replica.id if replica else "-",
            why=why,
        )
