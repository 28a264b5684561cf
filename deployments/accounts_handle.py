"""Accounts, as routers reach it: through a handle of Serve's."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from ray.serve.handle import DeploymentHandle

from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.serving.accounts_client import AccountsUnavailable
from gateway.serving.admin_call import AdminAnswer, AdminCall


class AccountsHandle:
    """`AccountsClient` over a handle of the deployment `Accounts`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._views = msgspec.msgpack.Decoder(AccountsView)
        self._answers = msgspec.msgpack.Decoder(AdminAnswer)

    async def follow(self, known: str) -> AccountsView:
        """Wait until there is another version than `known`, or a while; return the newest."""
        return self._views.decode(await self._call("follow", known))

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Hand over what only this router knows; returns once the ledger has it."""
        await self._call("submit", msgspec.msgpack.encode(settlements))

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """Have the admin API answer a request."""
        return self._answers.decode(await self._call("administer", msgspec.msgpack.encode(call)))

    async def _call(self, method: str, argument: object) -> Any:  # noqa: ANN401 - the answer
        response = getattr(self._handle, method).remote(argument)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # or it would go on waiting in Serve
            raise
        except Exception as error:  # noqa: BLE001 - whatever Ray and the other process raise
            lines = str(error).strip().splitlines()
            reason = lines[-1] if lines else type(error).__name__
            raise AccountsUnavailable(reason) from None
