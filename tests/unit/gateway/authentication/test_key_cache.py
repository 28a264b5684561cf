"""Keys of identity providers: fetched without blocking, kept while the provider is down."""

import asyncio
from pathlib import Path

import pytest

from gateway.authentication.key_cache import MIN_INTERVAL_S, REFRESH_S, KeyCache
from gateway.authentication.key_fetch import MAX_BYTES, KeysUnreachable, fetch_keys
from gateway.authentication.key_set import KeySet
from gateway.config.jwt_issuer import JwtIssuer
from gateway.errors.access import AuthUnavailable
from tests.unit.conftest import Clock, StartEngine, answer
from tests.unit.surface import script
from tests.unit.tokens import key_set, signing_key

STALE_S = 1000.0


class Keys:
    """A provider whose keys a test changes or takes away."""

    def __init__(self, clock: Clock) -> None:
        self.keys: KeySet | None = KeySet.parse(key_set(signing_key("RS256")))
        self.fetches = 0
        self.is_held = asyncio.Event()
        self.is_held.set()
        self.cache = KeyCache("idp", self._fetch, clock, max_stale_s=STALE_S)

    async def _fetch(self) -> KeySet:
        self.fetches += 1
        await self.is_held.wait()
        if self.keys is None:
            raise KeysUnreachable("it is down")
        return self.keys

    async def has(self, kid: str = "k") -> bool:
        """Whether there is a key of that name."""
        return await self.cache.find(kid, "RS256") is not None


@pytest.fixture
def keys(clock: Clock) -> Keys:
    """A provider with one key."""
    return Keys(clock)


async def test_keys_are_fetched_once_for_many_requests(keys: Keys) -> None:
    """The first ones wait for them together."""
    keys.is_held.clear()
    waiting = [asyncio.create_task(keys.has()) for _ in range(20)]
    await asyncio.sleep(0)
    keys.is_held.set()
    assert all(await asyncio.gather(*waiting))
    assert await keys.has()
    assert keys.fetches == 1


async def test_requests_that_wait_for_keys_are_answered_when_the_config_changes(keys: Keys) -> None:
    """They are not cancelled with the fetch, which would close their connections."""
    keys.is_held.clear()
    waiting = asyncio.create_task(keys.has())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await keys.cache.close()
    with pytest.raises(AuthUnavailable):
        await waiting


async def test_old_keys_are_used_while_new_ones_are_fetched(keys: Keys, clock: Clock) -> None:
    """Nobody waits for a key that is known."""
    assert await keys.has()
    clock.now_s += REFRESH_S
    keys.is_held.clear()
    assert await keys.has()
    await asyncio.sleep(0)
    assert await keys.has()
    assert keys.fetches == 2
    keys.is_held.set()
    await keys.cache.close()


async def test_old_keys_are_used_while_the_provider_is_down(
    keys: Keys, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """For a bounded time, and then tokens are not refused but cannot be checked; one log line."""
    assert await keys.has()
    good, keys.keys = keys.keys, None
    for _ in range(8):
        clock.now_s += STALE_S / 10
        assert await keys.has()
        await asyncio.sleep(0)
    assert keys.fetches > 2
    clock.now_s += REFRESH_S + STALE_S
    with pytest.raises(AuthUnavailable):
        await keys.has()
    assert [record.message for record in caplog.records] == [
        "the keys of idp cannot be fetched: it is down"
    ]
    keys.keys = good
    clock.now_s += MIN_INTERVAL_S
    assert await keys.has()


async def test_a_provider_that_is_down_from_the_start_is_asked_again(
    keys: Keys, clock: Clock
) -> None:
    """But not for every request."""
    good, keys.keys = keys.keys, None
    for _ in range(5):
        with pytest.raises(AuthUnavailable):
            await keys.has()
    assert keys.fetches == 1
    keys.keys = good
    clock.now_s += MIN_INTERVAL_S
    assert await keys.has()


async def test_an_unknown_key_is_looked_for_but_not_too_often(keys: Keys, clock: Clock) -> None:
    """A new key works at once; made-up ones cost the provider one request in a while."""
    assert await keys.has()
    clock.now_s += MIN_INTERVAL_S
    for i in range(10):
        assert not await keys.has(f"made-up-{i}")
    assert keys.fetches == 2
    keys.keys = KeySet.parse(key_set(signing_key("RS256"), signing_key("RS256", "new")))
    clock.now_s += MIN_INTERVAL_S
    assert await keys.has("new")
    assert keys.fetches == 3


def issuer(jwks: str, **fields: object) -> JwtIssuer:
    """A provider with its keys there."""
    content = {
        "name": "idp",
        "issuer": "https://idp",
        "audience": ["a"],
        "algorithms": ["RS256"],
        "default_project": "p",
        "jwks": jwks,
        **fields,
    }
    return JwtIssuer.model_validate(content)


async def test_keys_come_from_a_url(start_engine: StartEngine, tmp_path: Path) -> None:
    """With the bearer token of a file, which may change, and over this machine's HTTP only."""
    server = await start_engine(script(answer(key_set(signing_key("ES256")))))
    host, port = server.address
    token = tmp_path / "token"
    for secret in ("first", "second"):
        token.write_text(secret + "\n")
        mine = issuer(f"http://{host}:{port}/keys", jwks_token_file=str(token))
        assert (await fetch_keys(mine)).find("k", "ES256")
        assert f"Authorization: Bearer {secret}\r\n".encode().lower() in server.requests[-1].lower()


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"{}"),
        answer(b'{"keys":[]}'),
        answer(b'{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"k"}]}'),
        answer(b"<html>"),
        answer(b"\xff"),
        answer(b"[" * 100_000),
        answer(key_set(signing_key("ES256")), status=b"500 Error"),
        answer(b"", b"location: http://127.0.0.1:1/keys", status=b"302 Found"),
        answer(b" " * (MAX_BYTES + 1)),
        b"nonsense\r\n\r\n",
    ],
)
async def test_answers_without_keys_are_failures(start_engine: StartEngine, reply: bytes) -> None:
    """Errors, redirects, other content and too much of it; symmetric keys are none."""
    host, port = (await start_engine(script(reply))).address
    with pytest.raises(KeysUnreachable):
        await fetch_keys(issuer(f"http://{host}:{port}/keys"))


async def test_keys_that_cannot_be_had_are_failures(tmp_path: Path) -> None:
    """A port that is closed, a file that is not there, authorities that do not exist."""
    for jwks in ("http://127.0.0.1:1/keys", str(tmp_path / "none.json")):
        with pytest.raises(KeysUnreachable):
            await fetch_keys(issuer(jwks))
    with pytest.raises(KeysUnreachable):
        await fetch_keys(issuer("https://127.0.0.1:1/", jwks_ca_file=str(tmp_path / "none.pem")))


@pytest.mark.parametrize(
    "jwks",
    [
        "http://login.example.com/keys",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "https://",
        "http://[",
        "https://user:hunter2@login.example.com/keys",
    ],
)
def test_keys_need_a_connection_that_nobody_can_change(jwks: str) -> None:
    """Whoever can change them lets anybody in; and the URL is shown in logs."""
    with pytest.raises(ValueError, match=r"must be an https URL|is no URL|no user or password"):
        issuer(jwks)


async def test_requests_that_wait_for_keys_survive_a_change_of_the_config(keys: Keys) -> None:
    """The old keys are no longer fetched: the client may ask again."""
    keys.is_held.clear()
    waiting = asyncio.create_task(keys.has())
    await asyncio.sleep(0)
    await keys.cache.close()
    with pytest.raises(AuthUnavailable):
        await waiting
