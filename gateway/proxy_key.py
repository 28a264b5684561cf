"""Keys that all processes of a cluster derive, such as HAProxy's, which proves its requests.

Every process of a Ray cluster with token authentication has the cluster's token. HAProxy, routers
and engines, on whatever node, derive the same keys from it, one for each purpose, so none has to be
made, stored or sent. Neither the token nor another key can be computed from a key.
"""

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from gateway.environment import AUTH_MODE, AUTH_TOKEN, AUTH_TOKEN_PATH

DEFAULT_TOKEN_PATH = Path(".ray") / "auth_token"
"""Ray's own place for the token, below the home directory."""
PURPOSE = b"ray-llm-gateway: from HAProxy to routers"


def proxy_key(environ: Mapping[str, str], home: Path | None = None) -> str:
    """HAProxy's key in hexadecimal; empty in a cluster without token authentication."""
    return cluster_key(PURPOSE, environ, home).hex()


def cluster_key(purpose: bytes, environ: Mapping[str, str], home: Path | None = None) -> bytes:
    """The cluster's key for a purpose; empty in a cluster without token authentication.

    A token that such a cluster does not use may lie on some of its nodes only.
    """
    token = required_token(environ, home)
    return hmac.digest(token.encode(), purpose, hashlib.sha256) if token else b""


def required_token(environ: Mapping[str, str], home: Path | None = None) -> str:
    """The cluster's token; empty in a cluster without token authentication, or if there is none."""
    is_required = environ.get(AUTH_MODE, "").lower() == "token"
    return cluster_token(environ, home) if is_required else ""


def cluster_token(environ: Mapping[str, str], home: Path | None = None) -> str:
    """The cluster's token, found as Ray 2.60 finds it; empty if there is none."""
    if token := environ.get(AUTH_TOKEN, "").strip():
        return token
    default = (Path.home() if home is None else home) / DEFAULT_TOKEN_PATH
    try:
        path = Path(environ.get(AUTH_TOKEN_PATH) or default)
        return path.expanduser().read_text().strip()
    except (OSError, ValueError):
        return ""
