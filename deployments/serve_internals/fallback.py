"""Warnings for internals that this version of Ray, Serve or uvicorn does not have."""

import logging
from functools import cache

GONE = (ImportError, AttributeError, KeyError, TypeError)
"""Errors that a renamed or removed internal raises: no such module, attribute, key or parameter."""

logger = logging.getLogger(__name__)


@cache  # a status is read every two seconds: one warning a process is enough
def warn_once(what: str, consequence: str, error: str) -> None:
    """Log, once in this process, that `what` is not available and what that costs."""
    logger.warning(
        "%s is not available in this version of Ray or uvicorn (%s): %s. Install a version"
        " that this gateway supports (pyproject.toml).",
        *(what, error, consequence),
    )
