"""What the gateway keeps: tables of Accounts and of State, and the bytes of projects' files.

The only package that imports SQLAlchemy and alembic (SQLite in WAL mode, or PostgreSQL), and fsspec.
"""
