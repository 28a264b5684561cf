"""Folder of Serve's log files on this node, where the request log is, too."""

import tempfile
from pathlib import Path

from deployments.serve_internals.fallback import GONE, warn_once


def serve_log_folder() -> Path:
    """Folder of Serve's log files; a temporary one if this version of Ray does not tell."""
    try:
        from ray.serve._private.logging_utils import get_serve_logs_dir

        return Path(get_serve_logs_dir())
    except GONE as error:
        folder = Path(tempfile.gettempdir()) / "ray-llm-gateway"
        warn_once("the folder of Serve's log files", f"the request log is in {folder}", repr(error))
        return folder
