"""Responses that are made in the background: who makes them, and their events."""

from collections.abc import Sequence

import sqlalchemy as sa

from gateway.request.response_object import FAILED, ended_body, ended_event
from gateway.store.response_tables import response_events, responses
from gateway.store.responses import (
    IN_PROGRESS,
    UNFINISHED,
    ResponseRow,
    finish_response,
)
from gateway.store.rows import row_of

LEASE_S = 20
"""How long a response lives without a word of its router, which could have been taken."""
MAX_EVENTS = 500
"""Events that are read at a time."""
Event = tuple[int, bytes]
"""The number of an event, and its data."""


def add_events(
    connection: sa.Connection,
    project: str,
    response_id: str,
    events: Sequence[Event],
    lease_s: int,
) -> bool:
    """Keep events of a response, and renew its lease; False if nobody wants it any more."""
    mine = (responses.c.project_id == project) & (responses.c.id == response_id)
    wanted = connection.execute(
        responses.update()
        .where(mine, responses.c.status.in_(UNFINISHED), ~responses.c.is_deleted)
        .values(lease_s=lease_s, **({"status": IN_PROGRESS} if events else {}))
    )
    if not wanted.rowcount:
        return False
    # A router that has not heard the answer sends them again.
    last = last_number(connection, project, response_id) if events else -1
    if new := [event for event in events if event[0] > last]:
        values = [
            {"project_id": project, "response_id": response_id, "number": number, "data": data}
            for number, data in new
        ]
        connection.execute(response_events.insert(), values)
    return True


def events_after(
    connection: sa.Connection, project: str, response_id: str, number: int
) -> list[Event]:
    """Some events of a response after the one with this number, in order."""
    query = (
        sa.select(response_events.c.number, response_events.c.data)
        .where(
            response_events.c.project_id == project,
            response_events.c.response_id == response_id,
            response_events.c.number > number,
        )
        .order_by(response_events.c.number)
        .limit(MAX_EVENTS)
    )
    return [(row.number, row.data) for row in connection.execute(query)]


def last_number(connection: sa.Connection, project: str, response_id: str) -> int:
    """Number of the last event; -1 without any."""
    query = sa.select(sa.func.max(response_events.c.number)).where(
        response_events.c.project_id == project, response_events.c.response_id == response_id
    )
    found = connection.execute(query).scalar()
    return -1 if found is None else int(found)


def end_response(
    connection: sa.Connection, project: str, row: ResponseRow, status: str
) -> ResponseRow:
    """End a response that is being made, without more of an answer: cancelled, or failed."""
    body = ended_body(row.body, status)
    if finish_response(connection, project, row.id, status, body, ()):
        number = last_number(connection, project, row.id) + 1
        data = ended_event(number, status, body)
        connection.execute(
            response_events.insert().values(
                project_id=project, response_id=row.id, number=number, data=data
            )
        )
    query = sa.select(responses).where(responses.c.project_id == project, responses.c.id == row.id)
    return row_of(connection.execute(query).one(), ResponseRow)


def end_abandoned(connection: sa.Connection, now_s: int, most: int) -> int:
    """End responses whose router has not been heard of for too long; return how many."""
    query = (
        sa.select(responses)
        .where(responses.c.status.in_(UNFINISHED), responses.c.lease_s <= now_s)
        .limit(most)
    )
    rows = connection.execute(query).all()
    for row in rows:
        end_response(connection, row.project_id, row_of(row, ResponseRow), FAILED)
    return len(rows)
