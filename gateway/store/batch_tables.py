"""Tables of batches: each batch, and the parts of its results."""

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, String, Table

from gateway.store.columns import count, identifier, order, text, whole
from gateway.store.tables import metadata


def _moment(name: str) -> Column[int]:
    """Unix seconds of a change of the status; null before that."""
    return whole(name, nullable=True)


MOMENTS = (
    *("in_progress_s", "finalizing_s", "completed_s", "failed_s"),
    *("expired_s", "cancelling_s", "cancelled_s"),
)

batches = Table(
    "batches",
    metadata,
    order(),
    identifier(),
    Column("project_id", String, nullable=False),
    text("status"),
    text("endpoint"),
    text("model"),
    text("input_file_id"),
    text("input_key"),
    text("completion_window"),
    whole("created_s"),
    whole("expires_s"),
    *(_moment(name) for name in MOMENTS),
    text("output_file_id"),
    text("error_file_id"),
    Column("output_lifetime_s", BigInteger),
    Column("metadata", JSON),
    Column("errors", JSON),
    text("plan_key"),
    count("total"),
    count("lines"),
    count("completed"),
    count("failed"),
    count("unanswered"),
    count("input_tokens"),
    count("cached_tokens"),
    count("output_tokens"),
    count("reasoning_tokens"),
    text("worker"),
    count("epoch"),
    count("lease_until_s"),
    Column("deleted_s", BigInteger),
    Index(None, "project_id", "seq"),
    Index(None, "status", "lease_until_s"),
)
"""Batches. `total` are requests, `lines` the number of the last line with one, and
`unanswered` those of the `failed` that have not run. `epoch` grows each
time a worker takes the batch over: what an earlier worker writes from then on is refused."""

batch_parts = Table(
    "batch_parts",
    metadata,
    text("key", key=True),
    Column("batch_id", String, nullable=False),
    whole("number"),
    text("kind"),
    Column("lines", LargeBinary, nullable=False),
    whole("bytes"),
    Index(None, "batch_id", "number"),
)
"""Files with results, by their `key` in the file storage. A line whose number is in `lines` of one
is done, and in no other: the outputs of a batch are its parts, one behind the other."""
