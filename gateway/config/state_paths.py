"""Paths of the routes that State answers, because they keep something for projects."""

from gateway.config.route_paths import ROUTES

STATE_PATHS = (
    *("/v1/files", "/v1/uploads", "/v1/batches", "/v1/conversations"),
    "/v1/messages/batches",
)
"""Paths that State answers, with all below them."""
BATCH_CREATIONS = frozenset({"/v1/batches", "/v1/messages/batches"})
"""Paths that create a batch, if they are asked with `POST`."""
BELOW_INFERENCE = ("/v1/chat/completions/", "/v1/responses/")
"""Beginnings of the paths of what an inference route has stored."""
STORED_CHATS = "/v1/chat/completions"
"""An inference route that lists what it has stored, if it is asked with one of `LISTS`."""
LISTS = frozenset({"GET", "HEAD"})


def is_state_path(path: str) -> bool:
    """Whether State answers requests for a path that is no inference route."""
    if path.startswith(BELOW_INFERENCE):
        return path not in ROUTES and path not in BELOW_INFERENCE
    return path.startswith(STATE_PATHS) and any(
        path == each or path.startswith(f"{each}/") for each in STATE_PATHS
    )
