"""Tables of batches: each batch, and the parts of its results."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, String, Table

from gateway.store.tables import metadata


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, String, primary_key=key, nullable=False, server_default="")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _moment(name: str) -> Column[int]:
    """Unix seconds of a change of the status; null before that."""
    return Column(name, BigInteger)


MOMENTS = (
    *("in_progress_s", "finalizing_s", "completed_s", "failed_s"),
    *("expired_s", "cancelling_s", "cancelled_s"),
)

batches = Table(
    "batches",
    metadata,
    # SQLite numbers rows by itself only if the column is an INTEGER.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("project_id", String, nullable=False),
    _text("status"),
    _text("endpoint"),
    _text("model"),
    _text("input_file_id"),
    _text("input_key"),
    _text("completion_window"),
    Column("created_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    *(_moment(name) for name in MOMENTS),
    _text("output_file_id"),
    _text("error_file_id"),
    Column("output_lifetime_s", BigInteger),
    Column("metadata", JSON),
    Column("errors", JSON),
    _text("plan_key"),
    _count("total"),
    _count("lines"),
    _count("completed"),
    _count("failed"),
    _count("unanswered"),
    _count("input_tokens"),
    _count("cached_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    _text("worker"),
    _count("epoch"),
    _count("lease_until_s"),
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
    _text("key", key=True),
    Column("batch_id", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    _text("kind"),
    Column("lines", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index(None, "batch_id", "number"),
)
"""Files with results, by their `key` in the file storage. A line whose number is in `lines` of one
is done, and in no other: the outputs of a batch are its parts, one behind the other."""
