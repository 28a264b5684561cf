"""Tokens of identity providers: good ones of every kind, and every attack in the books."""

import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from gateway.authentication.authenticator import Authenticator
from gateway.authentication.tokens import MAX_KEPT, Tokens
from gateway.config.auth import Auth
from gateway.config.jwt_issuer import JwtIssuer
from gateway.errors.access import InvalidKey
from gateway.identity.api_key import key_hash
from gateway.identity.live_directory import LiveDirectory
from gateway.identity.project import Directory, Project
from tests.unit.tokens import (
    AUDIENCE,
    ISSUER,
    SigningKey,
    claims,
    encoded,
    key_set,
    signed,
    signing_key,
)

PAGE = (Path(__file__).parents[4] / "docs" / "models.md").read_text()
EXAMPLES = {
    each["name"]: each
    for each in map(yaml.safe_load, re.findall(r"```yml\n(.*?)```", PAGE, re.DOTALL))
    if "issuer" in each
}
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
PROJECTS = Directory(
    projects=(
        Project(id="proj_1", name="search"),
        Project(id="proj_2", name="ads"),
        Project(id="proj_3", name=""),
    )
)


class Provider:
    """An authenticator with one provider, whose keys are in a file."""

    def __init__(self, tmp_path: Path, **fields: object) -> None:
        self.jwks = tmp_path / "jwks.json"
        self.publish(*(signing_key(alg) for alg in ("RS256", "ES256", "ES384", "ES512", "EdDSA")))
        self.directory = LiveDirectory()
        self.directory.replace("files", PROJECTS)
        self.now_s = time.time()
        self.clock_s = 0.0
        issuer = {
            "name": "idp",
            "issuer": ISSUER,
            "audience": [AUDIENCE],
            "algorithms": list(ALGORITHMS),
            "project_claim": "project",
            **fields,
            "jwks": str(self.jwks),
        }
        self.auth = Auth.model_validate({"jwt": [issuer]})
        self.authenticator = Authenticator(
            self.directory, lambda: self.auth, lambda: self.now_s, lambda: self.clock_s
        )

    def publish(self, *keys: SigningKey, **fields: str) -> None:
        """Publish public keys in place of the earlier ones."""
        self.jwks.write_bytes(key_set(*keys, **fields))

    async def who(self, token: bytes) -> tuple[str, str, str]:
        """Project, key and user of a token."""
        identity = await self.authenticator.identify(token)
        return identity.project.name, identity.key, identity.user


MakeProvider = Callable[..., Provider]


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[MakeProvider]:
    """Make a provider, whose authenticator is closed after the test."""
    made: list[Provider] = []

    def make(**fields: object) -> Provider:
        made.append(Provider(tmp_path, **fields))
        return made[-1]

    yield make
    for each in made:
        await each.authenticator.close()


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_a_good_token_leads_to_its_project(provider: MakeProvider, alg: str) -> None:
    """By every algorithm; the token counts as a key of its subject."""
    mine = provider()
    assert await mine.who(signed(claims(), alg)) == ("search", "idp:alice", "alice")
    assert await mine.who(signed(claims(project="proj_2"), alg)) == ("ads", "idp:alice", "alice")


@pytest.mark.parametrize(
    "header",
    [{"typ": None}, {"typ": "at+jwt"}, {"typ": "application/at+JWT"}, {"alg": "Ed25519"}],
)
async def test_headers_that_mean_the_same_are_accepted(
    provider: MakeProvider, header: dict[str, object]
) -> None:
    """Access tokens have a type of their own, and Ed25519 a newer name."""
    token = signed(claims(), "EdDSA", **header)  # type: ignore[arg-type] # none of them is `key`
    assert await provider().who(token)


def hs256(secret: bytes) -> bytes:
    """A token that is signed with a secret, which may be a public key in any form."""
    content = encoded({"alg": "HS256", "kid": "k"}) + b"." + encoded(claims())
    return content + b"." + encoded(hmac.digest(secret, content, hashlib.sha256))


def unsigned(alg: str, signature: bytes = b"") -> bytes:
    """A token with good claims that nobody has signed."""
    return encoded({"alg": alg, "kid": "k"}) + b"." + encoded(claims()) + b"." + signature


def swapped() -> bytes:
    """Claims of one token with the signature of another."""
    good, other = signed(claims()), signed(claims(sub="bob"))
    return b".".join([*other.split(b".")[:2], good.split(b".")[2]])


def stranger(**header: object) -> bytes:
    """A good token that another key has signed."""
    return signed(claims(), "RS256", key=signing_key("RS256", "stranger"), **header)


