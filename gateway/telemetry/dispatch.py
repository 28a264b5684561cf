"""What a router tells an engine along with a request."""

import binascii

import msgspec

from gateway import header_names

KEY_SIZE = 8
"""Bytes per prefix key."""
DISPATCH = header_names.DISPATCH
"""Request header with the `Dispatch` of a request."""


class EarlierAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is charged of an earlier attempt, should its router never say so itself."""

    id: int
    """Id in its `Dispatch`."""
    completion_tokens: int = 0
    """Most tokens of the answer that are charged: what this attempt goes on from."""
    is_wasted: bool = False
    """Nothing of it is charged: this attempt begins anew."""


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
    is_counted: bool = False
    """All routers have counted the request: an engine has reported an earlier attempt."""
    earlier: tuple[EarlierAttempt, ...] = ()
    """Earlier attempts whose charge depends on this one."""


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
