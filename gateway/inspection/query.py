"""Questions that routers answer of themselves, and the wire format in which they ask each other."""

from enum import StrEnum

import msgspec

Row = dict[str, object]
"""One row of an answer, as JSON shows it."""


class QueryTopic(StrEnum):
    """What a router is asked about."""

    CONFIG = "config"
    DECISIONS = "decisions"
    FAULTS = "faults"
    MODELS = "models"
    REPLICAS = "replicas"
    REQUEST = "request"
    SHADOWS = "shadows"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a router."""

    topic: QueryTopic
    limit: int = 0
    """Most rows that are wanted; for decisions only."""
    model: str | None = None
    """The only model that is wanted; for decisions and replicas."""
    request_id: str = ""
    """Id of the request that is looked for."""


def encode_query(query: Query) -> bytes:
    """The query as it goes to another router."""
    return msgspec.msgpack.encode(query)


def decode_query(data: bytes) -> Query:
    """The query of another router.

    Raises:
        ValueError: it is none of this release.
    """
    return _queries.decode(data)


def encode_rows(rows: list[Row]) -> bytes:
    """Rows as they go to another router."""
    return msgspec.json.encode(rows)


def decode_rows(data: bytes) -> list[Row]:
    """Rows of another router.

    Raises:
        ValueError: they are none.
    """
    return _rows.decode(data)


_queries = msgspec.msgpack.Decoder(Query)
_rows = msgspec.json.Decoder(list[Row])
