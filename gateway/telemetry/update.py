"""Telemetry: a stream of frames from an engine to each router."""

from array import array
from collections.abc import Iterable

import msgspec

from gateway.telemetry.usage import RecentUse, Reservation, UsageRecord

TELEMETRY_PATH = "/engine/telemetry"
"""Route on which an engine streams its telemetry to a router."""
FRAME_LIMIT = 1 << 28
"""Maximum bytes of a frame; anything longer is not telemetry."""
_LENGTH_BYTES = 4


class Load(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Load of an engine."""

    running: int
    """Sequences that have started."""
    waiting: int
    """Sequences that have not started."""
    pending_tokens: int
    """Prompt tokens to compute until all sequences decode."""
    free_tokens: int
    """Tokens of the KV cache that no running request uses; cached tokens count as free. If the
    engine does not report it: the capacity less the prompts of its requests."""
    yielding: int = 0
    """The waiting sequences that let new requests pass: those of large requests, but the first."""


class AdapterState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """State of an engine's adapters."""

    loaded: list[str] = []
    """Loaded adapters, least recently used first at the time of the report."""
    broken: dict[str, str] = {}
    """Adapters that could not be loaded, each with a reason for clients."""
    max_loaded: int = 0
    """Adapters that can be loaded at the same time."""
    load_s: float = 0.0
    """Seconds to load an adapter; 0 if none has been loaded yet."""


class Finished(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Statistics of a finished request; unknown values are 0."""

    id: int
    """Id in its `Dispatch`; 0 if it came without one."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens found in the KV cache."""
    completion_tokens: int
    prompt_bytes: int
    """Bytes of its canonical prompt; 0 if the tokens were not made from it."""
    queue_s: float
    """Seconds from its arrival at the engine to its start."""
    prefill_s: float
    """Seconds from its start to its first token."""
    decode_s: float
    """Seconds from its first token to its last."""
    running: float
    """Mean number of running sequences while it decoded, itself included."""
    is_aborted: bool = False
    """Whether it ended before its last token."""


class Update(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Frame of an engine's telemetry: the changes since the frame before.

    The first frame of a stream is a snapshot, which replaces all earlier state.
    """

    is_snapshot: bool = False
    added: bytes = b""
    """Prefix keys added to the KV cache."""
    added_tokens: bytes = b""
    """Prompt tokens up to the end of each added key, four bytes each."""
    dropped: bytes = b""
    """Prefix keys removed from the KV cache."""
    accepted: list[int] = []
    """Ids of requests that `load` and `added` include from this frame on."""
    finished: list[Finished] = []
    load: Load | None = None
    is_draining: bool = False
    stalled_s: float = 0.0
    """Seconds since the engine last made progress; 0 while it has no work."""
    adapters: AdapterState | None = None
    """State of its adapters, if it has changed."""
    reserved: list[Reservation] = []
    """Of the accepted requests, those of a project; in a snapshot, of all that run."""
    usage: list[UsageRecord] = []
    """Of the requests that have left the engine, those with an `Origin`."""
    held: dict[str, dict[str, int]] | None = None
    """Interactive requests that routers hold for the engine, by router and project, of the routers
    for which that has changed."""
    recent: list[RecentUse] = []
    """In a snapshot: the use of the last minute by requests that have ended."""


class UpdateReader:
    """Decodes a byte stream into frames: each a length of four bytes, big-endian, and msgpack."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = msgspec.msgpack.Decoder(Update)

    def feed(self, data: bytes) -> list[Update]:
        """Return the frames that `data` completes.

        Raises:
            ValueError: the stream is not telemetry.
        """
        buffer = self._rest + data
        frames, start = [], 0
        while len(buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES])
            if length > FRAME_LIMIT:
                raise ValueError(f"not telemetry: a frame of {length} bytes")
            end = start + _LENGTH_BYTES + length
            if end > len(buffer):
                break
            try:
                frames.append(self._decoder.decode(buffer[start + _LENGTH_BYTES : end]))
            except msgspec.MsgspecError as error:
                raise ValueError(f"not an update: {error}") from None
            start = end
        self._rest = buffer[start:]
        return frames


def encode_update(update: Update) -> bytes:
    """Encode a frame with its length."""
    body = _update_encoder.encode(update)
    return len(body).to_bytes(_LENGTH_BYTES) + body


def pack_keys(keys: Iterable[int]) -> bytes:
    """Encode prefix keys: eight bytes each, in the machine's byte order."""
    return array("Q", keys).tobytes()


def unpack_keys(data: bytes) -> "array[int]":
    """Decode prefix keys.

    Raises:
        ValueError: `data` is not a whole number of keys.
    """
    keys = array("Q")
    keys.frombytes(data)
    return keys


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """Encode token counts: four bytes each, in the machine's byte order."""
    return array("I", tokens).tobytes()


def unpack_tokens(data: bytes) -> "array[int]":
    """Decode token counts.

    Raises:
        ValueError: `data` is not a whole number of counts.
    """
    tokens = array("I")
    tokens.frombytes(data)
    return tokens


_update_encoder = msgspec.msgpack.Encoder()
