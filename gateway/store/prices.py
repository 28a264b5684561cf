"""Prices in the database: those of the config, for whoever reads the ledger."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert

from gateway.ledger.price import Price
from gateway.store.tables import prices


def replace_prices(connection: Connection, given: Sequence[Price], currency: str) -> None:
    """Replace all prices by those of the config."""
    connection.execute(delete(prices))
    if given:
        rows = [
            {
                "model": price.model,
                "from_s": price.from_s,
                "input_nano": price.input_nano,
                "cached_input_nano": price.cached_input_nano,
                "output_nano": price.output_nano,
                "gpu_hour_nano": price.gpu_hour_nano,
                "currency": currency,
            }
            for price in given
        ]
        connection.execute(insert(prices), rows)
