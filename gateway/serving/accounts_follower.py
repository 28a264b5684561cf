"""Follows Accounts: projects and keys, spend, prices, and how far the ledger is."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from gateway.ledger.view import AccountsView
from gateway.serving.accounts_client import AccountsClient, AccountsUnavailable

MIN_DELAY_S = 0.2
MAX_DELAY_S = 2.0
FOLLOW_TIMEOUT_S = 30.0
"""Longer than Accounts lets a question wait."""
CHANGES_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class AccountsFollower:
    """Newest view of Accounts, from `start` to `close`.

    Listeners are called with every new view. While Accounts is down, the last view stays in force;
    so it does if Accounts comes up with another database, which nobody can have meant: with an
    empty one on another node, all keys would stop working.
    """

    def __init__(self, accounts: AccountsClient) -> None:
        self._accounts = accounts
        self._listeners: list[Callable[[AccountsView], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_lost = False
        self._foreign = 0
        """Id of another database that is ignored."""
        self._is_new = asyncio.Condition()
        self.view: AccountsView | None = None
        """The newest view; None until Accounts has answered."""

    def add_listener(self, listener: Callable[[AccountsView], None]) -> None:
        """Call `listener` with every new view; its `directory` is None if that is unchanged."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._run(), name="accounts-follower")

    async def wait_until_known(self) -> None:
        """Wait for the first view."""
        async with self._is_new:
            await self._is_new.wait_for(lambda: self.view is not None)

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def wait_for(self, changes: int) -> None:
        """Wait until this router knows so many changes of projects and keys, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHANGES_TIMEOUT_S), self._is_new:
                await self._is_new.wait_for(
                    lambda: self.view is not None and self.view.changes >= changes
                )

    async def _run(self) -> None:
        delay_s = MIN_DELAY_S
        while True:
            try:
                async with asyncio.timeout(FOLLOW_TIMEOUT_S):
                    view = await self._accounts.follow(self.view.version if self.view else "")
                if self._is_foreign(view):
                    await asyncio.sleep(MAX_DELAY_S)
                    continue
                await self._adopt(view)
                delay_s = MIN_DELAY_S
            except (AccountsUnavailable, TimeoutError) as error:
                if not self._is_lost:
                    logger.warning(
                        "Accounts does not answer; requests go on with what is known: %s", error
                    )
                self._is_lost = True
                await asyncio.sleep(delay_s)
                delay_s = min(MAX_DELAY_S, 2 * delay_s)
            except Exception:
                # A defect of the gateway: the next view may be different.
                logger.exception("the view of Accounts cannot be used")
                await asyncio.sleep(MAX_DELAY_S)

    def _is_foreign(self, view: AccountsView) -> bool:
        """Whether a view is of another database than the one before."""
        known = self.view.database if self.view is not None else 0
        if not known or view.database in {0, known}:
            return False
        if self._foreign != view.database:
            self._foreign = view.database
            logger.error(
                "Accounts has opened another database than before, and is ignored: has it started"
                " on another node? If it is meant, restart the routers."
            )
        return True

    async def _adopt(self, view: AccountsView) -> None:
        if self._is_lost:
            self._is_lost = False
            logger.info("Accounts answers again")
        if self.view is not None and view.version == self.view.version:
            return
        self.view = view
        for listener in self._listeners:
            listener(view)
        async with self._is_new:
            self._is_new.notify_all()
