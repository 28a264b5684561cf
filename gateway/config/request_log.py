"""Request log: whether, where and how much."""

from pathlib import Path

from pydantic import Field, field_validator

from gateway.config.strict import Strict


class RequestLogOptions(Strict):
    """Request log: a line of JSON for each request, without anything of its prompt."""

    enabled: bool = True
    """Whether it is written."""
    folder: str | None = None
    """Folder of its files, an absolute path; each router has its own file
    `requests_ROUTER.jsonl`. Default: that of Serve's log files."""
    max_file_mb: float = Field(default=100, gt=0)
    """Size at which a file is renamed to `requests_ROUTER.jsonl.1`, and a new one begins, in
    megabytes (2**20 bytes). A line takes about 700 bytes."""
    max_files: int = Field(default=5, ge=1)
    """Files that each router keeps; the oldest one is deleted."""

    @field_validator("folder")
    @classmethod
    def _is_absolute(cls, folder: str | None) -> str | None:
        if folder is not None and not Path(folder).is_absolute():
            raise ValueError(f"must be an absolute path, and {folder!r} is none")
        return folder
