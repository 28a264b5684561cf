"""Errors of the APIs that keep something for projects: files, uploads, batches, responses."""

from gateway import header_names
from gateway.errors.gateway_error import NO_RETRY, GatewayError
from gateway.errors.request import MAX_SHOWN_PATH, InvalidRequest


class StateDown(GatewayError):
    """`State`, which keeps files, batches and responses, cannot be reached; try again."""

    status = 503
    code = "state_unavailable"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to retry: it is restarted within seconds."""
        return [(header_names.RETRY_AFTER, b"5")]


class StateNotConfigured(InvalidRequest):
    """The gateway keeps nothing for projects: its application has no `state` in its `args`."""

    status = 404
    code = "state_not_configured"

    @classmethod
    def at(cls, method: str, path: str) -> "StateNotConfigured":
        """Make the error for a method and a path; a long path is cut."""
        return cls(
            f"{method} {path[:MAX_SHOWN_PATH]} needs storage, which this gateway does not have."
            " (HINT: Set `state` in the args of the gateway's application.)"
        )


class ObjectNotFound(InvalidRequest):
    """The project has no such file, upload, batch, response or conversation."""

    status = 404
    code = "object_not_found"

    @classmethod
    def of(cls, kind: str, object_id: str, param: str = "id") -> "ObjectNotFound":
        """Make the error for an id, in OpenAI's words; `kind`: such as `File`."""
        return cls(f"No such {kind} object: {object_id[:MAX_SHOWN_PATH]}", param)


class StorageFull(InvalidRequest):
    """The project's files would take more than `state.project_gb`, or a conversation is full."""

    code = "storage_quota_exceeded"


class TooManyBatches(InvalidRequest):
    """The project has as many batches that have not ended as `batches.max_unfinished` allows."""

    status = 429
    type = "rate_limit_error"
    code = "batch_limit_exceeded"

    @classmethod
    def of(cls, most: int) -> "TooManyBatches":
        """Make the error for the most batches that a project may have."""
        return cls(
            f"Your project has {most:,} batches that have not ended. Create more once some have,"
            " or put more requests into each."
        )

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Not to try again at once: a batch takes a while."""
        return [NO_RETRY]


class BatchNotCancellable(InvalidRequest):
    """The batch has ended, or its files are being written."""

    code = "batch_not_cancellable"

    @classmethod
    def of(cls, status: str) -> "BatchNotCancellable":
        """Make the error for the status of a batch."""
        return cls(f"Cannot cancel a batch with status '{status}'.", "batch_id")


class AnswerTooLarge(InvalidRequest):
    """The answer to a request of a batch is longer than such answers may be."""

    code = "answer_too_large"

    @classmethod
    def of(cls, most_mb: int) -> "AnswerTooLarge":
        """Make the error for the most megabytes."""
        return cls(f"The answer has more than {most_mb} MB. Ask for less in one request.")


class BatchNotEnded(InvalidRequest):
    """The batch has not ended: it has no results yet, and cannot be deleted."""

    code = "batch_not_ended"

    @classmethod
    def of(cls, batch_id: str) -> "BatchNotEnded":
        """Make the error for a batch."""
        return cls(f"The batch `{batch_id[:MAX_SHOWN_PATH]}` has not ended.", "batch_id")


class PreviousResponseNotFound(InvalidRequest):
    """The project has no response of the request's `previous_response_id`."""

    code = "previous_response_not_found"

    @classmethod
    def of(cls, response_id: str) -> "PreviousResponseNotFound":
        """Make the error for an id; a long one is cut."""
        shown = response_id[:MAX_SHOWN_PATH]
        return cls(f"Previous response with id '{shown}' not found.", "previous_response_id")


class NotStored(StateDown):
    """The answer was made, but could not be kept, and its client has asked for that."""

    code = "not_stored"
