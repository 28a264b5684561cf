"""Cross-origin resource sharing (CORS), as the Fetch standard has it: for all routes alike.

Starlette's middleware would be on FastAPI's routes only: inference does not go that way. Cookies
and the like are never shared: clients send their keys themselves.
"""

import re

from gateway.asgi import Headers, Scope, header
from gateway.config.gateway import ANY_ORIGIN, Cors
from gateway.header_names import ORIGIN, RESPONSE_HEADERS

METHODS = b"GET, HEAD, POST, OPTIONS"
EXPOSED = b", ".join(each.name for each in RESPONSE_HEADERS)
"""Headers of the gateway's own, which pages may read; those that Fetch always allows aside."""
PRIVATE = ("/gateway", "/v1/organization", "/v1/projects")
"""Routes below these paths are for administrators, and for no page."""
_ASKED_METHOD = b"access-control-request-method"
_ASKED_HEADERS = b"access-control-request-headers"
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
"""What may be repeated in a response: names of headers and commas."""


class SharedOrigins:
    """The origins of a gateway config's `cors`."""

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def headers(self, scope: Scope) -> Headers:
        """Headers for every response to a request, whether its origin is allowed or not."""
        if any(f"{scope['path']}/".startswith(f"{private}/") for private in PRIVATE):
            return []
        shared: Headers = [(b"access-control-expose-headers", EXPOSED)]
        if self._cors.origins == [ANY_ORIGIN]:
            return [(b"access-control-allow-origin", ANY_ORIGIN.encode()), *shared]
        vary = (b"vary", b"origin")  # of a page that is not allowed, too: caches must not mix them
        origin = header(scope["headers"], ORIGIN, b"")
        if origin.decode(errors="replace") not in self._cors.origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), vary, *shared]

    def preflight(self, scope: Scope) -> Headers | None:
        """Headers of the answer to a preflight request; None if the request is none."""
        if scope["method"] != "OPTIONS" or not header(scope["headers"], _ASKED_METHOD, b""):
            return None
        if not any(name == b"access-control-allow-origin" for name, _ in self.headers(scope)):
            return []
        allowed: Headers = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", b"%d" % self._cors.max_age_s),
        ]
        asked = header(scope["headers"], _ASKED_HEADERS, b"")
        if _HEADER_NAMES.fullmatch(asked):
            allowed.append((b"access-control-allow-headers", asked))
        return allowed
