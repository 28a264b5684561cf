"""Warnings for internals that this version of Ray, Serve or uvicorn does not have."""

import logging
from functools import cache

GONE = (ImportError, AttributeError, KeyError, TypeError, ValueError)
"""Errors that a changed internal raises: no such module, attribute, key, parameter or signature."""

logger = logging.getLogger(__name__)


@cache  # a status is read every two seconds: one warning per process is enough
def warn_once(what: str, consequence: str, error: str) -> None:
    """Log, once in this process, that `what` is not available, and the consequence."""
    logger.warning(
        "%s is not available in this version of Ray or uvicorn (%s): %s. Install a version"
        " that this gateway supports (pyproject.toml).",
        *(what, error, consequence),
    )
