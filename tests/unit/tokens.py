"""An identity provider for tests: its keys, and tokens that it signs."""

import base64
import json
import time
from collections.abc import Mapping
from functools import cache

from joserfc.jwk import ECKey, KeyParameters, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://login.example.com"
AUDIENCE = "ray-llm-gateway"
SigningKey = RSAKey | ECKey | OKPKey


def signing_key(alg: str, kid: str = "k") -> SigningKey:
    """A private key for an algorithm; always the same one."""
    return _signing_key("RSA" if alg[:2] in {"RS", "PS"} else alg, kid)


@cache
def _signing_key(alg: str, kid: str) -> SigningKey:
    parameters: KeyParameters = {"kid": kid}
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    if alg == "RSA":
        return RSAKey.generate_key(2048, parameters=parameters)
    if alg in curves:
        return ECKey.generate_key(curves[alg], parameters=parameters)
    return OKPKey.generate_key("Ed25519", parameters=parameters)


def key_set(*keys: SigningKey, **fields: str) -> bytes:
    """The public keys, as a provider publishes them."""
    public = [{**key.as_dict(private=False), **fields} for key in keys]
    return json.dumps({"keys": public}).encode()


def encoded(part: object) -> bytes:
    """A part of a token."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def claims(**changed: object) -> dict[str, object]:
    """Claims of a good token, but for those that are changed; None removes one."""
    found: Mapping[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "exp": time.time() + 600,
        "project": "search",
        **changed,
    }
    return {name: value for name, value in found.items() if value is not None}


def signed(
    payload: Mapping[str, object],
    alg: str = "RS256",
    /,
    *,
    key: SigningKey | None = None,
    **header: object,
) -> bytes:
    """A token with these claims."""
    fields: dict[str, object] = {"alg": alg, "kid": "k", "typ": "JWT", **header}
    fields = {name: value for name, value in fields.items() if value is not None}
    content = encoded(fields) + b"." + encoded(dict(payload))
    name = "Ed25519" if alg == "EdDSA" else alg
    signature = JWSRegistry.algorithms[name].sign(content, key or signing_key(alg))
    return content + b"." + encoded(signature)
