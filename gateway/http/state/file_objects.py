"""Files as the API shows them, and what all routes that make files ask."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.store.files import BATCH_FILE_S, FileRow

MAX_NAME = 512
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""Purpose of a file that a client may make; others are the gateway's own output."""


class ExpiresAfter(BaseModel):
    """When a file expires, from its creation on."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3_600, le=2_592_000)]


class FileObject(BaseModel):
    """OpenAI's file, with the SHA-256 of its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None
    sha256: str

    @classmethod
    def of(cls, row: FileRow) -> "FileObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=row.created_s,
            expires_at=row.expires_s,
            filename=row.filename,
            purpose=row.purpose,
            sha256=row.sha256,
        )


def lifetime_s(purpose: str, expires_after: ExpiresAfter | None) -> int | None:
    """How long a file is kept; None: until it is deleted."""
    if expires_after is not None:
        return expires_after.seconds
    return BATCH_FILE_S if purpose == "batch" else None
