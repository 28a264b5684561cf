"""What does not change while an engine runs, and where its replica is."""

from typing import Literal

import msgspec


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
    pid: int = 0
    """Its process on its node; 0 if unknown."""
