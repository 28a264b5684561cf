"""Alembic's environment: it runs the steps in the transaction that `migrate` is called in."""

from alembic import context

from gateway.store import batch_tables, file_tables  # noqa: F401 - part of the metadata
from gateway.store.migration import CONNECTION
from gateway.store.tables import metadata

context.configure(
    connection=context.config.attributes[CONNECTION],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()
