"""Spend alerts in the database: thresholds of projects that refuse nothing."""

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from gateway.ledger.calendar import Interval
from gateway.store.changes import Change, new_id
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.projects import active_project, project
from gateway.store.rows import found_row
from gateway.store.tables import spend_alerts


class SpendAlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a project may spend in a period before people are told."""

    id: str
    project_id: str
    interval: Interval
    amount_nano: int
    recipients: tuple[str, ...]
    subject_prefix: str | None = None
    created_s: int


def create_spend_alert(
    change: Change, project_id: str, values: Mapping[str, object]
) -> SpendAlertRow:
    """Create an alert of a project."""
    active_project(change.connection, project_id)
    place = {"id": new_id("alert_"), "project_id": project_id, "created_s": change.now_s}
    row = msgspec.convert({**values, **place}, SpendAlertRow)
    change.connection.execute(spend_alerts.insert().values(**msgspec.structs.asdict(row)))
    change.record_setting(project_id, "spend_alert", None, row)
    return row


def spend_alert(connection: sa.Connection, project_id: str, alert_id: str) -> SpendAlertRow:
    """An alert of this project.

    Raises:
        NotFound: the project has none with this id.
    """
    project(connection, project_id)
    return found_row(
        connection, spend_alerts, SpendAlertRow, "spend alert", alert_id, *_of(project_id)
    )


def list_spend_alerts(
    connection: sa.Connection, project_id: str, cursor: Cursor
) -> Page[SpendAlertRow]:
    """A page of a project's alerts."""
    project(connection, project_id)
    of_project, is_there = _of(project_id)
    return page_of(connection, spend_alerts, cursor, SpendAlertRow, is_there, within=[of_project])


def update_spend_alert(
    change: Change, project_id: str, alert_id: str, values: Mapping[str, object]
) -> SpendAlertRow:
    """Change an alert."""
    active_project(change.connection, project_id)
    before = spend_alert(change.connection, project_id, alert_id)
    after = msgspec.structs.replace(before, **values)
    if after != before:
        update = spend_alerts.update().where(spend_alerts.c.id == alert_id)
        change.connection.execute(update.values(**values))
        change.record_setting(project_id, "spend_alert", before, after)
    return after


def delete_spend_alert(change: Change, project_id: str, alert_id: str) -> None:
    """Delete an alert."""
    before = spend_alert(change.connection, project_id, alert_id)
    update = spend_alerts.update().where(spend_alerts.c.id == alert_id)
    change.connection.execute(update.values(deleted_s=change.now_s))
    change.record_setting(project_id, "spend_alert", before, None)


def _of(project_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return spend_alerts.c.project_id == project_id, spend_alerts.c.deleted_s.is_(None)
