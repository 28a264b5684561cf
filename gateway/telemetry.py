"""What an engine replica tells the routers about itself."""

import msgspec


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


class ReplicaMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica publishes through Serve's `record_replica_metadata()`."""

    model: str
    host: str
    port: int
    key: str
    """The bearer token without which the replica's HTTP server answers 401."""
    facts: EngineFacts
