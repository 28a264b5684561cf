"""How figures over all rounds are shown in tables."""

from loadtests.measurement import Spread

WIDTH = 170
"""Columns of the tables, also where the terminal has fewer."""


def shown(figures: Spread, digits: int) -> str:
    """A figure over all rounds, in two lines."""
    median, least, most = (
        f"{f:,.{digits}f}" for f in (figures.median, figures.least, figures.most)
    )
    return f"{median}\n{least}-{most}"
