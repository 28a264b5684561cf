"""Where and when a comparison was made."""

import datetime as dt
import platform

import msgspec
import psutil


class Machine(msgspec.Struct, frozen=True):
    """What figures depend on beside the code."""

    cpus: int
    memory_gib: int
    system: str
    python: str
    date: str
    """UTC, when it began."""

    @classmethod
    def here(cls) -> "Machine":
        """This one, now."""
        return cls(
            cpus=psutil.cpu_count() or 0,
            memory_gib=round(psutil.virtual_memory().total / 2**30),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            date=dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        )

    def __str__(self) -> str:
        """All of it in a line."""
        return (
            f"{self.cpus} CPUs, {self.memory_gib} GiB, {self.system}, Python {self.python}"
            f", {self.date}"
        )
