"""State: where projects' files, batches and responses are kept. `args` of the gateway."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.config.accounts import (
    check_database,
    check_database_password,
    database_mistake,
    sqlite_path,
)
from gateway.config.batches import BatchesConfig
from gateway.config.references import Reference, check_references
from gateway.config.strict import Strict, field_error
from gateway.local_files import data_directory

DATABASE_FILE = "state.db"
FILES_FOLDER = "files"
MB = 2**20
GB = 2**30


class StateConfig(Strict):
    """Storage for what belongs to projects, which one process, `State`, keeps."""

    database: str | None = Field(default=None, repr=False)
    """URL of the database, as in `accounts`; it may be the same one. Default: that of `accounts`,
    or else an SQLite file in the data folder of the user who runs `State`
    (`~/.local/share/ray-llm-gateway`)."""
    files: str | None = Field(default=None, repr=False)
    """Where the bytes of files are: an absolute path (or one that begins with `~/`), or a URL that
    fsspec knows, such as `s3://bucket/folder`, for which its package must be installed. A folder
    must be there on every node that may run `State`. Default: the folder `files` beside an SQLite
    database, or in the user's data folder."""
    max_file_mb: float = Field(default=512, gt=0, le=8192)
    """Maximum size of a file, in megabytes (2**20 bytes)."""
    max_upload_mb: float = Field(default=8192, gt=0)
    """Maximum size of a file that is uploaded in parts."""
    project_gb: float = Field(default=100, gt=0)
    """Maximum size of all files and parts of uploads of a project, in gigabytes (2**30 bytes)."""

    batches: BatchesConfig = BatchesConfig()
    """Limits of batches, and what they may take of the models' engines."""

    @field_validator("database")
    @classmethod
    def _is_url(cls, database: str | None) -> str | None:
        if database is not None and not Reference.of(database):
            check_database(database)
        return database

    @field_validator("files")
    @classmethod
    def _is_place(cls, files: str | None) -> str | None:
        if files is not None and not Reference.of(files):
            check_files(files)
        return files

    @model_validator(mode="after")
    def _has_valid_references(self, info: ValidationInfo) -> Self:
        given = {"database": self.database, "files": self.files}
        check_references({name: text for name, text in given.items() if text}, info)
        if not info.context and self.database:
            check_database_password(self.database)
        if not info.context and self.files and urlsplit(self.files).password:
            raise field_error("holds a password: write it as `env:NAME` or `file:PATH`", "files")
        return self

    @property
    def database_mistake(self) -> str:
        """What keeps this machine from using the database; empty if nothing does."""
        return "" if self.database is None else database_mistake(self.database)

    @property
    def files_mistake(self) -> str:
        """What keeps this machine from using the folder of files; empty if nothing does."""
        path = None if self.files is None else files_path(self.files)
        if path is None or not path.exists():
            return ""
        if not path.is_dir():
            return f"{path} is not a folder"
        return "" if os.access(path, os.W_OK) else f"{path} cannot be written by this user"

    @property
    def max_file_bytes(self) -> int:
        """Maximum size of a file, in bytes."""
        return int(self.max_file_mb * MB)

    @property
    def max_upload_bytes(self) -> int:
        """Maximum size of a file that is uploaded in parts, in bytes."""
        return int(self.max_upload_mb * MB)

    @property
    def project_bytes(self) -> int:
        """Maximum size of all files of a project, in bytes."""
        return int(self.project_gb * GB)

    def placed(self, accounts_database: str | None, environ: Mapping[str, str]) -> "StateConfig":
        """The config with the places that it leaves open; `accounts_database`: if there is one."""
        folder = data_directory(environ)
        database = self.database or accounts_database or f"sqlite:///{folder / DATABASE_FILE}"
        path = sqlite_path(database)
        files = self.files or str((folder if path is None else path.parent) / FILES_FOLDER)
        return self.model_copy(update={"database": database, "files": files})


def check_files(files: str) -> None:
    """Check the place of files, also one that a reference stands for.

    Raises:
        ValueError: it is neither an absolute path nor a URL.
    """
    path = files_path(files)
    if path is not None and not path.is_absolute():
        raise ValueError("must be an absolute path, or a URL such as `s3://bucket/folder`")


def files_path(files: str) -> Path | None:
    """The folder that a place of files is; None for another kind of storage, or a reference."""
    if Reference.of(files) or ("://" in files and not files.startswith("file://")):
        return None
    path = Path(files.removeprefix("file://"))
    return path.expanduser() if path.parts[:1] == ("~",) else path
