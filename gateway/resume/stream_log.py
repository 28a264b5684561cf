"""What a client has been sent of a stream, so that another engine can carry it on."""

import zlib

from gateway.resume.transcript import Transcript

RAW_LIMIT = 64 * 1024
"""Bytes of events that are kept as they are."""
FASTEST = 1
"""Events are so much alike that zlib's quickest way makes them as small as their text."""


class StreamLog:
    """Keeps what was sent. Nothing is read before it is needed.

    Adding copies; every `RAW_LIMIT` bytes are packed, in 60 µs. Holds as much unpacked, and
    otherwise about the bytes of the text.
    """

    __slots__ = ("_packed", "_raw", "_transcript")

    def __init__(self) -> None:
        self._raw = bytearray()
        self._packed: list[bytes] = []
        self._transcript = Transcript()

    def add(self, events: bytes) -> None:
        """Note a run of whole events."""
        raw = self._raw
        raw += events
        if len(raw) > RAW_LIMIT:
            self._packed.append(zlib.compress(raw, FASTEST))
            raw.clear()

    @property
    def transcript(self) -> Transcript:
        """All that was sent, read."""
        for packed in self._packed:
            self._transcript.read(zlib.decompress(packed))
        self._packed.clear()
        self._transcript.read(bytes(self._raw))
        self._raw.clear()
        return self._transcript
