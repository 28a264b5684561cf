"""Prices in the database: those of the config, for whoever reads the ledger."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

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


def read_prices(connection: Connection) -> tuple[Price, ...]:
    """All prices, by model and date."""
    query = select(prices).order_by(prices.c.model, prices.c.from_s)
    return tuple(
        Price(
            model=row.model,
            from_s=row.from_s,
            input_nano=row.input_nano,
            cached_input_nano=row.cached_input_nano,
            output_nano=row.output_nano,
            gpu_hour_nano=row.gpu_hour_nano,
        )
        for row in connection.execute(query)
    )
