"""All routers as one: an operator's question goes to each of them, whichever was asked.

Routers that do not answer in time are named as missing; nothing waits for them.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.inspection.query import Query, Row, decode_rows, encode_query
from gateway.inspection.router_inspector import RouterInspector

TIMEOUT_S = 2.0
"""How long the other routers are waited for: they answer within some milliseconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PeerAnswers:
    """What other routers have answered."""

    rows: Mapping[str, bytes] = field(default_factory=dict)
    """Encoded rows, by the id of the router."""
    missing: Sequence[str] = ()
    """Ids of the routers that run, and have not answered."""


class RouterPeers(Protocol):
    """The other routers of the gateway."""

    async def ask(self, query: bytes, timeout_s: float) -> PeerAnswers:
        """Put an encoded `Query` to each, and return what they have answered in time."""


class NoPeers:
    """Peers of a router that is the only one."""

    async def ask(self, query: bytes, timeout_s: float) -> PeerAnswers:
        """Nobody answers, and nobody is missing."""
        del query, timeout_s
        return PeerAnswers()


@dataclass(frozen=True, slots=True)
class RoutersAnswer:
    """What all routers say."""

    rows: list[Row]
    routers: list[str]
    """The routers that have answered."""
    missing: list[str]
    """The routers that have not."""

    def page(self, rows: list[Row] | None = None) -> dict[str, object]:
        """The listing as a list of OpenAI's shape; `rows`: in place of all."""
        return {
            "object": "list",
            "data": self.rows if rows is None else rows,
            "routers": self.routers,
            "missing": self.missing,
        }


class AllRouters:
    """Puts questions to this router and its peers at the same time."""

    def __init__(self, own: RouterInspector, peers: RouterPeers) -> None:
        self._own = own
        self._peers = peers

    @property
    def own(self) -> str:
        """Id of this router."""
        return self._own.router

    async def ask(self, query: Query) -> RoutersAnswer:
        """The answers of all routers to a question, this one's first."""
        answers = asyncio.create_task(self._peers.ask(encode_query(query), TIMEOUT_S))
        try:
            rows = await self._own.rows(query)
            found = await answers
        finally:
            answers.cancel()
        routers, missing = [self.own], list(found.missing)
        for router, encoded in sorted(found.rows.items()):
            try:
                rows += decode_rows(encoded)
            except ValueError as error:  # another release, while the gateway is upgraded
                logger.warning("the answer of router %s cannot be read: %s", router, error)
                missing.append(router)
            else:
                routers.append(router)
        return RoutersAnswer(rows, routers, sorted(missing))
