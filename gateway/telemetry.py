"""Wire format between routers and engine replicas: dispatch, demand and telemetry."""

import binascii
from array import array
from collections.abc import Iterable
from typing import Literal

import msgspec

from gateway import header_names


class PromptLayout(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine's chat template renders a conversation, as far as prefix keys depend on it.

    The defaults are those of an unknown template: whatever some template renders counts.
    """

    has_tools_first: bool = False
    """The tools come before the system message, and not after it."""
    has_tools_always: bool = True
    """Tools are rendered even if the client chooses that none is called."""
    separator: str = ""
    """Text between the text parts of one message."""
    developers: Literal["system", "joined", "own"] = "system"
    """A developer's message is rendered like a system message, or in its own way. `joined`: if
    there is one, all system messages are joined."""
    has_names: bool = True
    """Names of speakers are rendered."""
    has_call_ids: bool = True
    """Ids of tool calls are rendered."""
    has_hermes_calls: bool = False
    """Tool calls are rendered as Hermes models write them, `<tool_call>{...}</tool_call>`."""
    reasoning: Literal["always", "until_user", "never"] = "always"
    """Whether earlier reasoning is rendered; perhaps only as long as the user has not answered."""
    omits_empty_system: bool = False
    """A first system message without a text leaves no trace."""
    joins_system: bool = False
    """System messages within a conversation are joined to the first one."""
    arguments: tuple[str, ...] | None = None
    """Arguments that the template reads; None if they are not known."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of an engine that do not change while it runs."""

    engine: str
    """`vllm` or `sim`."""
    routes: tuple[str, ...]
    """POST routes that the engine serves, e.g. `/v1/chat/completions`."""
    kv_tokens: int
    """Capacity of the KV cache in tokens; 0 if there is none (pooling models)."""
    block_size: int
    """Tokens per KV cache block; 0 without a KV cache."""
    max_sequences: int
    """Sequences that it runs at the same time."""
    max_model_len: int
    """Tokens of prompt and answer together."""
    supports_priority: bool = False
    """Whether waiting requests start in order of their priority."""
    step_tokens: int = 0
    """Maximum tokens per step, prompt and output together; 0 if unknown."""
    adapters: tuple[str, ...] = ()
    """Names of its adapters, loaded or not."""
    layout: PromptLayout = PromptLayout()
    """How it renders conversations."""
    devices: int = 1
    """Devices that it computes on: tensor times pipeline parallelism."""
    model: str = ""
    """Name of its model."""
    has_private_caches: bool = True
    """Whether requests of different scopes share none of its caches."""


class ReplicaMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata that a replica publishes through Serve's `record_replica_metadata()`."""

    model: str
    host: str
    port: int
    key: str
    """Bearer token that the replica's HTTP server requires."""
    facts: EngineFacts
    start_s: float = 0.0
    """Seconds that its start took; 0 if unknown."""


TELEMETRY_PATH = "/engine/telemetry"
"""Route on which an engine streams its telemetry to a router."""
KEY_SIZE = 8
"""Bytes per prefix key."""
DEMAND_PATH = "/engine/demand"
"""Route to which routers PUT the demand that they hold for an engine: a `Demand`, in JSON."""
USAGE_PATH = "/engine/usage"
"""Route on which Accounts gets a `UsagePage`, in msgpack, and confirms earlier records:
`?epoch=E&confirmed=N` confirms all up to number N. The answer waits until there is a record."""
DISPATCH = header_names.DISPATCH
"""Request header with the `Dispatch` of a request."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Whose request it is, as engines report it to routers and to the ledger."""

    request_id: str = ""
    """The client's `x-request-id`, or the one that the gateway made."""
    attempt: int = 1
    """Number of the attempt to answer the request, from 1."""
    project: str = ""
    """Id of the project; empty without authentication."""
    key: str = ""
    """Id of the API key."""
    user: str = ""
    tier: str = "default"
    """Tier served: `flex`, `default` or `priority`."""
    endpoint: str = ""
    """Path that the client asked for."""
    is_copy: bool = False
    """Shadow traffic, which no client pays for."""
    is_continuation: bool = False
    """The rest of a stream that has begun elsewhere: its prompt has been charged already."""
    reserved_tokens: int = 0
    """Tokens that the router expects to count against limits of tokens."""
    reserved_s: float = 0.0
    """Seconds of the engine's time that the router expects it to take."""
    cache_scope: str = ""
    """Scope of the KV cache whose prefixes the request shares; empty: shared by all."""
    reserved_nano: int = 0
    """Billionths of the currency's unit that the router expects it to cost."""
    model: str = ""
    """Model or adapter that answers."""
    weight: float = 1.0
    """Share of a busy model's time that its project has, relative to others."""


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Metadata of a request, sent from the router to the engine with the request."""

    id: int
    """64 random bits that identify the request; a client's `x-request-id` may be anything."""
    keys: bytes = b""
    """Prefix keys of the prompt, eight bytes each in native byte order."""
    key_bytes: int = 0
    """Bytes of canonical prompt per key."""
    prompt_bytes: int = 0
    """Bytes of the whole canonical prompt."""
    seed: int = 0
    """Hash of what precedes the first key."""
    reply_start: bytes | None = None
    """Canonical text between the last key and the reply; None if no reply can follow."""
    is_token_ids: bool = False
    """Whether the canonical prompt is token ids, four bytes each, instead of text."""
    has_media: bool = False
    """Whether the prompt has images or audio, which become tokens but are not canonical text."""
    priority: int = 0
    """Lower values start sooner, in milliseconds; for engines that support it."""
    answered_bytes: int = 0
    """Bytes at the end of the prompt that are the beginning of the answer, for a resumed stream;
    four for each token id."""
    is_batch: bool = False
    """Whether it may wait for all interactive requests."""
    model: str = ""
    """Model or adapter that answers, if the body's `model` is another name for it."""
    tenant: tuple[bytes, bytes] = (b"", b"")
    """The client's address and key, as a `Tenant`."""
    origin: Origin | None = None
    """Whose request it is; None where neither limits nor the ledger need to know."""

    def encode(self) -> bytes:
        """Encode as the value of the header."""
        return binascii.b2a_base64(_dispatch_encoder.encode(self), newline=False)

    @classmethod
    def decode(cls, value: bytes) -> "Dispatch":
        """Decode the value of the header.

        Raises:
            ValueError: the value is not a dispatch.
        """
        try:
            dispatch = _dispatch_decoder.decode(binascii.a2b_base64(value))
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a dispatch: {error}") from None
        if len(dispatch.keys) % KEY_SIZE:
            raise ValueError("not a dispatch: the last key is incomplete")
        return dispatch


_dispatch_encoder = msgspec.msgpack.Encoder()
_dispatch_decoder = msgspec.msgpack.Decoder(Dispatch)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that one router holds for one engine until the engine has room."""

    router: str = ""
    """Id of the router."""
    requests: int = 0
    """Interactive sequences."""
    prefill_tokens: float = 0.0
    """Estimated uncached tokens of their prompts."""
    batch_requests: int = 0
    """Batch sequences."""
    projects: dict[str, int] = {}
    """Interactive requests by the id of their project; without those of no project."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A project's request at an engine, and what its router has set aside for it."""

    id: int
    """Id in its `Dispatch`."""
    project: str
    key: str = ""
    model: str = ""
    """Model or adapter that answers."""
    tokens: int = 0
    """Tokens that it is expected to count against limits of tokens."""
    cost_s: float = 0.0
    """Seconds of the engine's time that it is expected to take."""
    is_batch: bool = False
    attempt: int = 1
    """Number of the attempt: a request counts once against limits of requests."""
    is_copy: bool = False
    """Shadow traffic, which counts against no limit."""
    cost_nano: int = 0
    """Billionths of the currency's unit that it is expected to cost."""
    weight: float = 1.0
    """Weight in its `Origin`."""


class RecentUse(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Requests of one project and key that came to an engine within one second, and have ended."""

    project: str
    key: str
    model: str
    """Model or adapter that answered."""
    age_s: float
    """Seconds since the first of them came."""
    requests: int
    """Further attempts are not counted."""
    uncached_tokens: int
    """Prompt tokens that were computed, and tokens of answers."""
    cached_tokens: int
    """Prompt tokens found in the KV cache."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What one request with an `Origin` took of an engine, all its prompts and answers together.

    Written once, when the request has left the engine, however it ended. Unique by the engine's
    replica id, `epoch` and `seq`.
    """

    epoch: int
    """Identifies the engine's process: when it started, in Unix nanoseconds."""
    seq: int
    """Number of the record in this process, from 1, without gaps."""
    id: int
    """Id in its `Dispatch`."""
    origin: Origin
    model: str
    """Name of the engine's model."""
    adapter: str = ""
    arrived_s: float
    """When it reached the engine, in Unix time."""
    ended_s: float
    """When it left the engine, in Unix time."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    device_s: float = 0.0
    """Its share of the time of the replica's devices, summed over them."""
    is_aborted: bool = False
    """It ended before its last token."""


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Sums of all records that an engine process has written."""

    records: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class UsagePage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Oldest records of an engine that nobody has confirmed."""

    epoch: int
    records: list[UsageRecord]
    kept: int
    """Records that are not confirmed, these included."""
    dropped: int
    """Records that were dropped before they were confirmed, because there were too many."""
    totals: UsageTotals


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
_LENGTH_BYTES = 4
FRAME_LIMIT = 1 << 28
"""Maximum bytes of a frame; anything longer is not telemetry."""
