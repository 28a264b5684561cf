"""How routers pass the admin API's requests on, and what they say when they cannot."""

from collections.abc import Sequence

import httpx
import pytest

from gateway.assembly import RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.identity.live_directory import ACCOUNTS
from gateway.identity.project import Directory
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import AccountsView
from gateway.routing.fleet import Fleet
from gateway.serving.accounts_client import AccountsClient, AccountsUnavailable
from gateway.serving.admin_call import AdminAnswer, AdminCall
from gateway.serving.live_config import LiveConfig
from tests.unit.gateway.http.test_operators import KEY
from tests.unit.projects import bearer
from tests.unit.surface import error_of

PROJECTS = "/v1/organization/projects"
BEARER = {"authorization": f"Bearer {KEY}"}


class KeptCalls:
    """`AccountsClient` that keeps what it is asked; `is_up` is whether it answers."""

    def __init__(self) -> None:
        self.calls: list[AdminCall] = []
        self.is_up = True

    async def follow(self, known: str) -> AccountsView:
        """Nothing to follow."""
        raise AccountsUnavailable(known)

    async def submit(self, settlements: Sequence[Settlement]) -> None:
        """Nothing to submit."""

    async def administer(self, call: AdminCall) -> AdminAnswer:
        """Keep a call, and answer it."""
        self.calls.append(call)
        if not self.is_up:
            raise AccountsUnavailable("a secret of the other process")
        headers = ((b"content-type", b"application/json"), (b"retry-after", b"7"))
        return AdminAnswer(status=418, body=b'{"a": 1}', headers=headers)


@pytest.fixture
def accounts() -> KeptCalls:
    """Accounts that answers everything."""
    return KeptCalls()


def client(
    accounts: AccountsClient | None, *, has_keys: bool = True, **config: object
) -> httpx.AsyncClient:
    """A client of a router; `has_keys`: it has heard of the database once."""
    live_config = LiveConfig()
    if has_keys:
        live_config.directory.replace(ACCOUNTS, Directory())
    live_config.apply(parse_gateway({"admin_key": KEY, **config}))
    router = build_router(
        Fleet(),
        lambda *_: None,
        live_config=live_config,
        options=RouterOptions(accounts=accounts),
    )
    transport = httpx.ASGITransport(router.app, client=("192.0.2.9", 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_requests_and_answers_pass_unchanged(accounts: KeptCalls) -> None:
    """With the administrator and the address; the credentials stay in the router."""
    async with client(accounts) as asking:
        path = f"{PROJECTS}/p/rate_limits/rl-org%2Flarge?a[]=1&a[]=2"
        response = await asking.post(path, content=b"{}", headers=BEARER)

    assert (response.status_code, response.json()) == (418, {"a": 1})
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/json"
    (call,) = accounts.calls
    assert call.path == f"{PROJECTS}/p/rate_limits/rl-org%2Flarge"
    assert (call.method, call.query, call.body) == ("POST", b"a[]=1&a[]=2", b"{}")
    assert (call.actor, call.address) == ("config", "192.0.2.9")
    assert KEY not in str(call)


@pytest.mark.parametrize("path", [PROJECTS, "/v1/organization/x", "/v1/projects/p/roles"])
async def test_nobody_else_gets_through(accounts: KeptCalls, path: str) -> None:
    """Without the admin key, or with another: 401, and Accounts hears nothing."""
    async with client(accounts) as asking:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = await asking.get(path, headers=headers)
            assert error_of(response) == (401, "invalid_api_key", None)
    assert accounts.calls == []


async def test_a_refused_path_writes_no_lines_into_the_log(
    accounts: KeptCalls, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no key must not be able to make entries up."""
    async with client(accounts) as asking:
        await asking.get(f"{PROJECTS}/%0AERROR%20made%20up", headers=bearer("sk-wrong"))
    assert "wrong admin key" in caplog.text
    assert "\nERROR made up" not in caplog.text


async def test_keys_cannot_be_checked_before_the_database_is_read(accounts: KeptCalls) -> None:
    """A key that is not known may well be right: 503, never 401 and 429; and not ready."""
    wrong, auth = {"authorization": "Bearer sk-of-the-database"}, {"max_failures_per_minute": 1}
    async with client(accounts, has_keys=False, auth=auth) as asking:
        for path in ("/v1/models", "/v1/models", PROJECTS):
            response = await asking.get(path, headers=wrong)
            assert error_of(response)[:2] == (503, "auth_unavailable")
            assert response.headers["retry-after"] == "5"
        assert error_of(await asking.get("/v1/models"))[:2] == (401, "invalid_api_key")
        assert (await asking.get("/readyz")).json()["reasons"] == {
            "Accounts": "projects and keys have not been read from the database yet"
        }
        assert (await asking.get(PROJECTS, headers=BEARER)).status_code == 418


async def test_a_path_whose_beginning_is_encoded_is_unknown(accounts: KeptCalls) -> None:
    """A proxy's rules may have taken it for another one."""
    async with client(accounts) as asking:
        response = await asking.get("/v1/%6frganization/projects", headers=BEARER)
    assert error_of(response)[:2] == (404, "unknown_url")
    assert accounts.calls == []


async def test_bodies_are_bounded(accounts: KeptCalls) -> None:
    """No object of the admin API is large."""
    async with client(accounts) as asking:
        response = await asking.post(PROJECTS, content=b" " * 300_000, headers=BEARER)
    assert error_of(response)[:2] == (413, "body_too_large")
    assert accounts.calls == []


async def test_accounts_that_do_not_answer_are_told(accounts: KeptCalls) -> None:
    """503 with `Retry-After`, and nothing of the reason."""
    accounts.is_up = False
    async with client(accounts) as asking:
        response = await asking.get(PROJECTS, headers=BEARER)
    assert error_of(response)[:2] == (503, "accounts_unavailable")
    assert response.headers["retry-after"] == "5"
    assert "secret" not in response.text


async def test_without_a_database_it_says_what_is_needed() -> None:
    """404 `unsupported`, to administrators only."""
    async with client(None) as asking:
        refused = await asking.get(PROJECTS)
        response = await asking.get(PROJECTS, headers=BEARER)
    assert error_of(refused)[0] == 401
    assert error_of(response)[:2] == (404, "unsupported")
    assert "`accounts`" in response.json()["error"]["message"]


async def test_no_page_may_use_it(accounts: KeptCalls) -> None:
    """Web pages that may use the gateway may not administer it."""
    page = {"origin": "https://chat.example.com"}
    async with client(accounts, cors={"origins": ["*"]}) as asking:
        response = await asking.get(PROJECTS, headers=BEARER | page)
        other = await asking.get("/v1/models", headers=page)
    assert "access-control-allow-origin" not in response.headers
    assert other.headers["access-control-allow-origin"] == "*"
