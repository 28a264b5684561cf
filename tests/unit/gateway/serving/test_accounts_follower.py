"""Routers follow Accounts, and go on with what they know while it is down."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.serving.accounts_client import AccountsUnavailable
from gateway.serving.accounts_follower import AccountsFollower
from gateway.serving.admin_call import AdminAnswer, AdminCall
from tests.unit.conftest import PATIENCE_S


class ScriptedAccounts:
    """Accounts that answers by a script, and then no more."""

    def __init__(self, *answers: AccountsView | Exception) -> None:
        self.known: list[str] = []
        self._answers = list(answers)

    async def follow(self, known: str) -> AccountsView:
        """Answer the next question."""
        self.known.append(known)
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Take nothing."""

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """No admin API."""
        raise AccountsUnavailable(call.path)


def view(version: str) -> AccountsView:
    """A view of that version."""
    return AccountsView(version=version, as_of_s=1.0)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for something."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_new_view_reaches_the_listeners_once() -> None:
    """The next question names the version that is known."""
    accounts = ScriptedAccounts(view("a"), view("a"), view("b"))
    follower, seen = AccountsFollower(accounts), []
    follower.add_listener(lambda each: seen.append(each.version))
    follower.start()
    await until(lambda: len(accounts.known) >= 4)
    await follower.close()
    assert seen == ["a", "b"]
    assert accounts.known == ["", "a", "a", "b"]


async def test_the_last_view_stays_in_force_while_accounts_is_down() -> None:
    """It is asked again soon, and the next view replaces it."""
    accounts = ScriptedAccounts(view("a"), AccountsUnavailable("killed"), view("b"))
    follower = AccountsFollower(accounts)
    follower.start()
    await until(lambda: len(accounts.known) >= 3)
    assert follower.view in (view("a"), view("b"))
    await until(lambda: follower.view == view("b"))
    await follower.close()


async def test_another_database_is_ignored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accounts has come up on a node without the file: no key may stop working for that."""
    monkeypatch.setattr("gateway.serving.accounts_follower.MAX_DELAY_S", 0.01)
    mine, empty = (
        AccountsView(version=v, as_of_s=1.0, database=n) for v, n in (("a", 7), ("b", 8))
    )
    accounts = ScriptedAccounts(mine, empty, empty)
    follower = AccountsFollower(accounts)
    follower.start()
    await until(lambda: len(accounts.known) >= 4)
    assert follower.view == mine
    assert caplog.text.count("another database") == 1
    await follower.close()


async def test_a_wait_for_changes_ends_with_the_view_that_has_them() -> None:
    """A router that has passed a change on knows it before its administrator does."""
    accounts = ScriptedAccounts(view("a"), AccountsView(version="b", as_of_s=1.0, changes=7))
    follower = AccountsFollower(accounts)
    waiting = asyncio.create_task(follower.wait_for(7))
    await asyncio.sleep(0)
    assert not waiting.done()
    follower.start()
    await waiting
    assert follower.view is not None
    assert follower.view.changes == 7
    await follower.close()
