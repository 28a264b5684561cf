"""Authentication of clients: the gateway config's `auth`."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from gateway.config.jwt_issuer import JwtIssuer
from gateway.config.project_values import Route
from gateway.config.strict import Strict, field_error

NONE = "none"
DEFAULT_ROUTES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"),
    *("/v1/responses/input_tokens", "/v1/messages", "/v1/messages/count_tokens"),
    *("/v1/audio/transcriptions", "/v1/audio/translations"),
    *("/rerank", "/v1/rerank", "/v2/rerank", "/v2/embed"),
)
"""Routes that projects may use unless the config says otherwise: those of OpenAI's, Anthropic's and
Cohere's APIs."""
AUTH_IS_MISSING = (
    "is missing, and the gateway can be reached from other machines: configure how clients are"
    " authenticated, or write `auth: none` to let anybody in"
)
HAS_NO_SOURCE = (
    "has no projects, so nobody could be let in: name files in its `projects`, or give the gateway"
    " a database of accounts"
)


class Auth(Strict):
    """How clients prove who they are. `auth: none` lets anybody in."""

    is_required: bool = True
    """Requests need an API key or a token; `auth: none` is short for `is_required: false`."""
    projects: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Files with projects and the hashes of their API keys, read again whenever they change. Where
    the application has a database of accounts, its projects and keys count too."""
    jwt: list[JwtIssuer] = Field(default_factory=list)
    """Identity providers whose tokens clients may send in place of an API key. The projects must be
    known, from a file or the database."""
    routes: list[Route] = Field(default=list(DEFAULT_ROUTES))
    """Paths that projects may use whose own `routes` say nothing."""
    max_failures_per_minute: int = Field(default=30, ge=1)
    """Wrong or missing keys from one address in a minute, after which it gets 429 for them instead
    of 401; requests with a valid key are answered as before."""

    @model_validator(mode="after")
    def _is_all_or_nothing(self) -> Self:
        for name in ("projects", "jwt"):
            if not self.is_required and getattr(self, name):
                raise field_error("has no effect where `is_required` is false", name)
        return self

    @model_validator(mode="after")
    def _has_distinct_issuers(self) -> Self:
        seen: set[str] = set()
        for i, each in enumerate(self.jwt):
            if each.name in seen:
                raise field_error(f"`{each.name}` appears twice", "jwt", i, "name")
            seen.add(each.name)
        return self

    @property
    def has_admins(self) -> bool:
        """Whether a token may make its owner an administrator."""
        return any(each.admins for each in self.jwt)

    @property
    def has_projects(self) -> bool:
        """Whether it names any file with projects."""
        return bool(self.projects)


def _expanded(auth: object) -> object:
    """Expand `none` to the mapping that it stands for."""
    return {"is_required": False} if auth == NONE else auth


AuthOrNone = Annotated[Auth | None, BeforeValidator(_expanded)]
