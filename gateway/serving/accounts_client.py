"""What a router asks of Accounts, the process that keeps projects, keys and usage."""

from collections.abc import Sequence
from typing import Protocol

from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.serving.admin_call import AdminAnswer, AdminCall


class AccountsUnavailable(Exception):
    """Accounts does not answer; requests go on with what the router knows."""


class AccountsClient(Protocol):
    """Accounts, as routers use it; raises `AccountsUnavailable` if it does not answer."""

    async def follow(self, known: str) -> AccountsView:
        """Wait until there is another version than `known`, or a while; return the newest."""

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Hand over what only this router knows of requests; returns once the ledger has it."""

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """Have the admin API answer a request."""
