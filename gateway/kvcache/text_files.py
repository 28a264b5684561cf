"""Files in the input of OpenAI's Responses API, which engines render as texts.

Source: `deployments/engines/vllm/api/responses_input.py`, which writes these texts.
"""

import base64
from typing import NamedTuple

import msgspec

from gateway.kvcache.json_text import decode_string, first_byte
from gateway.request.raw_fields import ABSENT

FILE = "input_file"
_MOST_HEAD = 256
"""Characters of a data URL before its data."""


class _File(msgspec.Struct):
    filename: str | None = None
    file_data: msgspec.Raw = ABSENT


_file_decoder = msgspec.json.Decoder(_File)


class FileText(NamedTuple):
    """Text of a file, or its beginning, and the bytes that were left out."""

    text: str
    skipped: int


def file_text(raw: msgspec.Raw, size: int) -> FileText | None:
    """What engines render in place of a file, with at least `size` bytes of a longer text.

    None for a file that they refuse.
    """
    try:
        file = _file_decoder.decode(raw)
    except msgspec.ValidationError:
        return None
    if first_byte(file.file_data) != b'"':
        return None
    limit = _MOST_HEAD + 4 * (size // 3 + 1)
    skipped = max(0, len(file.file_data) - limit) * 3 // 4
    encoded = decode_string(file.file_data, limit).rpartition(",")[2]
    if skipped:
        encoded = encoded[: len(encoded) // 4 * 4]
    try:
        data = base64.b64decode(encoded, validate=True)
        text = data.decode(errors="ignore" if skipped else "strict")
    except ValueError:
        return None
    return FileText(f"{file.filename}:\n{text}" if file.filename else text, skipped)
