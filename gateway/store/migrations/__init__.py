"""Environment and steps of alembic."""
