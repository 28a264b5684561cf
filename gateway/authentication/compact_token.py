"""A signed token (JWS in compact form), taken apart; nothing in it is true until it is verified."""

import base64
import binascii

import msgspec

from gateway.errors.access import InvalidKey

PARTS = 3
TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
"""Types of tokens that say who somebody is; others, such as logout tokens, are for other ends."""
Claims = dict[str, object]


class TokenHeader(msgspec.Struct, frozen=True):
    """Header of a token; keys that it brings along (`jwk`, `jku`, `x5c`) are never looked at."""

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: msgspec.Raw | None = None
    b64: msgspec.Raw | None = None


class CompactToken(msgspec.Struct, frozen=True):
    """Parts of a token."""

    header: TokenHeader
    claims: Claims
    signed: bytes
    """What the signature is for."""
    signature: bytes

    @classmethod
    def parse(cls, token: bytes) -> "CompactToken":
        """Take a token apart.

        Raises:
            InvalidKey: it is none, or one of a kind that the gateway does not know.
        """
        parts = token.split(b".")
        if len(parts) != PARTS:
            raise InvalidKey("The token is not valid: it has not three parts.")
        try:
            header = _header_decoder.decode(_decoded(parts[0]))
            claims = _claims_decoder.decode(_decoded(parts[1]))
            signature = _decoded(parts[2])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error):
            raise InvalidKey("The token is not valid: it cannot be decoded.") from None
        if header.crit is not None or header.b64 is not None:
            raise InvalidKey("The token is not valid: it needs extensions that are not supported.")
        if (header.typ or "").lower() not in TYPES:
            raise InvalidKey("The token is not valid: it is of another type.")
        return cls(header, claims, token[: -len(parts[2]) - 1], signature)


def is_token(key: bytes) -> bool:
    """Whether a key has the form of a token."""
    return key.count(b".") == PARTS - 1


def _decoded(part: bytes) -> bytes:
    """Decode base64url without padding, and nothing that is nearly that.

    Raises:
        binascii.Error: it is something else.
    """
    if part.translate(None, _ALPHABET):
        raise binascii.Error("not base64url")
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_header_decoder = msgspec.json.Decoder(TokenHeader)
_claims_decoder = msgspec.json.Decoder(Claims)
