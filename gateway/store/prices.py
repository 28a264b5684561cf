"""Prices in the database: those of the config, for whoever reads the ledger."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, insert

from gateway.ledger.price import Price
from gateway.store.tables import prices


def replace_prices(connection: Connection, given: Sequence[Price], currency: str) -> None:
    """Replace all prices by those of the config."""
    connection.execute(delete(prices))
    if given:
        rows = [{**msgspec.structs.asdict(price), "currency": currency} for price in given]
        connection.execute(insert(prices), rows)
