"""Tables of all headers, generated from the catalogue that names them."""

from collections.abc import Iterable

from gateway.header_names import ENGINE_HEADERS, REQUEST_HEADERS, RESPONSE_HEADERS, Header
from gateway.reference.markdown import code, table


def header_tables() -> dict[str, str]:
    """Headers of requests, of responses, and between routers and engines."""
    return {
        "request": _headers(REQUEST_HEADERS),
        "response": _headers(RESPONSE_HEADERS),
        "engine": _headers(ENGINE_HEADERS),
    }


def _headers(headers: Iterable[Header]) -> str:
    rows = [(code(each.name.decode()), each.value, each.meaning) for each in headers]
    return table(("header", "value", "meaning"), rows)
