"""Claims of a verified token: whether they are for this gateway, now, and whom they name."""

from collections.abc import Sequence

from gateway.authentication.compact_token import Claims
from gateway.config.jwt_issuer import JwtIssuer
from gateway.errors.access import InvalidKey

MAX_TEXT = 256
"""Most characters of a subject, and those of a user's name that count."""


def check_claims(claims: Claims, issuer: JwtIssuer, now_s: float) -> float:
    """Check for whom and when a token is; returns when it expires, in Unix time.

    Raises:
        InvalidKey: it is not for this gateway, or not for now.
    """
    if claims.get("iss") != issuer.issuer:
        raise InvalidKey("The token is not valid: its issuer is not known.")
    if not set(texts(claims.get("aud"))) & set(issuer.audience):
        raise InvalidKey("The token is not valid: it is for another audience.")
    expires_s, begins_s = _time(claims.get("exp")), claims.get("nbf")
    if expires_s is None:
        raise InvalidKey("The token is not valid: it does not say when it expires.")
    if expires_s + issuer.leeway_s <= now_s:
        raise InvalidKey("The token is not valid: it has expired.")
    if begins_s is not None:
        begins = _time(begins_s)
        if begins is None or begins - issuer.leeway_s > now_s:
            raise InvalidKey("The token is not valid yet.")
    return expires_s


def subject_of(claims: Claims) -> str:
    """The subject of a token.

    Raises:
        InvalidKey: it has none, or one that is too long: two that were cut would be one.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise InvalidKey("The token is not valid: it has no subject.")
    if len(subject) > MAX_TEXT:
        raise InvalidKey(f"The token is not valid: its subject is longer than {MAX_TEXT}.")
    return subject


def claim(claims: Claims, path: Sequence[str] | None) -> object:
    """What a path leads to; None if nothing is there."""
    value: object = claims if path else None
    for step in path or ():
        value = value.get(step) if isinstance(value, dict) else None
    return value


def texts(value: object) -> list[str]:
    """The texts of a claim that may be one text or a list."""
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def project_names(claims: Claims, issuer: JwtIssuer) -> list[str]:
    """Names or ids of the projects that a token may lead to, the first choice first."""
    found = texts(claim(claims, issuer.project_claim))[:1]
    groups = set(texts(claim(claims, issuer.groups_claim)))
    found += [project for group, project in issuer.groups.items() if group in groups]
    return [*found, issuer.default_project] if issuer.default_project else found


def user_of(claims: Claims, issuer: JwtIssuer) -> str:
    """Name of the user; empty where there is none that can be shown."""
    name = next(iter(texts(claim(claims, issuer.user_claim))), "")[:MAX_TEXT]
    return name if name.isprintable() else ""


def is_admin(claims: Claims, issuer: JwtIssuer) -> bool:
    """Whether the token's owner is an administrator."""
    return bool(set(texts(claim(claims, issuer.admin_claim))) & set(issuer.admins))


def _time(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e15 else None  # type: ignore[arg-type]
