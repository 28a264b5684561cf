"""Columns as all tables have them."""

from sqlalchemy import BigInteger, Boolean, Column, Integer, String


def text(name: str, *, key: bool = False) -> Column[str]:
    """Text, empty if not given."""
    return Column(name, String, primary_key=key, nullable=False, server_default="")


def count(name: str) -> Column[int]:
    """A number that is 0 if not given."""
    return Column(name, BigInteger, nullable=False, server_default="0")


def flag(name: str) -> Column[bool]:
    """True or false."""
    return Column(name, Boolean, nullable=False)


def whole(name: str, *, key: bool = False, nullable: bool = False) -> Column[int]:
    """A number that must be given, unless it may be null."""
    return Column(name, BigInteger, primary_key=key, nullable=nullable, autoincrement=False)


def order() -> Column[int]:
    """Number of a row in order of creation: lists are in this order."""
    # SQLite numbers rows by itself only if the column is an INTEGER.
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def identifier() -> Column[str]:
    """The id by which clients know a row."""
    return Column("id", String, nullable=False, unique=True)
