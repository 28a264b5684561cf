"""Public keys of an identity provider (a JWK set), and the check of a signature with one of them.

The algorithm must fit the key: a public key is never taken for the secret of another algorithm.
Source: RFC 7515, 7517, 7518 and 8725 (best current practices), by joserfc.
"""

from collections.abc import Iterable, Mapping

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

MAX_KEYS = 100
MIN_RSA_BITS = 2048
_KIND_OF: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Type and curve of the keys for each algorithm."""
_NAME_OF = {"EdDSA": "Ed25519"}
"""Names of algorithms in joserfc, where they differ."""
_OTHER_NAMES = {"Ed25519": "EdDSA"}
"""Newer names of algorithms in tokens and keys."""
PublicKey = RSAKey | ECKey | OKPKey


class NamedKey(msgspec.Struct, frozen=True):
    """A public key of a set."""

    kid: str
    """Its name; empty without one."""
    kind: tuple[str, str]
    alg: str
    """The one algorithm that it is for; empty: any that fits."""
    key: PublicKey


class _Jwk(msgspec.Struct):
    kty: str
    use: str = "sig"
    kid: str = ""
    alg: str = ""
    crv: str = ""


class _JwkSet(msgspec.Struct):
    keys: list[msgspec.Raw]


class KeySet:
    """The keys of a set that can verify signatures."""

    def __init__(self, keys: Iterable[NamedKey] = ()) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, content: bytes) -> "KeySet":
        """The keys of a JWK set in JSON; keys of other kinds or uses are left out.

        Raises:
            ValueError: it is no such set, or has no such key.
        """
        try:
            raws = _set_decoder.decode(content).keys[:MAX_KEYS]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not a JWK set: {error}") from None
        keys = cls(filter(None, map(_named_key, raws)))
        if not keys:
            raise ValueError("the JWK set has no public key for signatures")
        return keys

    def find(self, kid: str | None, alg: str) -> PublicKey | None:
        """The key of that name for an algorithm; without a name, the only one for it."""
        kind = _KIND_OF[alg]
        found = [
            each.key
            for each in self._keys
            if each.kind == kind
            and (kid is None or each.kid == kid)
            and (not each.alg or _OTHER_NAMES.get(each.alg, each.alg) == alg)
        ]
        return found[0] if len(found) == 1 or (found and kid is not None) else None


def plain_algorithm(alg: str) -> str:
    """The name of an algorithm in a config, by the one in a token."""
    return _OTHER_NAMES.get(alg, alg)


def is_signed_by(key: PublicKey, alg: str, signed: bytes, signature: bytes) -> bool:
    """Whether a signature is that of a key."""
    algorithm = JWSRegistry.algorithms[_NAME_OF.get(alg, alg)]
    try:
        return algorithm.verify(signed, signature, key)
    except (JoseError, ValueError):
        return False


def _named_key(raw: msgspec.Raw) -> NamedKey | None:
    """The key, if it is one that can verify signatures."""
    try:
        jwk = _jwk_decoder.decode(raw)
        kind = (jwk.kty, "" if jwk.kty == "RSA" else jwk.crv)
        if jwk.use != "sig" or kind not in _KIND_OF.values():
            return None
        key = JWKRegistry.import_key(msgspec.json.decode(raw))
        if not isinstance(key, PublicKey) or not _is_strong(key):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, JoseError, ValueError, TypeError):
        return None
    return NamedKey(jwk.kid, kind, jwk.alg, key)


def _is_strong(key: PublicKey) -> bool:
    return not isinstance(key, RSAKey) or key.public_key.key_size >= MIN_RSA_BITS


_set_decoder = msgspec.json.Decoder(_JwkSet)
_jwk_decoder = msgspec.json.Decoder(_Jwk)
