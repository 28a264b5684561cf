"""Batches: limits of input files, and how much of a model batches may take."""

from pydantic import Field

from gateway.config.strict import Strict


class BatchesConfig(Strict):
    """Limits of batches, and what they may take of the models' engines."""

    max_lines: int = Field(default=50_000, ge=1, le=10_000_000)
    """Most requests in an input file."""
    max_file_mb: float = Field(default=200.0, gt=0, le=100_000)
    """Maximum size of an input file, in megabytes (2**20 bytes)."""
    max_line_mb: float = Field(default=10.0, gt=0, le=512)
    """Maximum size of one line of it, in megabytes."""
    max_running: int = Field(default=8, ge=1, le=1000)
    """Batches that run at the same time; others wait. A project whose batch waits while none of its
    own runs gets a place of one that has several."""
    max_unfinished: int = Field(default=1000, ge=1, le=1_000_000)
    """Batches of a project that have not ended; to create more is refused."""
    guaranteed_share: float = Field(default=0.5, ge=0, le=1)
    """Share of an engine's slots that a batch may take, whoever else waits, once it would miss its
    completion window otherwise. 0: batches only ever get what is spare."""
    wakes: bool = True
    """Whether a batch may start an engine of a model that has none."""
    output_days: int = Field(default=30, ge=1, le=3650)
    """How long output and error files are kept, unless the batch says so itself."""