PUBLIC = signing_key("RS256").as_pem(private=False)
ATTACKS: dict[str, Callable[[], bytes]] = {
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None", b"x"),
    "alg empty": lambda: unsigned(""),
    "no signature": lambda: unsigned("RS256"),
    "HS256 with the public key in PEM": lambda: hs256(PUBLIC),
    "HS256 with the public key in JSON": lambda: hs256(key_set(signing_key("RS256"))),
    "HS256 with an empty secret": lambda: hs256(b""),
    "another token's signature": swapped,
    "a changed byte": lambda: signed(claims())[:-10] + b"A" + signed(claims())[-9:],
    "another algorithm's header": lambda: signed(claims(), "ES256").replace(
        encoded({"alg": "ES256", "kid": "k", "typ": "JWT"}),
        encoded({"alg": "RS256", "kid": "k", "typ": "JWT"}),
    ),
    "an ECDSA signature of zeros": lambda: unsigned("ES256", encoded(bytes(64))),
    "another key with the same kid": stranger,
    "its own key in the header": lambda: stranger(
        jwk=signing_key("RS256", "stranger").as_dict(private=False)
    ),
    "a link to its own keys": lambda: stranger(jku="https://evil.example.com/jwks"),
    "its own certificate": lambda: stranger(x5c=["MIIB"], x5u="https://evil.example.com"),
    "an unknown kid": lambda: stranger(kid="stranger"),
    "a kid that is a path": lambda: stranger(kid="../../../../dev/null"),
    "a kid that is SQL": lambda: stranger(kid="k' UNION SELECT 'x"),
    "a kid that is a number": lambda: signed(claims(), kid=1),
    "a critical extension": lambda: signed(claims(), crit=["exp"], exp=0),
    "an unencoded payload": lambda: signed(claims(), b64=False, crit=["b64"]),
    "a logout token": lambda: signed(claims(), typ="logout+jwt"),
    "another issuer": lambda: signed(claims(iss="https://evil.example.com")),
    "an issuer that is nearly the same": lambda: signed(claims(iss=ISSUER + "/")),
    "no issuer": lambda: signed(claims(iss=None)),
    "a list of issuers": lambda: signed(claims(iss=[ISSUER])),
    "another audience": lambda: signed(claims(aud="another-service")),
    "an audience that begins the same": lambda: signed(claims(aud=AUDIENCE + "-staging")),
    "no audience": lambda: signed(claims(aud=None)),
    "an audience of another type": lambda: signed(claims(aud={AUDIENCE: True})),
    "expired": lambda: signed(claims(exp=time.time() - 31)),
    "no expiry": lambda: signed(claims(exp=None)),
    "an expiry in words": lambda: signed(claims(exp="tomorrow")),
    "an expiry that is true": lambda: signed(claims(exp=True)),
    "an expiry beyond all time": lambda: signed(claims(exp=1e300)),
    "not yet valid": lambda: signed(claims(nbf=time.time() + 60)),
    "a beginning in words": lambda: signed(claims(nbf="soon")),
    "no subject": lambda: signed(claims(sub=None)),
    "a subject with control characters": lambda: signed(claims(sub="a\nb")),
    "a subject that would be cut": lambda: signed(claims(sub=257 * "a")),
    "an unknown project": lambda: signed(claims(project="nobody")),
    "an empty project": lambda: signed(claims(project="")),
    "no project": lambda: signed(claims(project=None)),
    "projects of another type": lambda: signed(claims(project={"search": 1})),
    "four parts": lambda: signed(claims()) + b".x",
    "two parts": lambda: b".".join(signed(claims()).split(b".")[:2]),
    "five parts, encrypted": lambda: b"a.b.c.d.e",
    "padding": lambda: signed(claims()) + b"=",
    "a line break": lambda: signed(claims()).replace(b".", b".\n", 1),
    "no JSON": lambda: encoded(b"{") + b"." + encoded(b"{}") + b".AA",
    "a list": lambda: encoded([]) + b"." + encoded([]) + b".AA",
    "nested too deeply": lambda: (
        encoded({"alg": "RS256"}) + b"." + encoded(b'{"a":' * 3000 + b"1" + b"}" * 3000) + b".AA"
    ),
    "not UTF-8": lambda: encoded(b'{"alg":"\xff"}') + b"." + encoded({}) + b".AA",
    "nothing": lambda: b"..",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_gets_in(provider: MakeProvider, attack: str) -> None:
    """A token that is wrong in any way is refused as a wrong key, and a good one still gets in."""
    mine = provider()
    token = ATTACKS[attack]()
    for _ in range(2):  # also once the keys and the answers are known
        with pytest.raises(InvalidKey) as caught:
            await mine.authenticator.identify(token)
        assert token.decode(errors="replace") not in caught.value.message
    assert await mine.who(signed(claims()))


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
async def test_an_algorithm_must_be_allowed(provider: MakeProvider, alg: str) -> None:
    """Even if the provider has a key for it."""
    mine = provider(algorithms=["RS256"])
    with pytest.raises(InvalidKey, match="algorithm is not allowed"):
        await mine.who(signed(claims(), alg))


async def test_a_key_is_only_for_its_own_algorithm_and_use(provider: MakeProvider) -> None:
    """If it says so; keys for encryption and short RSA keys verify nothing."""
    mine = provider()
    mine.publish(signing_key("RS256"), alg="RS512")
    with pytest.raises(InvalidKey, match="unknown key"):
        await mine.who(signed(claims()))
    other = provider()
    other.publish(signing_key("RS256"), signing_key("ES256"), use="enc")
    with pytest.raises(Exception, match="cannot be checked now"):
        await other.who(signed(claims()))


async def test_a_token_without_a_kid_needs_an_unambiguous_key(provider: MakeProvider) -> None:
    """With one key for its algorithm it is accepted; with two it would be a guess."""
    mine = provider()
    assert await mine.who(signed(claims(), kid=None))
    two = provider()
    two.publish(signing_key("RS256"), signing_key("RS256", "k2"))
    with pytest.raises(InvalidKey, match="unknown key"):
        await two.who(signed(claims(), kid=None))


async def test_clocks_may_differ_a_little(provider: MakeProvider) -> None:
    """By the leeway, in both directions."""
    mine = provider(leeway_s=30)
    assert await mine.who(signed(claims(exp=mine.now_s - 25)))
    assert await mine.who(signed(claims(nbf=mine.now_s + 25)))


async def test_a_verified_token_counts_until_it_expires(provider: MakeProvider) -> None:
    """It is verified once; after that its key may be gone for a while."""
    mine = provider(leeway_s=0)
    token = signed(claims(exp=mine.now_s + 100))
    assert await mine.who(token)
    await _withdraw_keys(mine)
    mine.now_s += 99
    assert await mine.who(token)
    mine.now_s += 2
    with pytest.raises(InvalidKey, match="expired"):
        await mine.who(token)


async def test_a_verified_token_is_verified_again_after_a_while(provider: MakeProvider) -> None:
    """A key that its provider has withdrawn does not count for hours."""
    mine = provider()
    token = signed(claims(exp=mine.now_s + 10_000))
    assert await mine.who(token)
    await _withdraw_keys(mine)
    mine.now_s += 301
    with pytest.raises(InvalidKey, match="unknown key"):
        await mine.who(token)


async def _withdraw_keys(mine: Provider) -> None:
    """Publish another key, and have it fetched."""
    mine.publish(signing_key("RS256", "new"))
    mine.clock_s += 1000
    assert await mine.who(signed(claims(sub="new"), kid="new", key=signing_key("RS256", "new")))


async def test_a_verified_token_is_dropped_when_projects_or_config_change(
    provider: MakeProvider,
) -> None:
    """It gets what its project is now, and nothing once that or its provider has gone."""
    mine = provider()
    token = signed(claims())
    first = await mine.authenticator.identify(token)
    changed = Project(id="proj_1", name="search", weight=9)
    mine.directory.replace("files", Directory(projects=(changed,)))
    second = await mine.authenticator.identify(token)
    assert (first.project.weight, second.project.weight) == (1, 9)
    mine.directory.replace("files", Directory())
    with pytest.raises(InvalidKey, match="leads to no project"):
        await mine.who(token)
    mine.directory.replace("files", PROJECTS)
    assert await mine.who(token)
    issuer = mine.auth.jwt[0].model_copy(update={"audience": ["another"]})
    mine.auth = mine.auth.model_copy(update={"jwt": [issuer]})
    with pytest.raises(InvalidKey, match="another audience"):
        await mine.who(token)
    mine.auth = mine.auth.model_copy(update={"jwt": []})
    with pytest.raises(InvalidKey, match="Incorrect API key"):
        await mine.who(token)


async def test_remembered_tokens_are_bounded(provider: MakeProvider) -> None:
    """The least recently used one is verified again."""
    mine = provider()
    tokens = Tokens(mine.auth.jwt, mine.directory, lambda: mine.now_s)
    token = signed(claims())
    first = await tokens.verify(token, key_hash(token))
    for i in range(MAX_KEPT):
        tokens._keep(b"%d" % i, first)
    assert len(tokens._kept) == MAX_KEPT
    assert tokens.known(key_hash(token)) is None


GROUPS: dict[str, object] = {"groups_claim": "g", "groups": {"x": "ads", "y": "search"}}


@pytest.mark.parametrize(
    ("fields", "token", "project"),
    [
        ({"project_claim": "a.b", "default_project": "ads"}, {"a": {"b": "search"}}, "search"),
        ({"project_claim": ["a.b", "c"]}, {"a.b": {"c": "search"}}, "search"),
        ({"project_claim": "a.b", "default_project": "ads"}, {"a": "search"}, "ads"),
        ({"default_project": "ads"}, {"project": "nobody"}, "ads"),
        ({"default_project": "ads"}, {"project": "search"}, "search"),
        (GROUPS, {"g": ["y", "x"], "project": None}, "ads"),
        (GROUPS, {"g": "y", "project": None}, "search"),
        (GROUPS, {"g": ["x"], "project": "search"}, "search"),
        (GROUPS, {"g": ["x"], "project": "nobody"}, "ads"),
        (GROUPS, {"g": {"x": 1}, "project": "nobody"}, None),
        (GROUPS, {"g": ["z", 1], "project": None}, None),
        ({"project_claim": ["list"]}, {"list": ["ads", "search"]}, "ads"),
    ],
)
async def test_claims_lead_to_projects(
    provider: MakeProvider, fields: dict[str, object], token: dict[str, object], project: str | None
) -> None:
    """Claim first, then groups, then the default; unknown ones lead nowhere."""
    mine = provider(**fields)
    try:
        found: str | None = (await mine.who(signed(claims(**token))))[0]
    except InvalidKey:
        found = None
    assert found == project


async def test_roles_make_administrators(provider: MakeProvider) -> None:
    """An administrator needs no project; another's token is none's."""
    mine = provider(admin_claim="realm_access.roles", admins=["ops"])
    roles = {"realm_access": {"roles": ["dev", "ops"]}, "project": None}
    assert await mine.authenticator.admin(signed(claims(**roles))) == "idp:alice"
    assert await mine.authenticator.admin(signed(claims())) is None
    assert await mine.authenticator.admin(b"sk-a-key") is None
    with pytest.raises(InvalidKey, match="leads to no project"):
        await mine.who(signed(claims(**roles)))


KEYCLOAK = {
    "iss": "https://login.example.com/realms/company",
    "aud": ["ray-llm-gateway", "account"],
    "azp": "search",
    "sub": "f1b3c0de-0000-4000-8000-000000000001",
    "preferred_username": "alice",
    "realm_access": {"roles": ["offline_access", "gateway-admin"]},
}
ENTRA = {
    "iss": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
    "aud": "66666666-7777-8888-9999-000000000000",
    "azp": "aaaaaaaa-0000-4000-8000-000000000002",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "preferred_username": "alice@example.com",
    "roles": ["Search.Use"],
}
KUBERNETES = {
    "iss": "https://kubernetes.default.svc.cluster.local",
    "aud": ["ray-llm-gateway"],
    "sub": "system:serviceaccount:search:indexer",
    "kubernetes.io": {"namespace": "search", "serviceaccount": {"name": "indexer", "uid": "1"}},
}


@pytest.mark.parametrize(
    ("name", "token", "key", "user", "is_admin"),
    [
        ("keycloak", KEYCLOAK, f"keycloak:{KEYCLOAK['sub']}", "alice", True),
        ("entra", ENTRA, f"entra:{ENTRA['sub']}", "alice@example.com", False),
        ("kubernetes", KUBERNETES, f"kubernetes:{KUBERNETES['sub']}", KUBERNETES["sub"], False),
    ],
)
async def test_the_documented_providers_work(
    provider: MakeProvider,
    name: str,
    token: dict[str, object],
    key: str,
    user: str,
    is_admin: bool,
) -> None:
    """A token in the form of each provider leads to its project, as the page's example has it."""
    example = EXAMPLES[name]
    JwtIssuer.model_validate(example)
    mine = provider(**{"project_claim": None, **example})
    good = signed({**claims(project=None), **token})
    assert await mine.who(good) == ("search", key, user)
    assert (await mine.authenticator.admin(good) is not None) == is_admin


async def test_a_user_is_a_label_that_can_be_shown(provider: MakeProvider) -> None:
    """It ends up in reports, whatever the provider lets people call themselves."""
    mine = provider(user_claim="name")
    for name, user in (("alice", "alice"), ("a\x1b[31m", ""), (7, ""), ("x" * 999, "x" * 256)):
        assert (await mine.who(signed(claims(name=name))))[2] == user
