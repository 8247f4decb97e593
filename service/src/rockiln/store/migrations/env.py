"""Runs migrations on the connection that ``store.database.migrate`` opened."""

from alembic import context

from rockiln.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
