"""What an engine replica and the routers tell each other: the wire format."""

import binascii

import msgspec

from gateway import header_names


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while an engine runs."""

    engine: str
    """`vllm` or `sim`."""
    routes: tuple[str, ...]
    """Paths the engine answers with POST, e.g. `/v1/chat/completions`."""
    kv_tokens: int
    """Tokens its KV cache has room for; 0 where it has none (pooling models)."""
    block_size: int
    """Tokens in one KV block; 0 where it has none."""
    max_sequences: int
    """Sequences it runs at the same time."""
    max_model_len: int
    """Tokens of prompt and answer together."""
    takes_priority: bool = False
    """Whether waiting requests start in the order of their priority."""
    step_tokens: int = 0
    """Tokens that one step reads and makes at most; 0: unknown."""
    adapters: tuple[str, ...] = ()
    """Names that it can answer as beside its model's, loaded or not."""


class ReplicaMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica publishes through Serve's `record_replica_metadata()`."""

    model: str
    host: str
    port: int
    key: str
    """The bearer token without which the replica's HTTP server answers 401."""
    facts: EngineFacts
    start_s: float = 0.0
    """What its start took, in seconds; 0: unknown."""


TELEMETRY_PATH = "/engine/telemetry"
"""Where an engine tells its routers what goes on in it, for as long as they listen."""
KEY_SIZE = 8
"""Bytes of a prefix key."""
DEMAND_PATH = "/engine/demand"
"""Where routers tell an engine, by PUT, what they hold back for it: a `Demand`, in JSON."""
DISPATCH = header_names.DISPATCH
"""The header in which a router sends an engine the `Dispatch` of a request."""


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a router tells an engine about a request, beside the request itself."""

    id: int
    """64 random bits, by which both know the request; a client's `x-request-id` may be anything."""
    keys: bytes = b""
    """The prompt's prefix keys, eight bytes each in the machines' own order."""
    key_bytes: int = 0
    """Bytes of canonical prompt that a key stands for."""
    prompt_bytes: int = 0
    """Bytes of the whole canonical prompt."""
    seed: int = 0
    """What stands before the first key."""
    reply_start: bytes | None = None
    """Canonical text after the last key, up to where the reply follows; None if it cannot."""
    is_token_ids: bool = False
    """The canonical prompt is token ids, four bytes each, and not text."""
    has_media: bool = False
    """More of the prompt than its canonical text becomes tokens."""
    priority: int = 0
    """Lower starts sooner, in milliseconds; for engines that take it."""
    answered_bytes: int = 0
    """Bytes at the prompt's end that are the beginning of the answer, of a stream that is carried
    on; four for each token id."""
    is_batch: bool = False
    """It may wait for all that are not."""
    model: str = ""
    """The model or adapter that answers, where the body's `model` is another name for it."""

    def encode(self) -> bytes:
        """As the value of the header."""
        return binascii.b2a_base64(_dispatch_encoder.encode(self), newline=False)

    @classmethod
    def decode(cls, value: bytes) -> "Dispatch":
        """From the value of the header.

        Raises:
            ValueError: it is none.
        """
        try:
            dispatch = _dispatch_decoder.decode(binascii.a2b_base64(value))
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a dispatch: {error}") from None
        if len(dispatch.keys) % KEY_SIZE:
            raise ValueError("not a dispatch: a key is cut off")
        return dispatch


_dispatch_encoder = msgspec.msgpack.Encoder()
_dispatch_decoder = msgspec.msgpack.Decoder(Dispatch)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one router holds back for one engine, which has no room for it now."""

    router: str = ""
    """What tells the routers apart."""
    requests: int = 0
    """Interactive sequences."""
    prefill_tokens: float = 0.0
    """New tokens of their prompts, estimated."""
    batch_requests: int = 0
    """Batch sequences."""


class Load(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How busy an engine is."""

    running: int
    """Sequences that have started."""
    waiting: int
    """Sequences that have not."""
    pending_tokens: int
    """Prompt tokens that have to be computed before all of them decode."""
    free_tokens: int
    """Tokens of the KV cache that no running request uses; cached ones are free. Where the engine
    does not say: those beside the prompts of the requests it has."""


class AdapterState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How an engine's adapters stand."""

    loaded: list[str] = []
    """Least recently used first, as it was when this was told."""
    broken: dict[str, str] = {}
    """Those that could not be loaded, and why, in words for clients."""
    most: int = 0
    """How many are loaded at a time."""
    load_s: float = 0.0
    """What loading one takes; 0: none has been loaded yet."""


class Finished(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one request came to; what is not known is 0."""

    id: int
    """Of its `Dispatch`; 0 where it came without one."""
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, found in the KV cache."""
    completion_tokens: int
    prompt_bytes: int
    """Of its canonical prompt; 0 where that is not what the tokens were made of."""
    queue_s: float
    """From its arrival at the engine to its start."""
    prefill_s: float
    """From its start to its first token."""
    decode_s: float
    """From its first token to its last."""
    running: float
    """Sequences that ran beside it while it decoded, itself included; their mean over time."""
    is_aborted: bool = False
    """It ended before its last token."""


class Update(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One frame of an engine's telemetry: what has changed since the frame before.

    The first frame of a stream is a snapshot, which replaces all that was known.
    """

    is_snapshot: bool = False
    added: bytes = b""
    """Prefix keys that the KV cache holds from now on."""
    added_tokens: bytes = b""
    """For each added key, the prompt tokens up to its end: four bytes each."""
    dropped: bytes = b""
    """Prefix keys it no longer holds."""
    accepted: list[int] = []
    """Ids of requests that `load` and `added` take into account from this frame on."""
    finished: list[Finished] = []
    load: Load | None = None
    is_draining: bool = False
    stalled_s: float = 0.0
    """Since the engine last got on with its work, while it has some; 0 while it has none."""
    adapters: AdapterState | None = None
    """How its adapters stand, where that has changed."""


class UpdateReader:
    """Takes frames off a byte stream: each is its length in four bytes, big-endian, and msgpack."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = msgspec.msgpack.Decoder(Update)

    def feed(self, data: bytes) -> list[Update]:
        """Return the frames that `data` completes.

        Raises:
            ValueError: the stream is no telemetry.
        """
        buffer = self._rest + data
        frames, start = [], 0
        while len(buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES])
            if length > FRAME_LIMIT:
                raise ValueError(f"a frame of {length} bytes")
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
    """One frame, ready to send."""
    body = _update_encoder.encode(update)
    return len(body).to_bytes(_LENGTH_BYTES) + body


_update_encoder = msgspec.msgpack.Encoder()
_LENGTH_BYTES = 4
FRAME_LIMIT = 1 << 28
"""Bytes of a frame that no engine would send more than."""
