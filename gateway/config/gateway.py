"""Gateway config: names, limits and access, in the Router's `user_config`."""

import re
from ipaddress import ip_network
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.config.auth import AuthOrNone
from gateway.config.references import Reference, check_references
from gateway.config.request_log import RequestLogOptions
from gateway.config.strict import FieldError, Strict, field_errors
from gateway.config.traffic_rules import TrafficRules

MIN_KEY_LENGTH = 16
"""Least number of characters in an access key."""
DEFAULT_BODIES_MB = 512.0
ANY_ORIGIN = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


class Cors(Strict):
    """Cross-origin resource sharing: which web pages may use the gateway from a browser.

    Nothing under `/gateway` and `/v1/organization` is shared.
    """

    origins: list[str] = Field(min_length=1)
    """Origins of the pages, such as `https://chat.example.com`, or `["*"]` for all. Without `auth`,
    `*` lets any page use a gateway that its visitor can reach."""
    max_age_s: int = Field(default=600, ge=0)
    """How long browsers may remember the answer to a preflight request."""

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        if ANY_ORIGIN in origins and len(origins) > 1:
            raise ValueError(f"`{ANY_ORIGIN}` allows all origins and must stand alone")
        for origin in origins:
            if not (origin == ANY_ORIGIN or _ORIGIN.fullmatch(origin) or Reference.of(origin)):
                raise ValueError(
                    f"{origin!r} is no origin: it must be scheme://host or scheme://host:port, in"
                    " lower case, without a path"
                )
        return origins


class RateLimits(Strict):
    """How the limits of projects count."""

    count_tokens: Literal["uncached", "all"] = "uncached"
    """Tokens that count against limits of tokens: prompt tokens that no cache held, and those of
    answers; or all."""
    on_unknown_spend: Literal["allow", "refuse"] = "allow"
    """What happens to requests of a project with a limit of money while a router does not know what
    has been spent, because it has just started and cannot reach `Accounts`. A router that has known
    goes on with that."""


class GatewayConfig(TrafficRules):
    """How requests reach the models; `serve deploy` applies changes without a restart."""

    max_body_mb: float = Field(default=32, gt=0)
    """Maximum size of a request body, in megabytes (2**20 bytes)."""
    max_text_body_mb: float = Field(default=16, gt=0)
    """The same limit for routes whose bodies are texts, such as `/v1/completions`, `/v1/embeddings`
    and `/tokenize`; no more than `max_body_mb`."""
    max_bodies_mb: float | None = Field(default=None, gt=0)
    """Memory of one router for the bodies of all requests under way, in megabytes; at least four
    times `max_body_mb`. A client's address may hold as much as is free, so at most half of it, a
    third of that in bodies that are still arriving. Requests beyond that wait, and then get 429.
    Default: 512, or 16 times `max_body_mb` if that is more."""
    rate_limits: RateLimits = RateLimits()
    """How the limits of projects count."""
    request_log: RequestLogOptions = RequestLogOptions()
    """A line of JSON for each request. On by default."""
    cors: Cors | None = None
    """Web pages that may use the gateway from a browser. Default: none."""
    auth: AuthOrNone = None
    """How clients prove who they are; `none` lets anybody in. Required, unless the gateway listens
    on loopback only: there it is open by default."""
    admin_key: str | None = Field(default=None, repr=False)
    """Bearer token for the routes under `/gateway`; write it as `env:NAME` or `file:PATH`, which
    each router reads. If unset, these routes exist only with `open_on_loopback`."""
    open_on_loopback: bool = False
    """Without an `admin_key`, opens the routes under `/gateway` to whoever is on the same machine:
    the gateway must listen on loopback alone, and a request must name it by a loopback address and
    must not come through another proxy. For development."""
    trusted_proxies: list[str] = Field(default_factory=list)
    """Addresses or networks (`10.0.0.0/8`) of load balancers in front, whose `x-forwarded-for` is
    believed. The client is the last address there that is not itself one of these."""

    @field_validator("admin_key")
    @classmethod
    def _is_strong(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not Reference.of(admin_key):
            _check_key(admin_key)
        return admin_key

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: list[str]) -> list[str]:
        for each in proxies:
            if Reference.of(each):
                continue  # the router checks what it stands for
            try:
                ip_network(each)
            except ValueError as error:
                raise ValueError(
                    f"must be addresses or networks such as 10.0.0.0/8: {error}"
                ) from None
        return proxies

    @model_validator(mode="after")
    def _has_valid_references(self, info: ValidationInfo) -> Self:
        check_references(self.model_dump(), info)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = list(self.contradictions())
        if self.max_bodies_mb is not None and self.max_bodies_mb < 4 * self.max_body_mb:
            message = f"must be at least 4 times `max_body_mb`, which is {self.max_body_mb:g}"
            errors.append(FieldError(("max_bodies_mb",), message))
        if errors:
            raise field_errors(errors)
        return self

    @property
    def is_authenticated(self) -> bool:
        """Whether clients must prove who they are."""
        return self.auth is not None and self.auth.is_required

    @property
    def bodies_bytes(self) -> int:
        """Bytes that the bodies of all requests under way may take."""
        default_mb = max(DEFAULT_BODIES_MB, 16 * self.max_body_mb)
        return int((self.max_bodies_mb or default_mb) * 2**20)


def _check_key(key: str) -> str:
    if len(key) < MIN_KEY_LENGTH:
        raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("must be printable ASCII, because it is sent in an HTTP header")
    return key
