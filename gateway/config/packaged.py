"""Deployment files and the demo model that are installed with this package.

In the repository, `gateway/packaged` links to `configs` and `models`; the wheel has copies.
"""

from pathlib import Path

from gateway.errors.startup import ConfigError

PACKAGED = Path(__file__).resolve().parents[1] / "packaged"
"""Directory that paths in packaged files start from, such as `models/demo`."""
CONFIGS = PACKAGED / "configs"
SUFFIX = ".yaml"


def packaged_names() -> list[str]:
    """Names of the packaged deployment files, such as `dev`."""
    return sorted(file.stem for file in CONFIGS.glob(f"*{SUFFIX}"))


def deployment_path(file: Path) -> Path:
    """The deployment file that `file` means: a file here, or a packaged one by its name.

    Raises:
        ConfigError: there is neither.
    """
    names = packaged_names()
    try:
        if not file.is_dir() and file.exists():
            return file
    except OSError:
        return file  # whoever reads it says why that cannot be done
    if str(file) in names:
        return CONFIGS / f"{file}{SUFFIX}"
    packaged = ", ".join(names)
    raise ConfigError(
        f"{file}: there is no such file here, and no packaged one (these are {packaged})"
    )
