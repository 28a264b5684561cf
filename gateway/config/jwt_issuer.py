"""Identity provider whose tokens clients may send: one of `jwt` in the gateway config's `auth`."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.config.loopback import is_loopback
from gateway.config.references import Reference
from gateway.config.strict import Strict, field_error

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
"""Algorithms of signatures with public keys: there is no other kind."""
Text = Annotated[str, Field(min_length=1)]


def _steps(path: object) -> object:
    """The steps of a path that is written with dots."""
    return path.split(".") if isinstance(path, str) else path


def is_url(jwks: str) -> bool:
    """Whether keys are at a URL, and not in a file."""
    return "://" in jwks


def _checked_jwks(jwks: str) -> str:
    if Reference.of(jwks) or not is_url(jwks):
        return jwks
    try:
        url = urlsplit(jwks)
        host = url.hostname or ""
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if not host or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(host))):
        raise ValueError(
            "must be an https URL, or the path of a file; http is for this machine only, because"
            " whoever can change these keys can let anybody in"
        )
    if "@" in url.netloc:
        raise ValueError(
            "must have no user or password, which the log and operators would be shown"
        )
    return jwks


ClaimPath = Annotated[list[Text], Field(min_length=1), BeforeValidator(_steps)]


class JwtIssuer(Strict):
    """An identity provider whose tokens (JWTs) clients may send in place of an API key."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Short name of the provider: a token counts as a key whose id is this name, a colon and the
    token's `sub`."""
    issuer: Text
    """The `iss` of its tokens, exactly."""
    audience: list[Text] = Field(min_length=1)
    """What the `aud` of a token must have one of: names that stand for this gateway alone."""
    algorithms: list[Algorithm] = Field(min_length=1)
    """Algorithms with which its tokens may be signed."""
    jwks: Annotated[str, Field(min_length=1), AfterValidator(_checked_jwks)]
    """Its public keys (a JWK set): an https URL, or the path of a file, which is read again when it
    changes."""
    jwks_ca_file: Text | None = None
    """File with the certificates of the authorities that may vouch for the URL's host. Default:
    those of the system."""
    jwks_token_file: Text | None = None
    """File with a bearer token for the URL, read before each request."""
    max_stale_s: float = Field(default=86_400, ge=0)
    """How long its last keys are used while new ones cannot be fetched."""
    leeway_s: float = Field(default=30, ge=0, le=300)
    """By how much the clocks of provider and gateway may differ."""
    user_claim: ClaimPath = Field(default=["sub"])
    """Claim with the name of the user, a label. Like all claims: steps into the token, written with
    dots (`realm_access.roles`), or as a list where a step itself has dots (`[kubernetes.io,
    namespace]`)."""
    project_claim: ClaimPath | None = None
    """Claim with the id or name of the project."""
    groups_claim: ClaimPath | None = None
    """Claim with groups or roles: text, or a list of texts."""
    groups: dict[Text, Text] = Field(default_factory=dict)
    """Project by group, for tokens without a known project: the first group here that a token has
    decides."""
    default_project: Text | None = None
    """Project of tokens that lead to none that is known. Default: such tokens are refused."""
    admin_claim: ClaimPath | None = None
    """Claim with groups or roles, some of which make their owner an administrator."""
    admins: list[Text] = Field(default_factory=list)
    """Those groups or roles."""

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.groups and self.groups_claim is None:
            raise field_error("needs `groups_claim`", "groups")
        if bool(self.admins) != (self.admin_claim is not None):
            raise field_error("`admins` and `admin_claim` need each other", "admins")
        if not (self.project_claim or self.groups or self.default_project or self.admins):
            raise field_error(
                "no token would lead to a project: set `project_claim`, `groups` or"
                " `default_project`"
            )
        return self
