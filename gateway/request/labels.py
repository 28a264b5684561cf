"""OpenAI's `metadata`: names and values that clients attach to stored objects."""

from collections.abc import Mapping

import msgspec

from gateway.errors.request import InvalidRequest

MAX_PAIRS, MAX_NAME, MAX_VALUE = 16, 64, 512
"""OpenAI's limits: pairs, and characters of their names and values."""
MAX_BYTES = 256 * 1024
"""JSON of that many pairs, however it is escaped, is shorter."""
PARAM = "metadata"
_labels = msgspec.json.Decoder(dict[str, str] | None)


def read_labels(raw: msgspec.Raw) -> dict[str, str]:
    """The `metadata` of a request; empty where it has none.

    Raises:
        InvalidRequest: it is no object of texts, or there are too many pairs, or too long ones.
    """
    if not raw:
        return {}
    if len(bytes(raw)) > MAX_BYTES:
        raise _beyond_limits()
    try:
        labels = _labels.decode(raw) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest("`metadata` must be an object of strings.", PARAM) from None
    check_labels(labels)
    return labels


def check_labels(labels: Mapping[str, str]) -> None:
    """Check that they are such as may be stored.

    Raises:
        InvalidRequest: there are too many pairs, or too long ones.
    """
    if len(labels) > MAX_PAIRS or not all(
        len(name) <= MAX_NAME and len(value) <= MAX_VALUE and "\0" not in name + value
        for name, value in labels.items()
    ):
        raise _beyond_limits()


def _beyond_limits() -> InvalidRequest:
    return InvalidRequest(
        f"`metadata` may have at most {MAX_PAIRS} pairs, with names of at most {MAX_NAME}"
        f" characters and values of at most {MAX_VALUE}, without NUL.",
        PARAM,
    )
